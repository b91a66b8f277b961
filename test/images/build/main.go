// Command build makes the images that the tests and the demo run: busybox, debian and nginx, from Debian packages, as OCI
// archives that name themselves docker.io/library/<name>:latest.
//
// It needs apt and dpkg-deb and no network once the packages are in its cache; no package script runs. The same packages
// give the same bytes. nginx.tar also carries the tags 1.8 and 1.9: stand-ins, the same nginx with another label and one
// more file, so that a rolling update has somewhere to go. With -also network there is network.tar too: debian, with dig, iperf and socat.
package main

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// source is part of the stamp: another recipe, other images.
//
//go:embed *.go
var source embed.FS

func main() {
	out := flag.String("out", "build/images", "folder for the archives")
	cache := flag.String("cache", "build/cache/debs", "folder for downloaded packages")
	also := flag.String("also", "", "one more archive: network")
	flag.Parse()
	if *also != "" && *also != network {
		fmt.Fprintf(os.Stderr, "build images: there is no archive %q\n", *also)
		os.Exit(2)
	}
	if err := run(*out, *cache, *also); err != nil {
		fmt.Fprintln(os.Stderr, "build images:", err)
		os.Exit(1)
	}
}

func run(out, cache, also string) error {
	stamp, err := recipe()
	if err != nil {
		return err
	}
	if fresh(out, stamp, also) {
		return nil
	}
	for _, dir := range []string{out, cache} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	debs, err := download(cache, packages(also))
	if err != nil {
		return err
	}
	archives, err := images(debs, also)
	if err != nil {
		return err
	}
	for name, imgs := range archives {
		path := filepath.Join(out, name+".tar")
		if err := writeArchive(path+".new", imgs); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
		fmt.Println(path)
	}
	return os.WriteFile(filepath.Join(out, ".stamp"), []byte(stamp), 0o644)
}

// recipe is a digest of this program.
func recipe() (string, error) {
	entries, err := source.ReadDir(".")
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintln(h, runtime.GOARCH)
	for _, e := range entries {
		data, err := source.ReadFile(e.Name())
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n", e.Name(), len(data))
		h.Write(data)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func fresh(out, stamp, also string) bool {
	old, err := os.ReadFile(filepath.Join(out, ".stamp"))
	if err != nil || string(old) != stamp {
		return false
	}
	for _, name := range []string{"busybox", "debian", "nginx", also} {
		if name == "" {
			continue
		}
		if _, err := os.Stat(filepath.Join(out, name+".tar")); err != nil {
			return false
		}
	}
	return true
}
