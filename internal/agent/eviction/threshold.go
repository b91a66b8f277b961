package eviction

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Signal is something that can run out.
type Signal string

// The signals, by kubelet's names. Inodes and processes are counted, the rest is in bytes.
const (
	MemoryAvailable            Signal = "memory.available"
	AllocatableMemoryAvailable Signal = "allocatableMemory.available"
	NodeFsAvailable            Signal = "nodefs.available"
	NodeFsInodesFree           Signal = "nodefs.inodesFree"
	ImageFsAvailable           Signal = "imagefs.available"
	ImageFsInodesFree          Signal = "imagefs.inodesFree"
	ContainerFsAvailable       Signal = "containerfs.available"
	ContainerFsInodesFree      Signal = "containerfs.inodesFree"
	PIDAvailable               Signal = "pid.available"
)

// Names of what runs out, as messages have them.
const (
	inodes corev1.ResourceName = "inodes"
	pids   corev1.ResourceName = "pids"
)

// Resource is what runs out when the signal says so; empty for a signal that is not known.
func (s Signal) Resource() corev1.ResourceName {
	switch s {
	case MemoryAvailable, AllocatableMemoryAvailable:
		return corev1.ResourceMemory
	case NodeFsAvailable, ImageFsAvailable, ContainerFsAvailable:
		return corev1.ResourceEphemeralStorage
	case NodeFsInodesFree, ImageFsInodesFree, ContainerFsInodesFree:
		return inodes
	case PIDAvailable:
		return pids
	}
	return ""
}

// Condition is the node's while the signal says so.
func (s Signal) Condition() corev1.NodeConditionType {
	switch s.Resource() {
	case corev1.ResourceMemory:
		return corev1.NodeMemoryPressure
	case pids:
		return corev1.NodePIDPressure
	}
	return corev1.NodeDiskPressure
}

func (s Signal) quantity(n int64) *resource.Quantity {
	if r := s.Resource(); r == inodes || r == pids {
		return resource.NewQuantity(n, resource.DecimalSI)
	}
	return resource.NewQuantity(n, resource.BinarySI)
}

// Amount is a number of bytes, inodes or processes, or a part of all of them, but never more than Most, if that is set. Fixed or Fraction is set.
type Amount struct {
	Fixed    int64
	Fraction float64
	Most     int64
}

// Of is the amount where there are capacity in all.
func (a Amount) Of(capacity int64) int64 {
	n := a.Fixed
	if a.Fraction > 0 {
		n = int64(float64(capacity) * a.Fraction)
	}
	if a.Most > 0 {
		n = min(n, a.Most)
	}
	return n
}

// Threshold says when too little is left.
type Threshold struct {
	Signal Signal
	Value  Amount
	// Grace is for how long it must be so before Pods are ended; zero for a hard threshold.
	Grace time.Duration
	// Soft says that Pods get time to end.
	Soft bool
	// MinReclaim is how much more than Value must be free again before it is enough.
	MinReclaim Amount
}

// Config is what a user can set, by signal: kubelet's evictionHard, evictionSoft, evictionSoftGracePeriod and evictionMinimumReclaim.
type Config struct {
	Hard, Soft, SoftGrace, MinReclaim map[string]string
}

// Thresholds reads the settings. An error names what is wrong with which signal.
func (c Config) Thresholds() ([]Threshold, error) {
	var list []Threshold
	for _, kind := range []struct {
		name   string
		values map[string]string
		soft   bool
	}{{"eviction-hard", c.Hard, false}, {"eviction-soft", c.Soft, true}} {
		for _, name := range slices.Sorted(maps.Keys(kind.values)) {
			signal, text := Signal(name), kind.values[name]
			if signal.Resource() == "" || signal == AllocatableMemoryAvailable {
				return nil, fmt.Errorf("--%s: %s is no signal; there are %s", kind.name, name, known)
			}
			if text == "0%" || text == "100%" { // kubelet's way to turn one off
				continue
			}
			value, err := parseAmount(text)
			if err == nil && value == (Amount{}) {
				err = fmt.Errorf("%q is not more than nothing", text)
			}
			if err != nil {
				return nil, fmt.Errorf("--%s: %s: %w", kind.name, name, err)
			}
			t := Threshold{Signal: signal, Value: value, Soft: kind.soft}
			if kind.soft {
				grace, ok := c.SoftGrace[name]
				if !ok {
					return nil, fmt.Errorf("--eviction-soft-grace-period: %s has a soft threshold and needs a time", name)
				}
				if t.Grace, err = time.ParseDuration(grace); err != nil || t.Grace < 0 {
					return nil, fmt.Errorf("--eviction-soft-grace-period: %s: %q is not a time such as 1m30s", name, grace)
				}
			}
			if text, ok := c.MinReclaim[name]; ok {
				if t.MinReclaim, err = parseAmount(text); err != nil {
					return nil, fmt.Errorf("--eviction-minimum-reclaim: %s: %w", name, err)
				}
			}
			list = append(list, t)
			if signal == MemoryAvailable && !kind.soft { // what Pods may take in all is guarded in the same way
				t.Signal = AllocatableMemoryAvailable
				list = append(list, t)
			}
		}
	}
	for setting, values := range map[string]map[string]string{"eviction-soft-grace-period": c.SoftGrace, "eviction-minimum-reclaim": c.MinReclaim} {
		for name := range values {
			if Signal(name).Resource() == "" {
				return nil, fmt.Errorf("--%s: %s is no signal; there are %s", setting, name, known)
			}
		}
	}
	return list, nil
}

const known = "memory.available, nodefs.available, nodefs.inodesFree, imagefs.available, imagefs.inodesFree, containerfs.available, containerfs.inodesFree, pid.available"

func parseAmount(text string) (Amount, error) {
	if percent, ok := strings.CutSuffix(text, "%"); ok {
		n, err := strconv.ParseFloat(percent, 64)
		if err != nil || n < 0 || n > 100 {
			return Amount{}, fmt.Errorf("%q is not between 0%% and 100%%", text)
		}
		return Amount{Fraction: n / 100}, nil
	}
	q, err := resource.ParseQuantity(text)
	if err != nil || q.Sign() < 0 {
		return Amount{}, fmt.Errorf("%q is no quantity such as 100Mi or 10%%", text)
	}
	return Amount{Fixed: q.Value()}, nil
}

// HardReserve is what the hard thresholds keep free of a resource of which there is capacity, in bytes.
func HardReserve(list []Threshold, of Signal, capacity int64) int64 {
	for _, t := range list {
		if t.Signal == of && !t.Soft {
			return t.Value.Of(capacity)
		}
	}
	return 0
}
