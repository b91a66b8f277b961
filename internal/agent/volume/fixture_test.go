package volume

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clocktesting "k8s.io/utils/clock/testing"
)

const nodeEnv = "CAROB_VOLUME_TEST_NODE"

// TestMain runs the tests again in a mount namespace of their own, so that no mount of theirs is seen elsewhere or outlives them.
func TestMain(m *testing.M) {
	if os.Getuid() != 0 || os.Getenv(nodeEnv) != "" {
		if os.Getenv(nodeEnv) != "" {
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				fmt.Fprintln(os.Stderr, "make mounts private:", err)
				os.Exit(1)
			}
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), nodeEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "tests in their own mount namespace:", err)
		os.Exit(1)
	}
}

// fakeSources are the objects of one namespace by name.
type fakeSources struct {
	configMaps map[string]*corev1.ConfigMap
	secrets    map[string]*corev1.Secret
	claims     map[string]*corev1.PersistentVolumeClaim
	volumes    map[string]*corev1.PersistentVolume
}

func (f *fakeSources) GetConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	if cm := f.configMaps[name]; cm != nil {
		return cm, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
}

func (f *fakeSources) GetSecret(_ context.Context, _, name string) (*corev1.Secret, error) {
	if s := f.secrets[name]; s != nil {
		return s, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
}

func (f *fakeSources) GetPersistentVolumeClaim(_ context.Context, _, name string) (*corev1.PersistentVolumeClaim, error) {
	if c := f.claims[name]; c != nil {
		return c, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "persistentvolumeclaims"}, name)
}

func (f *fakeSources) GetPersistentVolume(_ context.Context, name string) (*corev1.PersistentVolume, error) {
	if pv := f.volumes[name]; pv != nil {
		return pv, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "persistentvolumes"}, name)
}

type fixture struct {
	*Volumes
	sources *fakeSources
	clock   *clocktesting.FakePassiveClock
	pod     *corev1.Pod
	events  []string
}

// newFixture makes Volumes and a Pod with the volumes, mounted by the container c at /<volume>.
func newFixture(t *testing.T, volumes ...corev1.Volume) *fixture {
	t.Helper()
	if os.Getenv(nodeEnv) == "" {
		t.Skip("needs root")
	}
	f := &fixture{
		sources: &fakeSources{
			configMaps: map[string]*corev1.ConfigMap{"cm": {Data: map[string]string{"a": "1", "b": "2"}, BinaryData: map[string][]byte{"c": {0, 1}}}},
			secrets:    map[string]*corev1.Secret{"s": {Data: map[string][]byte{"key": []byte("hidden")}}},
		},
		clock: clocktesting.NewFakePassiveClock(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)),
		pod: &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "uid-1", Labels: map[string]string{"app": "x"}},
			Spec:       corev1.PodSpec{Volumes: volumes, Containers: []corev1.Container{{Name: "c"}}},
		},
	}
	for _, v := range volumes {
		f.pod.Spec.Containers[0].VolumeMounts = append(f.pod.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: v.Name, MountPath: "/" + v.Name})
	}
	f.Volumes = f.restart(t, filepath.Join(t.TempDir(), "pods"))
	t.Cleanup(func() {
		if err := f.Teardown(context.Background(), f.pod.UID); err != nil {
			t.Error(err)
		}
	})
	return f
}

// restart makes new Volumes over the same folder, as after kill -9.
func (f *fixture) restart(t *testing.T, dir string) *Volumes {
	return New(Config{Dir: dir, Sources: f.sources, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Clock: f.clock,
		NodeLabels: func() (map[string]string, error) { return map[string]string{"kubernetes.io/hostname": "n1"}, nil },
		Event:      func(_ *corev1.Pod, reason, message string) { f.events = append(f.events, reason+": "+message) }})
}

func (f *fixture) setup(t *testing.T) map[string]Mounted {
	t.Helper()
	m, err := f.Setup(t.Context(), f.pod)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func ptr[T any](v T) *T { return &v }

func configMapVolume(name string) corev1.Volume {
	return corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: name}, DefaultMode: ptr[int32](0o644)}}}
}

func secretVolume(name string) corev1.Volume {
	return corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name, DefaultMode: ptr[int32](0o400)}}}
}

func emptyDirVolume(src corev1.EmptyDirVolumeSource) corev1.Volume {
	return corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &src}}
}

func hostPathVolume(path string, kind corev1.HostPathType) corev1.Volume {
	return corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path, Type: &kind}}}
}

// visible reads a projecting volume as a container sees it: path to content.
func visible(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if len(e.Name()) > 1 && e.Name()[:2] == ".." {
			continue
		}
		root, err := filepath.EvalSymlinks(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		err = filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(p)
			rel, _ := filepath.Rel(root, p)
			out[filepath.Join(e.Name(), rel)] = string(data)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}
