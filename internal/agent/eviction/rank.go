package eviction

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Candidate is a Pod that runs, with what it uses; Stats is nil where that is not known.
type Candidate struct {
	Pod   *corev1.Pod
	Stats *stats.PodStats
}

// Rank orders Pods by who is to go first when the signal says that something runs out: those that use more than they asked for before the
// others, then by priority, then by how much more. imageFs says that images and containers have a disk of their own.
func Rank(s Signal, list []Candidate, imageFs bool) {
	slices.SortStableFunc(list, func(a, b Candidate) int {
		if s == PIDAvailable {
			return cmp.Or(cmp.Compare(priority(a.Pod), priority(b.Pod)), unknownFirst(a, b), cmp.Compare(processes(b), processes(a)))
		}
		if c := unknownFirst(a, b); c != 0 {
			return c
		}
		ua, ub := used(s, a, imageFs), used(s, b, imageFs)
		ra, rb := request(a.Pod, s.Resource()), request(b.Pod, s.Resource())
		beyond := s.Resource()
		if beyond == inodes { // nobody asks for them: what counts is the whole
			beyond = corev1.ResourceEphemeralStorage
		}
		return cmp.Or(first(ua > ra, ub > rb), cmp.Compare(priority(a.Pod), priority(b.Pod)),
			cmp.Compare(ub-request(b.Pod, beyond), ua-request(a.Pod, beyond)))
	})
}

func unknownFirst(a, b Candidate) int { return first(a.Stats == nil, b.Stats == nil) }

// first puts those for which it is so before the others.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func priority(pod *corev1.Pod) int32 {
	if pod.Spec.Priority != nil {
		return *pod.Spec.Priority
	}
	return 0
}

func request(pod *corev1.Pod, name corev1.ResourceName) int64 {
	q := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})[name]
	return q.Value()
}

func processes(c Candidate) uint64 {
	if c.Stats == nil || c.Stats.ProcessStats == nil || c.Stats.ProcessStats.ProcessCount == nil {
		return 0
	}
	return *c.Stats.ProcessStats.ProcessCount
}

// used is what the Pod uses of what runs out.
func used(s Signal, c Candidate, imageFs bool) int64 {
	if s.Resource() == corev1.ResourceMemory {
		if c.Stats.Memory == nil {
			return 0
		}
		return value(c.Stats.Memory.WorkingSetBytes)
	}
	read := func(fs *stats.FsStats) int64 {
		switch {
		case fs == nil:
			return 0
		case s.Resource() == inodes:
			return value(fs.InodesUsed)
		}
		return value(fs.UsedBytes)
	}
	node := s == NodeFsAvailable || s == NodeFsInodesFree
	var sum int64
	for _, x := range c.Stats.Containers {
		if !imageFs || !node {
			sum += read(x.Rootfs)
		}
		if !imageFs || node {
			sum += read(x.Logs)
		}
	}
	if imageFs && !node {
		return sum
	}
	for _, v := range c.Stats.VolumeStats {
		if local(c.Pod, v.Name) {
			sum += read(&v.FsStats)
		}
	}
	return sum
}

// local says whether a volume is kept on the node's own disk.
func local(pod *corev1.Pod, name string) bool {
	for _, v := range pod.Spec.Volumes {
		if v.Name == name {
			return v.HostPath != nil || v.EmptyDir != nil && v.EmptyDir.Medium != corev1.StorageMediumMemory || v.ConfigMap != nil || v.GitRepo != nil
		}
	}
	return false
}

func value(n *uint64) int64 {
	if n == nil {
		return 0
	}
	return int64(*n)
}
