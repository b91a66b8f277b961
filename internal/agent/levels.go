package agent

import (
	"fmt"
	"reflect"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/agent/criconf"
	"carob.dev/carob/internal/agent/podstate"
	podrule "carob.dev/carob/internal/api/pod"
)

// levels keeps the cgroups that Pods of one quality of service stand in at what these request together.
type levels struct {
	mu   sync.Mutex // guards what follows, and serialises writing
	pods map[types.UID]criconf.Share
	sums map[corev1.PodQOSClass]criconf.Share
	set  map[corev1.PodQOSClass]*runtimeapi.LinuxContainerResources
}

func newLevels() *levels {
	return &levels{pods: map[types.UID]criconf.Share{}, sums: map[corev1.PodQOSClass]criconf.Share{}, set: map[corev1.PodQOSClass]*runtimeapi.LinuxContainerResources{}}
}

// take counts a Pod with what its cgroup has, anew if it was counted.
func (a *Agent) take(pod *corev1.Pod, have podstate.Amounts) error {
	return a.level(pod.UID, &criconf.Share{Class: podrule.QOS(pod), MilliCPU: have.CPURequest, Memory: have.MemoryRequest})
}

// level replaces what a Pod counts for; nil for a Pod that has gone.
func (a *Agent) level(uid types.UID, share *criconf.Share) error {
	l := a.levels
	l.mu.Lock()
	defer l.mu.Unlock()
	add := func(s criconf.Share, sign int64) {
		sum := l.sums[s.Class]
		sum.MilliCPU += sign * s.MilliCPU
		sum.Memory += sign * s.Memory
		l.sums[s.Class] = sum
	}
	if old, ok := l.pods[uid]; ok {
		add(old, -1)
		delete(l.pods, uid)
	}
	if share != nil {
		add(*share, 1)
		l.pods[uid] = *share
	}
	for _, class := range []corev1.PodQOSClass{corev1.PodQOSGuaranteed, corev1.PodQOSBurstable} {
		want := criconf.Level(class, l.sums[corev1.PodQOSGuaranteed], l.sums[corev1.PodQOSBurstable], a.limited)
		if reflect.DeepEqual(l.set[class], want) {
			continue
		}
		r := cgroupLimits(want)
		r.Unified = want.Unified
		if err := a.cfg.Cgroups.Create(a.cfg.CgroupNames.Level(class), r); err != nil {
			return fmt.Errorf("limit the cgroup of %s Pods: %w", class, err)
		}
		l.set[class] = want
	}
	return nil
}
