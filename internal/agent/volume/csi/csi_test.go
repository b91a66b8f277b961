package csi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
	"k8s.io/utils/ptr"
)

var (
	staging   = []spec.NodeServiceCapability_RPC_Type{spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME}
	expanding = append([]spec.NodeServiceCapability_RPC_Type{spec.NodeServiceCapability_RPC_EXPAND_VOLUME}, staging...)
)

// object is the driver's CSIDriver.
func object(change func(*storagev1.CSIDriverSpec)) *storagev1.CSIDriver {
	o := &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "disk.example"}, Spec: storagev1.CSIDriverSpec{AttachRequired: ptr.To(false)}}
	if change != nil {
		change(&o.Spec)
	}
	return o
}

func podOf(uid types.UID) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: uid}, Spec: corev1.PodSpec{ServiceAccountName: "sa"}}
}

func persistent(uid types.UID) Request {
	return Request{Pod: podOf(uid), Name: "pv", Claim: &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "ns"}},
		PV: &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "disk.example", VolumeHandle: "vol", FSType: "ext4"}}}}}
}

func TestRegistration(t *testing.T) {
	b := newBench(t, staging, object(nil))
	b.register()
	b.eventually("the driver", func() bool { return len(b.node.Drivers()) == 1 })
	o, err := b.client.StorageV1().CSINodes().Get(t.Context(), "n1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := []storagev1.CSINodeDriver{{Name: "disk.example", NodeID: "id-of-n1", TopologyKeys: []string{"disk.example/zone"}, Allocatable: &storagev1.VolumeNodeResources{Count: ptr.To[int32](7)}}}
	if diff := cmp.Diff(want, o.Spec.Drivers); diff != "" || o.OwnerReferences[0].UID != "node-1" {
		t.Errorf("%s\n%+v", diff, o.OwnerReferences)
	}
	node, _ := b.client.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
	if node.Labels["disk.example/zone"] != "z" || node.Annotations[nodeIDAnnotation] != `{"disk.example":"id-of-n1"}` {
		t.Errorf("node %v %v", node.Labels, node.Annotations)
	}
	// The agent's end takes nothing back, the driver's does.
	b.start()
	b.eventually("the driver, of which the agent's next life hears by itself", func() bool { return len(b.node.Drivers()) == 1 })
	b.quit()
	b.eventually("the end of the driver", func() bool {
		o, err := b.client.StorageV1().CSINodes().Get(t.Context(), "n1", metav1.GetOptions{})
		return err == nil && len(o.Spec.Drivers) == 0 && len(b.node.Drivers()) == 0
	})
	// And it comes back.
	for len(b.driver.registered) > 0 {
		<-b.driver.registered
	}
	b.register()
}

func TestWhoCannotRegister(t *testing.T) {
	b := newBench(t, nil)
	b.driver.kind = registerapi.DRAPlugin
	b.serve()
	if s := <-b.driver.registered; s.GetPluginRegistered() || !strings.Contains(s.GetError(), `plugins of type "DRAPlugin" are not supported`) {
		t.Errorf("told %v", s)
	}
}

// TestVolumeLife goes through a volume that two Pods have, with the agent's death at each place in between.
func TestVolumeLife(t *testing.T) {
	for _, deaths := range []bool{false, true} {
		t.Run(fmt.Sprintf("deaths=%v", deaths), func(t *testing.T) {
			b := newBench(t, staging, object(nil))
			b.register()
			die := func() {
				if !deaths {
					return
				}
				b.start()
				b.eventually("the driver", func() bool { return len(b.node.Drivers()) == 1 })
			}
			one, err := b.node.Publish(t.Context(), persistent("one"))
			if err != nil {
				t.Fatal(err)
			}
			if deaths { // and before the driver registers with the next life, the Pod has what it had
				b.quit()
				b.start()
				if p, err := b.node.Publish(t.Context(), persistent("one")); err != nil || p.Path != one.Path || p.Own {
					t.Errorf("without the driver: %+v, %v", p, err)
				}
				if _, err := b.node.Publish(t.Context(), persistent("two")); err == nil {
					t.Error("a new volume without the driver")
				}
				b.serve()
				b.eventually("the driver", func() bool { return len(b.node.Drivers()) == 1 })
			}
			if !one.Own || !one.Fresh || one.ReadOnly {
				t.Errorf("%+v", one)
			}
			if err := os.WriteFile(filepath.Join(one.Path, "file"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			die()
			if at, ok := b.node.LookAt("one"); ok != deaths || !at.IsZero() {
				t.Errorf("look at %v, %v", at, ok)
			}
			if _, err := b.node.Publish(t.Context(), persistent("one")); err != nil { // again is no harm
				t.Fatal(err)
			}
			if at, ok := b.node.LookAt("one"); ok {
				t.Errorf("look at %v", at)
			}
			two, err := b.node.Publish(t.Context(), persistent("two"))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(filepath.Join(two.Path, "file")); err != nil || string(got) != "x" {
				t.Errorf("%q, %v", got, err)
			}
			die()
			if err := b.node.Unpublish(t.Context(), "one"); err != nil {
				t.Fatal(err)
			}
			if len(b.driver.staged) != 1 {
				t.Error("unstaged though another Pod has it")
			}
			die()
			for range 2 {
				if err := b.node.Unpublish(t.Context(), "two"); err != nil {
					t.Fatal(err)
				}
			}
			if len(b.driver.staged) != 0 || len(b.driver.published) != 0 {
				t.Errorf("left: %v %v", b.driver.staged, b.driver.published)
			}
			b.clean()
		})
	}
}

// clean holds that no record and no mount point is left.
func (b *bench) clean() {
	b.t.Helper()
	for _, dir := range []string{"pods", stagingDir} {
		filepath.WalkDir(filepath.Join(b.root, dir), func(p string, d fs.DirEntry, err error) error {
			if err == nil && (!d.IsDir() || d.Name() == "mount" || d.Name() == "globalmount") {
				b.t.Errorf("left over: %s", p)
			}
			return nil
		})
	}
	if len(b.node.volumes) != 0 {
		b.t.Errorf("remembered: %v", b.node.volumes)
	}
}

// TestOrphans holds that what was staged when the agent died is unstaged though its Pod has gone meanwhile.
func TestOrphans(t *testing.T) {
	b := newBench(t, staging, object(nil))
	b.register()
	b.driver.failing("publish", errors.New("no"))
	if _, err := b.node.Publish(t.Context(), persistent("one")); err == nil {
		t.Fatal("published")
	}
	b.driver.failing("unstage", errors.New("busy"))
	if err := b.node.Unpublish(t.Context(), "one"); err == nil {
		t.Fatal("unstaged")
	}
	b.driver.failing("unstage", nil)
	if len(b.driver.staged) != 1 {
		t.Fatal("not staged")
	}
	b.start()
	b.eventually("the end of what was staged", func() bool {
		b.driver.mu.Lock()
		defer b.driver.mu.Unlock()
		return len(b.driver.staged) == 0
	})
	b.stop()
	b.clean()
}

func TestAttached(t *testing.T) {
	b := newBench(t, nil, object(func(s *storagev1.CSIDriverSpec) { s.AttachRequired = nil }))
	b.register()
	var waiting *AttachError
	if _, err := b.node.Publish(t.Context(), persistent("one")); !errors.As(err, &waiting) {
		t.Fatalf("without an attachment: %v", err)
	}
	name := AttachmentName("vol", "disk.example", "n1")
	a := &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: storagev1.VolumeAttachmentStatus{AttachError: &storagev1.VolumeError{Message: "no such disk"}}}
	a, _ = b.client.StorageV1().VolumeAttachments().Create(t.Context(), a, metav1.CreateOptions{})
	if _, err := b.node.Publish(t.Context(), persistent("one")); !errors.As(err, &waiting) || waiting.Reason != "no such disk" {
		t.Fatalf("an attachment that failed: %v", err)
	}
	a.Status = storagev1.VolumeAttachmentStatus{Attached: true, AttachmentMetadata: map[string]string{"device": "/dev/x"}}
	b.client.StorageV1().VolumeAttachments().Update(t.Context(), a, metav1.UpdateOptions{})
	b.node.cfg.InUseChanged = func(context.Context) error { return errors.New("the API is away") }
	if _, err := b.node.Publish(t.Context(), persistent("one")); err == nil || !strings.Contains(err.Error(), "the API is away") || len(b.driver.told()) != 0 {
		t.Errorf("mounted before it was told: %v", err)
	}
	var inUse []corev1.UniqueVolumeName
	b.node.cfg.InUseChanged = func(context.Context) error { inUse = b.node.InUse(); return nil }
	if _, err := b.node.Publish(t.Context(), persistent("one")); err != nil {
		t.Fatal(err)
	}
	if len(inUse) != 1 {
		t.Errorf("told: %v", inUse)
	}
	if got := b.driver.last.GetPublishContext()["device"]; got != "/dev/x" {
		t.Errorf("publish context %q", got)
	}
	want := []corev1.UniqueVolumeName{"kubernetes.io/csi/disk.example^vol"}
	if diff := cmp.Diff(want, b.node.InUse()); diff != "" {
		t.Error(diff)
	}
	b.start()
	if diff := cmp.Diff(want, b.node.InUse()); diff != "" {
		t.Errorf("after a restart: %s", diff)
	}
	b.eventually("the driver", func() bool { return len(b.node.Drivers()) == 1 })
	if err := b.node.Unpublish(t.Context(), "one"); err != nil || len(b.node.InUse()) != 0 {
		t.Errorf("%v, in use %v", err, b.node.InUse())
	}
	b.clean()
}

func TestInline(t *testing.T) {
	b := newBench(t, nil, object(func(s *storagev1.CSIDriverSpec) {
		s.PodInfoOnMount, s.RequiresRepublish = ptr.To(true), ptr.To(true)
		s.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecycleEphemeral}
		s.TokenRequests = []storagev1.TokenRequest{{Audience: "vault"}}
	}))
	b.register()
	in := Request{Pod: podOf("one"), Name: "v", Inline: &corev1.CSIVolumeSource{Driver: "disk.example", VolumeAttributes: map[string]string{"size": "1Gi"},
		NodePublishSecretRef: &corev1.LocalObjectReference{Name: "s"}}}
	p, err := b.node.Publish(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"size": "1Gi", "csi.storage.k8s.io/pod.name": "p", "csi.storage.k8s.io/pod.namespace": "ns", "csi.storage.k8s.io/pod.uid": "one",
		"csi.storage.k8s.io/serviceAccount.name": "sa", "csi.storage.k8s.io/ephemeral": "true",
		"csi.storage.k8s.io/serviceAccount.tokens": `{"vault":{"token":"token-for-vault","expirationTimestamp":null}}`}
	if diff := cmp.Diff(want, b.driver.last.GetVolumeContext()); diff != "" || b.driver.last.GetSecrets()["password"] != "p" || p.Own {
		t.Errorf("%s, secrets %v, %+v", diff, b.driver.last.GetSecrets(), p)
	}
	b.driver.told()
	if _, err := b.node.Publish(t.Context(), in); err != nil || len(b.driver.told()) != 0 {
		t.Errorf("published again at once, %v", err)
	}
	if at, ok := b.node.LookAt("one"); !ok || at.Sub(b.clock.Now()) != time.Minute {
		t.Errorf("look at %v, %v", at, ok)
	}
	b.clock.Step(time.Minute)
	if _, err := b.node.Publish(t.Context(), in); err != nil || len(b.driver.told()) != 1 {
		t.Errorf("not published again when it was due, %v", err)
	}
	wrong := persistent("two")
	if _, err := b.node.Publish(t.Context(), wrong); err == nil || err.Error() != `volume mode "Persistent" not supported by driver disk.example (only supports ["Ephemeral"])` {
		t.Errorf("a persistent volume: %v", err)
	}
	if err := b.node.Unpublish(t.Context(), "one"); err != nil {
		t.Error(err)
	}
}

func TestGrownVolume(t *testing.T) {
	r := persistent("one")
	r.PV.Spec.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("2Gi")}
	r.Claim.Status.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	r.Claim.Status.Conditions = []corev1.PersistentVolumeClaimCondition{{Type: corev1.PersistentVolumeClaimFileSystemResizePending, Status: corev1.ConditionTrue}}
	b := newBench(t, expanding, object(nil), r.Claim)
	b.register()
	if _, err := b.node.Publish(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"stage vol", "publish vol", "expand vol 2147483648"}, b.driver.told()); diff != "" {
		t.Error(diff)
	}
	c, _ := b.client.CoreV1().PersistentVolumeClaims("ns").Get(t.Context(), "c", metav1.GetOptions{})
	if got := c.Status.Capacity[corev1.ResourceStorage]; got.String() != "2Gi" || len(c.Status.Conditions) != 0 {
		t.Errorf("claim: %v", c.Status)
	}
	if err := b.node.Unpublish(t.Context(), "one"); err != nil {
		t.Error(err)
	}
}

func TestDriverIsMissing(t *testing.T) {
	b := newBench(t, nil, object(nil))
	if _, err := b.node.Publish(t.Context(), persistent("one")); err == nil || err.Error() != "driver name disk.example not found in the list of registered CSI drivers" {
		t.Errorf("published: %v", err)
	}
	b.clean()
}

func TestAccessMode(t *testing.T) {
	for _, tc := range []struct {
		mode  corev1.PersistentVolumeAccessMode
		tells bool
		want  spec.VolumeCapability_AccessMode_Mode
	}{
		{corev1.ReadWriteOnce, false, spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		{corev1.ReadWriteOnce, true, spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER},
		{corev1.ReadWriteOncePod, false, spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		{corev1.ReadWriteOncePod, true, spec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER},
		{corev1.ReadOnlyMany, true, spec.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY},
		{corev1.ReadWriteMany, false, spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER},
	} {
		if got := accessMode(tc.mode, tc.tells); got != tc.want {
			t.Errorf("%s, %v: %v, want %v", tc.mode, tc.tells, got, tc.want)
		}
	}
}
