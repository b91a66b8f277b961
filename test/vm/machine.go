package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// machine is what qemu needs.
type machine struct {
	kernel, initrd string
	// root is the disk with Debian, never written to; load the one with what is tried.
	root, load string
}

// userland are the packages of the guest, beside the essential ones. Nothing of the project is in them.
var userland = []string{"systemd", "systemd-sysv", "dbus", "kmod", "crun", "iproute2", "nftables", "procps", "psmisc", "curl", "util-linux", "busybox-static", "apparmor", "runc", "criu", "iptables", "nfs-kernel-server"}

const (
	suite         = "bookworm"
	kernelPackage = "linux-image-cloud-amd64"
)

// makeMachine makes what is not there yet. The Debian and its kernel are kept between runs; the disk with the program under test is not.
func makeMachine(ctx context.Context, o options) (machine, error) {
	m := machine{
		kernel: filepath.Join(o.dir, "vmlinuz"), initrd: filepath.Join(o.dir, "initrd"),
		root: filepath.Join(o.dir, "root.ext4"), load: filepath.Join(o.dir, "load.ext4"),
	}
	description := suite + " " + strings.Join(userland, " ") + " " + strings.Join(bootModules, " ") + "\n" + stage1
	if !made(o.dir, "debian", description) {
		began := time.Now()
		fmt.Println("making a Debian (once, 1 to 3 minutes)")
		if err := makeDebian(ctx, o, m); err != nil {
			return m, err
		}
		if err := markMade(o.dir, "debian", description); err != nil {
			return m, err
		}
		fmt.Printf("made in %.0f s\n", time.Since(began).Seconds())
	}
	return m, makeLoad(ctx, o, m.load)
}

func makeDebian(ctx context.Context, o options, m machine) error {
	tree := filepath.Join(o.dir, "root")
	for _, old := range []string{tree, m.root} {
		if err := os.RemoveAll(old); err != nil {
			return err
		}
	}
	err := command(ctx, "mmdebstrap", "--quiet", "--variant=minbase", "--include="+strings.Join(userland, ","), "--format=directory", suite, tree)
	if err != nil {
		return err
	}
	defer os.RemoveAll(tree)
	release, err := addKernel(ctx, o.dir, tree, m.kernel)
	if err != nil {
		return err
	}
	if err := command(ctx, "chroot", tree, "depmod", release); err != nil {
		return err
	}
	if err := makeInitrd(tree, release, m.initrd); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(tree, "load"), 0o755); err != nil {
		return err
	}
	return makeDisk(ctx, tree, m.root, "4G")
}

// addKernel unpacks the kernel's package without its scripts, which would make a large initrd, and returns the kernel's release.
func addKernel(ctx context.Context, dir, tree, kernel string) (string, error) {
	debs := filepath.Join(dir, "debs")
	if err := os.RemoveAll(debs); err != nil {
		return "", err
	}
	// The package by that name depends on the one of the current release.
	script := fmt.Sprintf(`set -e; mkdir -p %[1]s; cd %[1]s; p=$(apt-cache depends %[2]s | sed -n 's/^ *Depends: //p' | grep ^linux-image- | head -n 1)
apt-get -qq -o APT::Sandbox::User=root download "$p"; dpkg-deb -x "$p"_*.deb .`, debs, kernelPackage)
	if err := command(ctx, "sh", "-c", script); err != nil {
		if err := command(ctx, "apt-get", "update", "-qq"); err != nil {
			return "", err
		}
		if err := command(ctx, "sh", "-c", script); err != nil {
			return "", err
		}
	}
	defer os.RemoveAll(debs)
	found, err := filepath.Glob(filepath.Join(debs, "boot/vmlinuz-*"))
	if err != nil || len(found) != 1 {
		return "", errors.Join(err, fmt.Errorf("the kernel's package holds %d kernels", len(found)))
	}
	release := strings.TrimPrefix(filepath.Base(found[0]), "vmlinuz-")
	if err := os.Rename(found[0], kernel); err != nil {
		return "", err
	}
	return release, command(ctx, "cp", "-a", filepath.Join(debs, "lib/modules"), filepath.Join(tree, "usr/lib/"))
}

// makeLoad makes the disk with what is tried: the program, archives, manifests, the guest's scripts.
func makeLoad(ctx context.Context, o options, file string) error {
	tree := filepath.Join(o.dir, "load")
	if err := os.RemoveAll(tree); err != nil {
		return err
	}
	defer os.RemoveAll(tree)
	if err := os.MkdirAll(filepath.Join(tree, "images"), 0o755); err != nil {
		return err
	}
	archives, err := filepath.Glob(filepath.Join(o.images, "*.tar"))
	if err != nil || len(archives) == 0 {
		return errors.Join(err, fmt.Errorf("%s has no archives (make test-images)", o.images))
	}
	slices.Sort(archives)
	copies := [][]string{
		{"cp", o.carob, filepath.Join(tree, "carob")},
		append(append([]string{"cp"}, archives...), filepath.Join(tree, "images")),
		{"cp", "-r", o.examples, filepath.Join(tree, "examples")},
		{"cp", o.unit, filepath.Join(tree, "carob.service")},
		{"cp", "-r", o.guest, filepath.Join(tree, "guest")},
	}
	if slices.Contains(o.modes, "critest") {
		for _, name := range []string{"critest", "critest-run", "critest-tools"} {
			copies = append(copies, []string{"cp", "-r", filepath.Join(o.critest, name), tree})
		}
		copies = append(copies, []string{"cp", o.list, filepath.Join(tree, "critest.txt")})
	}
	if slices.Contains(o.modes, "conformance") {
		copies = append(copies, conformance(o, tree)...)
		if err := os.WriteFile(filepath.Join(tree, "focus"), []byte(o.focus), 0o644); err != nil {
			return err
		}
	}
	for _, c := range copies {
		if err := command(ctx, c[0], c[1:]...); err != nil {
			return err
		}
	}
	return makeDisk(ctx, tree, file, "1G")
}

// conformance copies what test/conformance needs, laid out as in build.
func conformance(o options, tree string) [][]string {
	return [][]string{
		{"cp", "-r", o.judge, filepath.Join(tree, "conformance")},
		{"cp", filepath.Join(o.judge, "../kubectl"), filepath.Join(o.judge, "../busybox"), tree},
		{"cp", o.specs, filepath.Join(tree, "conformance.txt")},
		{"mkdir", filepath.Join(tree, "source")},
		{"cp", "-r", filepath.Join(o.source, "agnhost"), filepath.Join(o.source, "nautilus"), filepath.Join(o.source, "kitten"), filepath.Join(tree, "source")},
	}
}

// makeDisk makes a sparse ext4 image of a folder.
func makeDisk(ctx context.Context, tree, file, size string) error {
	if err := os.RemoveAll(file); err != nil {
		return err
	}
	return command(ctx, "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-E", "root_owner=0:0", "-d", tree, file, size)
}
