package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"carob.dev/carob/internal/network"
	"carob.dev/carob/internal/sys"
)

// end removes all Pods, closes everything, and removes what a Carob has when it has no Pods: empty folders and cgroups, the rules. What is not
// empty stays where it is, for those who look for leaks. Links and leases are looked at here, for taking the network away takes them too.
func (n *node) end(ctx context.Context) error {
	list, err := n.ListPodSandbox(ctx, nil)
	if err != nil {
		return err
	}
	for _, sb := range list {
		if err := n.RemovePodSandbox(ctx, sb.Id); err != nil {
			return err
		}
	}
	if err := n.Runtime.Close(ctx); err != nil {
		return err
	}
	if err := wait(func() error { return n.noAddresses() }); err != nil {
		return err
	}
	if err := errors.Join(n.network.Close(), n.images.Close(ctx), network.Uninstall(ctx, networkConfig(n.cfg, slog.New(slog.DiscardHandler)))); err != nil {
		return err
	}
	for _, dir := range []string{"sandboxes", "containers"} {
		if err := os.Remove(n.cfg.Path(dir)); err != nil {
			return fmt.Errorf("left behind: %w", err)
		}
	}
	os.RemoveAll(filepath.Join(n.cfg.RunDir(), "oci", ".cache")) // crun's, of seccomp programs
	folders, err := os.ReadDir(n.cfg.RunDir())
	if err != nil {
		return err
	}
	for _, f := range folders {
		if err := os.Remove(filepath.Join(n.cfg.RunDir(), f.Name())); err != nil {
			return fmt.Errorf("left behind: %w", err)
		}
	}
	if err := os.Remove(n.cfg.RunDir()); err != nil {
		return fmt.Errorf("left behind: %w", err)
	}
	return n.removeEmptyCgroups()
}

// noAddresses holds that all leases and links are gone.
func (n *node) noAddresses() error {
	leases, err := os.ReadDir(n.cfg.Path("network", "leases"))
	if err != nil || len(leases) > 0 {
		return fmt.Errorf("left behind: leases %v, %v", leases, err)
	}
	links, err := os.ReadDir("/proc/sys/net/ipv4/conf")
	if err != nil {
		return err
	}
	for _, l := range links {
		if !slices.Contains([]string{"all", "default", "lo"}, l.Name()) {
			return fmt.Errorf("left behind: link %s", l.Name())
		}
	}
	return nil
}

// removeEmptyCgroups takes away the levels that stay when Pods go.
func (n *node) removeEmptyCgroups() error {
	layout, err := sys.CgroupLayout()
	if err != nil {
		return err
	}
	top := "/" + n.cfg.CgroupRoot()
	paths := []string{top + "/shims", top + "/kubepods", top}
	for _, dir := range layout.Folders(top + "/kubepods") {
		pods, _ := os.ReadDir(dir)
		for _, p := range pods {
			if p.IsDir() {
				paths = slices.Insert(paths, 0, top+"/kubepods/"+p.Name())
			}
		}
	}
	for _, path := range paths {
		folders := layout.Folders(path)
		if layout.Hybrid {
			folders = append(folders, filepath.Join("/sys/fs/cgroup/unified", path))
		}
		for _, dir := range folders {
			if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("left behind: %w", err)
			}
		}
	}
	return nil
}
