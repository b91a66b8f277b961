package eviction

import (
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Observation is what is left of something, and how much of it there is.
type Observation struct{ Available, Capacity int64 }

// Observations are those that could be made.
type Observations map[Signal]Observation

// Observe takes them out of a node's statistics.
func Observe(n stats.NodeStats) Observations {
	o := Observations{}
	add := func(s Signal, available, capacity *uint64) {
		if available != nil && capacity != nil {
			o[s] = Observation{int64(*available), int64(*capacity)}
		}
	}
	memory := func(s Signal, m *stats.MemoryStats) {
		if m != nil && m.AvailableBytes != nil && m.WorkingSetBytes != nil {
			capacity := *m.AvailableBytes + *m.WorkingSetBytes
			add(s, m.AvailableBytes, &capacity)
		}
	}
	memory(MemoryAvailable, n.Memory)
	for _, c := range n.SystemContainers {
		if c.Name == stats.SystemContainerPods {
			memory(AllocatableMemoryAvailable, c.Memory)
		}
	}
	disk := func(bytes, inodes Signal, fs *stats.FsStats) {
		if fs == nil {
			return
		}
		add(bytes, fs.AvailableBytes, fs.CapacityBytes)
		if fs.Inodes != nil && *fs.Inodes > 0 { // some file systems have no such number
			add(inodes, fs.InodesFree, fs.Inodes)
		}
	}
	disk(NodeFsAvailable, NodeFsInodesFree, n.Fs)
	if n.Runtime != nil {
		disk(ImageFsAvailable, ImageFsInodesFree, n.Runtime.ImageFs)
		disk(ContainerFsAvailable, ContainerFsInodesFree, n.Runtime.ContainerFs)
	}
	if r := n.Rlimit; r != nil && r.MaxPID != nil && r.NumOfRunningProcesses != nil {
		o[PIDAvailable] = Observation{*r.MaxPID - *r.NumOfRunningProcesses, *r.MaxPID}
	}
	return o
}

// met are the thresholds below which there is, or with reclaim those of which not yet enough has been had back.
func met(list []Threshold, o Observations, reclaim bool) []Threshold {
	var out []Threshold
	for _, t := range list {
		seen, ok := o[t.Signal]
		if !ok {
			continue
		}
		want := t.Value.Of(seen.Capacity)
		if reclaim {
			want += t.MinReclaim.Of(seen.Capacity)
		}
		if want > seen.Available {
			out = append(out, t)
		}
	}
	return out
}

// Enough says whether all thresholds are kept, with what is to be had back besides.
func Enough(list []Threshold, o Observations) bool { return len(met(list, o, true)) == 0 }
