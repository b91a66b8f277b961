package app

import (
	"context"

	"carob.dev/carob/internal/agent/eviction"
	"carob.dev/carob/internal/agent/node"
	"carob.dev/carob/internal/agent/pressure"
	"carob.dev/carob/internal/agent/shutdown"
	"carob.dev/carob/internal/config"
	"carob.dev/carob/internal/health"
	"carob.dev/carob/internal/sys/systemd"
)

// enough, in bytes, is what is to be free on a disk at most where nobody has said otherwise: a tenth of a large one is more than Pods need.
const enough = 10 << 30

// pressurePolicy is when the node ends Pods for want of something.
func pressurePolicy(c config.Eviction) (pressure.Policy, error) {
	thresholds, err := eviction.Config{Hard: c.Hard, Soft: c.Soft, SoftGrace: c.SoftGrace, MinReclaim: c.MinReclaim}.Thresholds()
	if err != nil {
		return pressure.Policy{}, &health.Problem{Code: "BadSetting", Severity: health.Error, What: "the settings of eviction are not understood", Why: err.Error(),
			Fix: "correct them; carob server --help has examples"}
	}
	if c.Implied() {
		for i, t := range thresholds {
			if t.Signal == eviction.NodeFsAvailable || t.Signal == eviction.ImageFsAvailable {
				thresholds[i].Value.Most = enough
			}
		}
	}
	return pressure.Policy{Thresholds: thresholds, Implied: c.Implied(), Transition: c.Transition, MaxGrace: c.MaxPodGrace}, nil
}

// shutdownPeriods is how long Pods have when the machine is shut down. What is wrong with the settings was said when they were read.
func shutdownPeriods(c config.Shutdown) []shutdown.Period {
	by, err := c.Periods()
	if err != nil || len(by) == 0 {
		return shutdown.Periods(c.Total, c.Critical)
	}
	var list []shutdown.Period
	for priority, grace := range by {
		list = append(list, shutdown.Period{Priority: priority, Grace: grace})
	}
	return list
}

// openLogin is the machine's session manager.
func openLogin(ctx context.Context) (shutdown.Manager, error) { return systemd.OpenLogin(ctx) }

// reserved is what is kept from Pods by settings.
func reserved(c config.Node) (r node.Reserved, err error) {
	for name, n := range map[string]*int64{"cpu": &r.MilliCPU, "memory": &r.Memory, "ephemeral-storage": &r.Storage, "pid": &r.PIDs} {
		if *n, err = c.Reserved(name); err != nil {
			return r, err
		}
	}
	return r, nil
}
