package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// peers is the folder of containerd and ctr, which `make containerd` builds.
const peers = "build/containerd"

// importTimes is how long an image of one layer of 200 MB takes from its archive until it is unpacked and on disk, and, where it has been built,
// how long containerd takes for the same, which then is the budget.
func importTimes(ctx context.Context, b *bench) ([]Result, error) {
	c, err := b.carob(ctx)
	if err != nil {
		return nil, err
	}
	peer, err := startContainerd(ctx, filepath.Join(b.dir, "containerd"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	defer peer.stop()
	var results []Result
	for _, files := range []int{4, 4000, 25000} {
		what := fmt.Sprintf("import of an image of 200 MB in %d files", files)
		archive := filepath.Join(b.dir, "image.tar")
		if err := writeImage(archive, files, 200<<20/files); err != nil {
			return nil, err
		}
		var ours, theirs []time.Duration
		for range min(b.runs, 5) {
			d, err := timed(c.root, func() error { return c.do(ctx, "image", "import", "--root", c.root, archive) })
			if err != nil {
				return nil, err
			}
			ours = append(ours, d)
			if err := c.do(ctx, "image", "rm", "--root", c.root, imageName); err != nil {
				return nil, err
			}
			if peer == nil {
				continue
			}
			if d, err = timed(peer.dir, func() error { return peer.ctr(ctx, "images", "import", "--local=true", archive) }); err != nil {
				return nil, err
			}
			theirs = append(theirs, d)
			if err := peer.ctr(ctx, "images", "rm", "--sync", imageName); err != nil {
				return nil, err
			}
		}
		result := millis(what, 0, ours)
		if peer != nil {
			other := millis("  containerd", 0, theirs)
			result.Budget = other.Median
			results = append(results, result, other)
		} else {
			results = append(results, result)
		}
	}
	return results, os.Remove(filepath.Join(b.dir, "image.tar"))
}

// timed is how long f takes, and what it wrote to the disk of dir takes to get there. Before, all is on disk.
func timed(dir string, f func() error) (time.Duration, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	time.Sleep(500 * time.Millisecond) // deleting what was there goes on in the background
	if err := unix.Syncfs(fd); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := f(); err != nil {
		return 0, err
	}
	err = unix.Syncfs(fd)
	return time.Since(began), err
}

const imageName = "docker.io/library/bench-import:1"

// writeImage writes an archive as `docker save` does, of one layer whose files are half random, half not.
func writeImage(path string, files, size int) error {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	random := rand.NewChaCha8([32]byte{byte(files)})
	for i := range 50 {
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("usr/d%d/", i), Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			return err
		}
	}
	data := bytes.Repeat([]byte("the same words again and again.."), size/32+1)[:size]
	for i := range files {
		if _, err := io.ReadFull(random, data[:size/2]); err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("usr/d%d/f%d", i%50, i), Size: int64(size), Mode: 0o644}); err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{"Cmd": []string{"/x"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer.Bytes()))}}})
	if err != nil {
		return err
	}
	manifest := fmt.Sprintf(`[{"Config":"config.json","RepoTags":[%q],"Layers":["layer.tar"]}]`, imageName)
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	out := tar.NewWriter(f)
	for _, part := range []struct {
		name string
		data []byte
	}{{"manifest.json", []byte(manifest)}, {"config.json", config}, {"layer.tar", layer.Bytes()}} {
		if err := out.WriteHeader(&tar.Header{Name: part.name, Size: int64(len(part.data)), Mode: 0o644}); err != nil {
			return err
		}
		if _, err := out.Write(part.data); err != nil {
			return err
		}
	}
	return out.Close()
}

// containerd is one that runs.
type containerd struct {
	dir string
	cmd *exec.Cmd
}

// startContainerd starts one, with its state below dir. The error is os.ErrNotExist if none was built.
func startContainerd(ctx context.Context, dir string) (*containerd, error) {
	program := filepath.Join(peers, "containerd")
	if _, err := os.Stat(program); err != nil {
		fmt.Fprintln(os.Stderr, "  containerd is not measured: make containerd builds it")
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	p := &containerd{dir: dir}
	p.cmd = exec.CommandContext(ctx, program, "--root", dir+"/root", "--state", dir+"/state", "--address", dir+"/sock")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	var err error
	for range 100 {
		if err = p.ctr(ctx, "version"); err == nil {
			return p, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	p.stop()
	return nil, err
}

func (p *containerd) ctr(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, filepath.Join(peers, "ctr"), append([]string{"--address", p.dir + "/sock"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ctr %v: %w\n%s", args, err, out)
	}
	return nil
}

func (p *containerd) stop() {
	if p == nil {
		return
	}
	p.cmd.Process.Kill()
	p.cmd.Wait()
	os.RemoveAll(p.dir)
}
