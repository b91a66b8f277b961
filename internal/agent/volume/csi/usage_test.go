package csi

import (
	"errors"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/ptr"
)

// TestUsage asks drivers that tell, cannot tell, and do not answer, also in the agent's next life.
func TestUsage(t *testing.T) {
	telling := append([]spec.NodeServiceCapability_RPC_Type{spec.NodeServiceCapability_RPC_GET_VOLUME_STATS}, staging...)
	b := newBench(t, telling, object(func(s *storagev1.CSIDriverSpec) {
		s.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral}
	}))
	b.register()
	requests := []Request{persistent("one"), {Pod: podOf("two"), Name: "inline", Inline: &corev1.CSIVolumeSource{Driver: "disk.example"}}}
	for _, r := range requests {
		if _, err := b.node.Publish(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	b.start()
	b.eventually("the driver", func() bool { return len(b.node.Drivers()) == 1 })
	want := &stats.FsStats{CapacityBytes: ptr.To[uint64](100), UsedBytes: ptr.To[uint64](30), AvailableBytes: ptr.To[uint64](60), InodesUsed: ptr.To[uint64](7), InodesFree: ptr.To[uint64](0)}
	for _, r := range requests {
		got, err := b.node.Usage(t.Context(), r.Pod.UID, r.Name)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", r.Name, err, diff)
		}
	}
	b.driver.failing("stats", errors.New("out of order"))
	if _, err := b.node.Usage(t.Context(), "one", "pv"); err == nil {
		t.Error("what the driver cannot answer is answered")
	}
	if _, err := b.node.Usage(t.Context(), "one", "other"); err == nil {
		t.Error("a volume that is not there is used")
	}

	mute := newBench(t, staging, object(nil))
	mute.register()
	if _, err := mute.node.Publish(t.Context(), persistent("one")); err != nil {
		t.Fatal(err)
	}
	if got, err := mute.node.Usage(t.Context(), "one", "pv"); err != nil || got != nil {
		t.Errorf("a driver that cannot tell: %v, %v", got, err)
	}
	for _, uid := range []types.UID{"one", "two"} {
		if err := errors.Join(b.node.Unpublish(t.Context(), uid), mute.node.Unpublish(t.Context(), uid)); err != nil {
			t.Error(err)
		}
	}
}
