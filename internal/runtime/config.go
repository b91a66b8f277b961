package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"k8s.io/utils/clock"

	"carob.dev/carob/internal/network"
	"carob.dev/carob/internal/runtime/image"
)

// Images finds the image of a container.
type Images interface {
	// Resolve returns the image that an ID or a reference names; it must be present.
	Resolve(ctx context.Context, ref string) (*image.Image, error)
}

// Network connects sandboxes.
type Network interface {
	Attach(ctx context.Context, req network.Request) (network.Result, error)
	Detach(ctx context.Context, sandboxID string) error
	// Reconcile takes back what belongs to none of the sandboxes; called once, when the runtime knows which live.
	Reconcile(ctx context.Context, liveSandboxIDs []string) error
}

// Config is what a Runtime needs.
type Config struct {
	// Root is the absolute folder for what outlives a reboot, RunDir the one for sockets and facts of this boot.
	Root, RunDir string
	// CgroupRoot is the name of the top cgroup, such as carob.
	CgroupRoot string
	// Systemd says that systemd makes containers' cgroups: cgroup_parent then names a slice.
	Systemd bool
	Images  Images
	Network Network
	// OCIRuntimes maps a handler to a program with the OCI runtime command line; "" is the default. Names without a slash are looked
	// up in PATH.
	OCIRuntimes map[string]string
	// WarmSandboxes is how many sandboxes are kept ready for Pods to come, at most; each costs what a Pod without containers does. 0 is none.
	WarmSandboxes int
	// SeccompDir holds Localhost profiles; Root/seccomp if empty.
	SeccompDir string
	// CDISpecDirs are the folders of CDI specifications; the later ones win. None: devices cannot be named.
	CDISpecDirs []string
	Log         *slog.Logger
	Clock       clock.Clock
}

func (c *Config) check() error {
	switch {
	case !filepath.IsAbs(c.Root) || !filepath.IsAbs(c.RunDir):
		return errors.New("runtime: Root and RunDir must be absolute")
	case c.CgroupRoot == "" || c.Images == nil || c.Network == nil:
		return errors.New("runtime: CgroupRoot, Images and Network are needed")
	case c.WarmSandboxes < 0:
		return errors.New("runtime: WarmSandboxes must not be negative")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.SeccompDir == "" {
		c.SeccompDir = filepath.Join(c.Root, "seccomp")
	}
	if len(c.OCIRuntimes) == 0 {
		c.OCIRuntimes = map[string]string{"": "crun"}
	}
	return nil
}

func (c *Config) sandboxDir(id string) string   { return filepath.Join(c.Root, "sandboxes", id) }
func (c *Config) containerDir(id string) string { return filepath.Join(c.Root, "containers", id) }
func (c *Config) bundleDir(id string) string    { return filepath.Join(c.RunDir, "bundles", id) }
func (c *Config) reachDir(id string) string     { return filepath.Join(c.RunDir, "reach", id) }
func (c *Config) ociRoot() string               { return filepath.Join(c.RunDir, "oci") }

// short is the part of a sandbox's ID that names its socket, state folder and cgroup: kernel names have little room.
func short(id string) string { return id[:12] }

func (c *Config) shimDir(id string) string    { return filepath.Join(c.RunDir, "shims", short(id)) }
func (c *Config) shimSocket(id string) string { return filepath.Join(c.RunDir, "s", short(id)) }
func (c *Config) shimCgroup(id string) string { return "/" + c.CgroupRoot + "/shims/" + short(id) }

func (c *Config) makeFolders() error {
	for _, dir := range []string{filepath.Join(c.Root, "sandboxes"), filepath.Join(c.Root, "containers"), filepath.Join(c.RunDir, "bundles"),
		filepath.Join(c.RunDir, "reach"), c.ociRoot(), filepath.Join(c.RunDir, "shims"), filepath.Join(c.RunDir, "s")} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return fmt.Errorf("runtime: %w", err)
		}
	}
	return nil
}
