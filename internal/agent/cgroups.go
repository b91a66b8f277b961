package agent

import (
	"context"

	"carob.dev/carob/internal/sys"
	"carob.dev/carob/internal/sys/systemd"
)

// Cgroups makes and removes the cgroups of Pods, which CgroupNames names.
type Cgroups interface {
	Create(path string, r sys.Resources) error
	Remove(path string) error
	// MemoryUsed is the memory in use, in bytes.
	MemoryUsed(path string) (uint64, error)
	// SwapControl says whether swap can be limited, seen at a cgroup that exists.
	SwapControl(path string) (bool, error)
}

// kernelCgroups are made by their folders.
type kernelCgroups struct{}

func (kernelCgroups) Create(path string, r sys.Resources) error { return sys.CgroupCreate(path, r) }
func (kernelCgroups) Remove(path string) error                  { return sys.CgroupRemove(path) }
func (kernelCgroups) MemoryUsed(path string) (uint64, error) {
	u, err := sys.CgroupStats(path)
	return u.Memory, err
}

func (kernelCgroups) SwapControl(path string) (bool, error) {
	c, err := sys.CgroupLayout()
	return err == nil && c.SwapControl(path), err
}

// systemdCgroups are systemd's slices.
type systemdCgroups struct{ kernelCgroups }

func (systemdCgroups) Create(path string, r sys.Resources) error {
	return systemd.Create(context.Background(), path, r)
}
func (systemdCgroups) Remove(path string) error { return systemd.Remove(context.Background(), path) }
