// Package remove takes a Carob off a machine: whatever it left, also when its daemon was killed. It finds things by the names that all of
// them derive from the root, and needs no state to be intact.
//
// It may import sys, network and runtime/remote.
package remove

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/agent/criconf"
	"carob.dev/carob/internal/config"
	"carob.dev/carob/internal/health"
	"carob.dev/carob/internal/network"
	"carob.dev/carob/internal/runtime/remote"
	"carob.dev/carob/internal/sys"
	"carob.dev/carob/internal/sys/systemd"
)

// All kills what still runs in the Carob's cgroups, unmounts what is below its folders, and removes its network, cgroups and files. The
// daemon must have ended.
func All(ctx context.Context, cfg config.Config) error {
	if err := ours(cfg); err != nil {
		return err
	}
	if err := removeElsewhere(ctx, cfg); err != nil {
		return err
	}
	err := errors.Join(
		eachTop(cfg, sys.CgroupKillAll),
		unmountBelow(cfg.RunDir()), unmountBelow(cfg.Root),
		network.Uninstall(ctx, network.Config{
			NFTable: cfg.NFTable(), Dir: cfg.Path("network"), Log: slog.New(slog.DiscardHandler),
			NodeCIDRs: []netip.Prefix{netip.PrefixFrom(cfg.PodCIDR.Addr(), cfg.NodeCIDRMaskSize)}, PodCIDRs: []netip.Prefix{cfg.PodCIDR},
		}),
		eachTop(cfg, func(top string) error { return removeTop(ctx, top) }),
	)
	if err != nil {
		return err
	}
	if to, err := os.Readlink(cfg.Node.KubeletDir); err == nil && to == cfg.Root {
		if err := os.Remove(cfg.Node.KubeletDir); err != nil {
			return err
		}
	}
	// The kubeconfig is ours only if it holds what the root's copy holds.
	own, ownErr := os.ReadFile(cfg.Path("admin.kubeconfig"))
	if there, err := os.ReadFile(cfg.Kubeconfig); err == nil && ownErr == nil && string(there) == string(own) {
		if err := os.Remove(cfg.Kubeconfig); err != nil {
			return err
		}
		os.Remove(filepath.Dir(cfg.Kubeconfig)) // only if nothing else is there
	}
	return errors.Join(os.RemoveAll(cfg.RunDir()), os.RemoveAll(cfg.Root))
}

// eachTop calls f with the cgroups below which this Carob has all of its own that are there.
func eachTop(cfg config.Config, f func(path string) error) error {
	var errs []error
	for _, top := range (criconf.Cgroups{Root: cfg.CgroupRoot()}).Tops() {
		errs = append(errs, f(top))
	}
	return errors.Join(errs...)
}

func removeTop(ctx context.Context, top string) error {
	if layout, err := sys.CgroupLayout(); err == nil && strings.HasSuffix(top, sys.SliceEnd) {
		if _, err := os.Stat(layout.Folder("memory", top)); err == nil {
			return systemd.Remove(ctx, top)
		}
	}
	return sys.CgroupRemove(top)
}

// removeElsewhere removes the Pods from the runtime that was used instead of Carob's own.
func removeElsewhere(ctx context.Context, cfg config.Config) error {
	if cfg.RuntimeEndpoint == "" {
		return nil
	}
	client, err := remote.Dial(ctx, remote.Config{Endpoint: cfg.RuntimeEndpoint, ImageEndpoint: cfg.ImageEndpoint, Owner: cfg.CgroupRoot(),
		Log: slog.New(slog.DiscardHandler)})
	if p, ok := health.As(err); ok {
		p.Fix += "; or leave its Pods to it: CAROB_RUNTIME_ENDPOINT= carob uninstall --root " + cfg.Root
	}
	if err != nil {
		return err
	}
	return errors.Join(client.Runtime.RemoveAll(ctx), client.Close())
}

// ours refuses to remove a folder that holds something but no Carob, as after a slip in --root.
func ours(cfg config.Config) error {
	entries, err := os.ReadDir(cfg.Root)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	for _, mark := range []string{"store", "pki", "carob.log", "images/layers"} {
		if _, err := os.Stat(cfg.Path(mark)); err == nil {
			return nil
		}
	}
	return &health.Problem{Code: "NotACarob", Severity: health.Error, What: cfg.Root + " is not a carob's folder", Why: "it holds neither store, pki, images/layers nor carob.log", Fix: "check --root"}
}

// unmountBelow takes away every mount at dir or below it, the deepest first. Files under a mount are never removed with it.
func unmountBelow(dir string) error {
	points, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	slices.SortFunc(points, func(a, b string) int { return len(b) - len(a) })
	var errs []error
	for _, p := range points {
		if err := detach(p); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", p, err))
		}
	}
	if len(points) > 0 && len(errs) == 0 {
		left, err := mountsBelow(dir)
		if len(left) > 0 {
			err = errors.Join(err, fmt.Errorf("still mounted: %s", strings.Join(left, ", ")))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// mountsBelow are the mount points at dir and below it.
func mountsBelow(dir string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var points []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 4 {
			if p := unescape(fields[4]); p == dir || strings.HasPrefix(p, dir+"/") {
				points = append(points, p)
			}
		}
	}
	return points, lines.Err()
}

// detachPatience is how long the end of a mount is waited for.
const detachPatience = 5 * time.Second

// detach takes a mount out of sight. Where its server is away the kernel goes on beside it for minutes, for which nobody waits.
func detach(point string) error {
	done := make(chan error, 1)
	go func() { done <- unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) }()
	select {
	case err := <-done:
		return err
	case <-time.After(detachPatience):
		return nil
	}
}

// unescape undoes the kernel's octal escapes of blanks.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
