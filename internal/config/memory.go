package config

import (
	"fmt"
	"strconv"
)

// Memory is how the node treats memory beyond Pods' limits. See KEP-2400 and KEP-2570.
type Memory struct {
	// LimitedSwap lets Burstable Pods swap, each container its share.
	LimitedSwap bool
	// Throttling is how much of what is between request and limit a container may use before the kernel slows it down; 0 for all.
	Throttling float64
	// Tiered keeps the memory that Pods request.
	Tiered bool
}

func memorySettings() []setting {
	return []setting{
		choice("memory-swap-behavior", "who may swap: NoSwap for nobody, LimitedSwap for Burstable Pods, each container its share (cgroup v2)", "NoSwap", "LimitedSwap",
			func(c *Config) *bool { return &c.Node.Memory.LimitedSwap }),
		choice("memory-reservation-policy", "whose requested memory the kernel keeps: None for nobody's, TieredReservation for Pods', firmly for Guaranteed ones (cgroup v2)", "None", "TieredReservation",
			func(c *Config) *bool { return &c.Node.Memory.Tiered }),
		{"memory-throttling-factor", "how much of the memory between request and limit a container may use before it is slowed down, as 0.9; 0 for all (cgroup v2)",
			func(c *Config) string { return strconv.FormatFloat(c.Node.Memory.Throttling, 'g', -1, 64) },
			func(c *Config, v string) (err error) {
				c.Node.Memory.Throttling, err = strconv.ParseFloat(v, 64)
				return err
			}},
	}
}

// choice is a setting of two words: no and yes.
func choice(name, usage, no, yes string, of func(*Config) *bool) setting {
	return setting{name, usage,
		func(c *Config) string {
			if *of(c) {
				return yes
			}
			return no
		},
		func(c *Config, v string) error {
			if v != no && v != yes {
				return fmt.Errorf("%q: want %s or %s", v, no, yes)
			}
			*of(c) = v == yes
			return nil
		}}
}

func (m Memory) validate(bad func(name, format string, args ...any)) {
	if m.Throttling < 0 || m.Throttling > 1 || m.Throttling != m.Throttling {
		bad("memory-throttling-factor", "%v: want 0 to 1", m.Throttling)
	}
}
