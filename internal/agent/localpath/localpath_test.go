package localpath

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/api/volume"
)

func pv(folder, name, node string, change ...func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	v := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{volume.LocalPathFinalizer, "kubernetes.io/pv-protection"}, Annotations: map[string]string{
			"pv.kubernetes.io/provisioned-by": volume.LocalPathProvisioner, volume.LocalPathNode: node,
		}},
		Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: filepath.Join(folder, name)}},
		},
	}
	for _, c := range change {
		c(v)
	}
	return v
}

func TestDecide(t *testing.T) {
	going := func(v *corev1.PersistentVolume) { v.DeletionTimestamp = ptr.To(metav1.Now()) }
	free := func(v *corev1.PersistentVolume) { v.Finalizers = []string{volume.LocalPathFinalizer} }
	retained := func(v *corev1.PersistentVolume) {
		v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	}
	for _, tt := range []struct {
		name   string
		change []func(*corev1.PersistentVolume)
		want   step
	}{
		{"there", nil, makeFolder},
		{"going, protected", []func(*corev1.PersistentVolume){going}, nothing},
		{"going, free", []func(*corev1.PersistentVolume){going, free}, removeFolder},
		{"going, retained", []func(*corev1.PersistentVolume){going, free, retained}, keepFolder},
		{"going, somebody else's finalizer", []func(*corev1.PersistentVolume){going, func(v *corev1.PersistentVolume) { v.Finalizers = []string{"a/b"} }}, nothing},
	} {
		if got := decide(pv("/f", "v", "n1", tt.change...)); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestMakeKeepsToItsFolder(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{"/", dir, filepath.Join(dir, "other"), filepath.Join(dir, "a") + "/../v", "v"} {
		v := pv(dir, "v", "n1", func(v *corev1.PersistentVolume) { v.Spec.Local.Path = path })
		if err := Make(dir, v); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	if made, err := os.ReadDir(dir); err != nil || len(made) != 0 {
		t.Errorf("made %v, %v", made, err)
	}
	if err := Make(dir, pv(dir, "v", "n1")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "v"))
	if err != nil || info.Mode().Perm() != mode {
		t.Errorf("%v %v", info, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("%v %v", left, err)
	}
}

func TestNothingMountedIsRemoved(t *testing.T) {
	outside, dir := t.TempDir(), filepath.Join(t.TempDir(), "v")
	inside := filepath.Join(dir, "in")
	for _, err := range []error{os.MkdirAll(inside, 0o700), os.WriteFile(filepath.Join(outside, "kept"), nil, 0o600), unix.Mount(outside, inside, "", unix.MS_BIND, "")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := remove(dir); err == nil {
		t.Error("removed with a mount inside")
	}
	if err := unix.Unmount(inside, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := remove(dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(outside, "kept")); err != nil {
		t.Errorf("a link was followed, or a mount: %v", err)
	}
	if err := remove(dir); err != nil {
		t.Errorf("twice: %v", err)
	}
}

func TestKeeper(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "volumes")
	gone := pv(folder, "gone", "n1", func(v *corev1.PersistentVolume) {
		v.DeletionTimestamp, v.Finalizers = ptr.To(metav1.Now()), []string{volume.LocalPathFinalizer}
	})
	if err := os.MkdirAll(filepath.Join(folder, "gone", "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	client := fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, pv(folder, "mine", "n1"), pv(folder, "other", "n2"), gone)
	factory := informers.NewSharedInformerFactory(client, 0)
	k, err := New(Config{NodeName: "n1", Folder: folder, Client: client, Informers: factory, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	factory.Start(ctx.Done())
	go func() { done <- k.Run(ctx) }()
	ok := func() bool {
		n, err := client.CoreV1().Nodes().Get(ctx, "n1", metav1.GetOptions{})
		if err != nil || n.Annotations[volume.LocalPathFolder] != folder {
			return false
		}
		_, made := os.Stat(filepath.Join(folder, "mine"))
		_, removed := os.Stat(filepath.Join(folder, "gone"))
		v, err := client.CoreV1().PersistentVolumes().Get(ctx, "gone", metav1.GetOptions{})
		return made == nil && os.IsNotExist(removed) && (err != nil || len(v.Finalizers) == 0)
	}
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not as it should be")
		}
	}
	if _, err := os.Stat(filepath.Join(folder, "other")); !os.IsNotExist(err) {
		t.Error("another node's folder was made")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	factory.Shutdown()
}
