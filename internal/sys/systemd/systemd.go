// Package systemd has systemd make the cgroups of Pods, on machines where it is to know them: what it does not know it may take apart or
// limit otherwise when it reads its configuration anew.
//
// It may import health and sys. Each function speaks with systemd over a connection of its own, as root even where no D-Bus daemon runs; cgroups are
// named by their paths, whose last part is the unit.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"

	"carob.dev/carob/internal/health"
	"carob.dev/carob/internal/sys"
)

// patience is how long systemd may take.
const patience = 30 * time.Second

// Check says why systemd cannot be asked, if it cannot. The error is a health.Problem.
func Check(ctx context.Context) error {
	err := with(ctx, func(_ context.Context, c *dbus.Conn) error {
		_, err := c.GetManagerProperty("Version")
		return err
	})
	if err == nil {
		return nil
	}
	return &health.Problem{Code: "CgroupDriver", Severity: health.Error, What: "systemd is to make the cgroups of Pods, and cannot be asked", Why: err.Error(),
		Fix: "start the machine with systemd as its first process, or have no systemd make them: --cgroup-driver cgroupfs; of another runtime, containerd: " +
			"SystemdCgroup = false, CRI-O: cgroup_manager = \"cgroupfs\" and conmon_cgroup = \"pod\""}
}

// Create makes the slice with this path, and those above it, and limits it. One that exists is kept and gets the limits.
func Create(ctx context.Context, slice string, r sys.Resources) error {
	c, err := sys.CgroupLayout()
	if err != nil {
		return err
	}
	limits := properties(r, c.Unified)
	err = with(ctx, func(ctx context.Context, c *dbus.Conn) error {
		all := append([]dbus.Property{dbus.PropDescription("Pods of Carob"), property("DefaultDependencies", false), property("MemoryAccounting", true),
			property("CPUAccounting", true), property("TasksAccounting", true), property("IOAccounting", true)}, limits...)
		done := make(chan string, 1)
		_, err := c.StartTransientUnitContext(ctx, path.Base(slice), "replace", all, done)
		if exists(err) {
			return c.SetUnitPropertiesContext(ctx, path.Base(slice), true, limits...)
		}
		return finished(ctx, done, err)
	})
	if err != nil {
		return fmt.Errorf("have systemd make %s: %w", path.Base(slice), err)
	}
	return sys.CgroupCreate(slice, r) // to the byte, with what systemd has no property for
}

// Limit sets limits of a unit's cgroup.
func Limit(ctx context.Context, unit string, r sys.Resources) error {
	c, err := sys.CgroupLayout()
	if err != nil {
		return err
	}
	limits := properties(r, c.Unified)
	err = with(ctx, func(ctx context.Context, c *dbus.Conn) error {
		return c.SetUnitPropertiesContext(ctx, path.Base(unit), true, limits...)
	})
	if err != nil {
		return fmt.Errorf("have systemd limit %s: %w", path.Base(unit), err)
	}
	return sys.CgroupUpdate(unit, r)
}

// Remove stops the slice with this path, which kills what is in it, and removes its cgroup. What does not exist is removed.
func Remove(ctx context.Context, slice string) error {
	err := with(ctx, func(ctx context.Context, c *dbus.Conn) error {
		done := make(chan string, 1)
		_, err := c.StopUnitContext(ctx, path.Base(slice), "replace", done)
		var e godbus.Error
		if errors.As(err, &e) && e.Name == "org.freedesktop.systemd1.NoSuchUnit" {
			return nil
		}
		return finished(ctx, done, err)
	})
	if err != nil {
		return fmt.Errorf("have systemd remove %s: %w", path.Base(slice), err)
	}
	return sys.CgroupRemove(slice)
}

// with runs f with a connection to systemd.
func with(ctx context.Context, f func(context.Context, *dbus.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := dbus.NewSystemdConnectionContext(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return f(ctx, c)
}

func exists(err error) bool {
	var e godbus.Error
	return errors.As(err, &e) && e.Name == "org.freedesktop.systemd1.UnitExists"
}

// finished waits for a job.
func finished(ctx context.Context, done <-chan string, err error) error {
	if err != nil {
		return err
	}
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("the job was %s", result)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func property(name string, value any) dbus.Property {
	return dbus.Property{Name: name, Value: godbus.MakeVariant(value)}
}

// properties are r as systemd names it: see systemd.resource-control(5). What systemd has no property for is left out.
func properties(r sys.Resources, unified bool) []dbus.Property {
	var p []dbus.Property
	limit := func(name string, v int64) {
		switch {
		case v < 0:
			p = append(p, property(name, uint64(math.MaxUint64)))
		case v > 0:
			p = append(p, property(name, uint64(v)))
		}
	}
	if r.CPUShares != 0 {
		if unified {
			p = append(p, property("CPUWeight", sys.CPUWeight(r.CPUShares)))
		} else {
			p = append(p, property("CPUShares", min(max(r.CPUShares, 2), 262144)))
		}
	}
	if r.CPUQuota != 0 {
		period := r.CPUPeriod
		if period == 0 {
			period = 100000
		}
		if r.CPUQuota > 0 { // microseconds in each second, in whole percents
			perSecond := (uint64(r.CPUQuota)*1000000/period + 9999) / 10000 * 10000
			p = append(p, property("CPUQuotaPeriodUSec", period), property("CPUQuotaPerSecUSec", perSecond))
		} else {
			p = append(p, property("CPUQuotaPerSecUSec", uint64(math.MaxUint64)))
		}
	}
	if unified {
		limit("MemoryMax", r.Memory)
	} else {
		limit("MemoryLimit", r.Memory)
	}
	limit("TasksMax", r.PIDs)
	return p
}
