package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

// Eviction says when a node that runs out of something ends Pods. Hard, Soft, SoftGrace and MinReclaim are by kubelet's signals; what they say is
// checked by those who act on it.
type Eviction struct {
	Hard, Soft, SoftGrace, MinReclaim map[string]string
	// MaxPodGrace is the most that a Pod gets to end for a soft threshold, Transition how long a condition of the node stays at least.
	MaxPodGrace, Transition time.Duration
}

func defaultEviction() Eviction {
	return Eviction{Transition: 5 * time.Minute, Hard: map[string]string{
		"memory.available": "100Mi", "nodefs.available": "10%", "nodefs.inodesFree": "5%", "imagefs.available": "15%", "imagefs.inodesFree": "5%"}}
}

// Implied says that the hard thresholds are the usual ones.
func (e Eviction) Implied() bool { return maps.Equal(e.Hard, defaultEviction().Hard) }

func evictionSettings() []setting {
	return []setting{
		pairs("kube-reserved", "what is kept for Carob itself, as cpu=200m,memory=150Mi,ephemeral-storage=1Gi,pid=1000", "=",
			func(c *Config) *map[string]string { return &c.Node.KubeReserved }),
		pairs("system-reserved", "what is kept for the system, in the same form", "=",
			func(c *Config) *map[string]string { return &c.Node.SystemReserved }),
		{"pod-max-pids", "processes and threads that a Pod may have; -1 for no limit",
			func(c *Config) string { return strconv.FormatInt(c.Node.PodMaxPIDs, 10) },
			func(c *Config, v string) (err error) {
				c.Node.PodMaxPIDs, err = strconv.ParseInt(v, 10, 64)
				return err
			}},
		pairs("eviction-hard", "thresholds of what is left that have Pods ended at once, as memory.available<100Mi,nodefs.available<10%; none for none", "<",
			func(c *Config) *map[string]string { return &c.Node.Eviction.Hard }),
		pairs("eviction-soft", "thresholds that have Pods ended after a time", "<",
			func(c *Config) *map[string]string { return &c.Node.Eviction.Soft }),
		pairs("eviction-soft-grace-period", "for how long a soft threshold must be passed, as memory.available=1m30s", "=",
			func(c *Config) *map[string]string { return &c.Node.Eviction.SoftGrace }),
		pairs("eviction-minimum-reclaim", "how much more than a threshold must be had back, as nodefs.available=500Mi", "=",
			func(c *Config) *map[string]string { return &c.Node.Eviction.MinReclaim }),
		{"eviction-max-pod-grace-period", "seconds that a Pod gets at most to end for a soft threshold",
			func(c *Config) string { return strconv.Itoa(int(c.Node.Eviction.MaxPodGrace / time.Second)) },
			func(c *Config, v string) error {
				n, err := strconv.ParseInt(v, 10, 32)
				c.Node.Eviction.MaxPodGrace = time.Duration(n) * time.Second
				return err
			}},
		{"eviction-pressure-transition-period", "how long a condition of the node that tells of pressure stays at least",
			func(c *Config) string { return c.Node.Eviction.Transition.String() },
			func(c *Config, v string) (err error) {
				c.Node.Eviction.Transition, err = time.ParseDuration(v)
				return err
			}},
	}
}

// pairs is a setting of names and values, NAME<sign>VALUE, separated by commas; none stands for no pair.
func pairs(name, usage, sign string, of func(*Config) *map[string]string) setting {
	return setting{name, usage,
		func(c *Config) string {
			m := *of(c)
			if m != nil && len(m) == 0 {
				return "none"
			}
			var out []string
			for _, k := range slices.Sorted(maps.Keys(m)) {
				out = append(out, k+sign+m[k])
			}
			return strings.Join(out, ",")
		},
		func(c *Config, v string) error {
			if v == "" {
				*of(c) = nil
				return nil
			}
			m := map[string]string{}
			for _, part := range list(v) {
				if v == "none" {
					break
				}
				k, value, ok := strings.Cut(part, sign)
				if !ok || k == "" || value == "" {
					return fmt.Errorf("%q is not NAME%sVALUE", part, sign)
				}
				if _, twice := m[k]; twice {
					return fmt.Errorf("%s stands there twice", k)
				}
				m[k] = value
			}
			*of(c) = m
			return nil
		}}
}

// validate tells what is wrong, by the setting's name.
func (n Node) validate(bad func(name, format string, args ...any)) {
	for setting, m := range map[string]map[string]string{"kube-reserved": n.KubeReserved, "system-reserved": n.SystemReserved} {
		for name, v := range m {
			if !slices.Contains([]string{"cpu", "memory", "ephemeral-storage", "pid"}, name) {
				bad(setting, "%s cannot be reserved; cpu, memory, ephemeral-storage and pid can", name)
			} else if q, err := resource.ParseQuantity(v); err != nil || q.Sign() < 0 {
				bad(setting, "%s: %q is no quantity of 0 or more", name, v)
			}
		}
	}
	if n.PodMaxPIDs == 0 || n.PodMaxPIDs < -1 {
		bad("pod-max-pids", "%d: want 1 or more, or -1 for no limit", n.PodMaxPIDs)
	}
	n.Shutdown.validate(bad)
	n.Memory.validate(bad)
	if n.Eviction.MaxPodGrace < 0 {
		bad("eviction-max-pod-grace-period", "must not be negative")
	}
	if n.Eviction.Transition < 0 {
		bad("eviction-pressure-transition-period", "must not be negative")
	}
}

// Reserved is what of a resource is never given to Pods: thousandths of a core of cpu, bytes, or a number.
func (n Node) Reserved(name string) (int64, error) {
	var sum int64
	for _, m := range []map[string]string{n.KubeReserved, n.SystemReserved} {
		text, ok := m[name]
		if !ok {
			continue
		}
		q, err := resource.ParseQuantity(text)
		if err != nil {
			return 0, errors.Join(fmt.Errorf("reserved %s", name), err)
		}
		if name == "cpu" {
			sum += q.MilliValue()
		} else {
			sum += q.Value()
		}
	}
	return sum, nil
}
