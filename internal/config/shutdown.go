package config

import (
	"fmt"
	"strconv"
	"time"
)

// Shutdown is how long Pods have to end when the machine is shut down: all of them Total, the last Critical of it those of the system; or, by
// their priority, ByPriority, whose values are durations. When there is neither, nobody waits for them.
type Shutdown struct {
	Total, Critical time.Duration
	ByPriority      map[string]string
}

func shutdownSettings() []setting {
	duration := func(name, usage string, of func(*Config) *time.Duration) setting {
		return setting{name, usage, func(c *Config) string { return of(c).String() },
			func(c *Config, v string) (err error) {
				*of(c), err = time.ParseDuration(v)
				return err
			}}
	}
	return []setting{
		duration("shutdown-grace-period", "how long a shutdown of the machine waits for Pods to end; 0s for not at all",
			func(c *Config) *time.Duration { return &c.Node.Shutdown.Total }),
		duration("shutdown-grace-period-critical-pods", "the last part of that time, which is for Pods of the system",
			func(c *Config) *time.Duration { return &c.Node.Shutdown.Critical }),
		pairs("shutdown-grace-period-by-pod-priority", "instead of both: how long Pods of a priority and above have, as 0=30s,10000=20s,2000000000=10s", "=",
			func(c *Config) *map[string]string { return &c.Node.Shutdown.ByPriority }),
	}
}

func (s Shutdown) validate(bad func(name, format string, args ...any)) {
	switch {
	case s.Total < 0 || s.Total%time.Second != 0:
		bad("shutdown-grace-period", "%v: want whole seconds", s.Total)
	case s.Critical < 0 || s.Critical > s.Total || s.Critical%time.Second != 0:
		bad("shutdown-grace-period-critical-pods", "%v: want whole seconds, and no more than the shutdown-grace-period of %v", s.Critical, s.Total)
	case s.Total > 0 && len(s.ByPriority) > 0:
		bad("shutdown-grace-period-by-pod-priority", "cannot be set together with shutdown-grace-period")
	}
	if _, err := s.Periods(); err != nil {
		bad("shutdown-grace-period-by-pod-priority", "%v", err)
	}
}

// Periods are the values of ByPriority.
func (s Shutdown) Periods() (map[int32]time.Duration, error) {
	out := map[int32]time.Duration{}
	for k, v := range s.ByPriority {
		priority, err := strconv.ParseInt(k, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%q is no priority", k)
		}
		d, err := time.ParseDuration(v)
		if err != nil || d < 0 || d%time.Second != 0 {
			return nil, fmt.Errorf("%q: want whole seconds, as 30s", v)
		}
		out[int32(priority)] = d
	}
	return out, nil
}
