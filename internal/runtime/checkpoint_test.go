package runtime

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/sys"
)

// checkpointing is a bench whose OCI runtime is crun, but for the command checkpoint, which is a script, and whose criu runs everywhere.
type checkpointing struct {
	*bench
	script, asked, out string
}

func newCheckpointing(t *testing.T) *checkpointing {
	b := newBench(t)
	c := &checkpointing{bench: b, script: filepath.Join(b.cfg.Root, "checkpoint.sh"), asked: filepath.Join(b.cfg.Root, "asked"), out: t.TempDir()}
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "criu"), []byte("#!/bin/sh\necho Looks good.\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	b.withRuntime(`case "$*" in
"checkpoint --help") exit 0 ;;
*" checkpoint "*)
  echo "$@" >` + c.asked + `
  while [ $# -gt 1 ]; do case $1 in --image-path) images=$2 ;; --work-path) work=$2 ;; --log) log=$2 ;; esac; shift; done
  . ` + c.script + ` ;;
*) exec crun "$@" ;;
esac
`)
	return c
}

func (c *checkpointing) does(script string) {
	c.t.Helper()
	if err := os.WriteFile(c.script, []byte(script), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// counts holds that a container runs, does not stand still, and that no checkpoint of it is left.
func (c *checkpointing) counts(id string) {
	c.t.Helper()
	size := func() int64 {
		st, err := os.Stat(c.status(id).LogPath)
		if err != nil {
			c.t.Fatal(err)
		}
		return st.Size()
	}
	for was, began := size(), time.Now(); size() == was; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 5*time.Second {
			c.t.Fatal("the container stands still")
		}
	}
	if _, err := os.Stat(c.cfg.checkpointDir(id)); !errors.Is(err, os.ErrNotExist) {
		c.t.Errorf("the work folder: %v", err)
	}
	for _, dir := range c.cgroups.Folders(c.cfg.checkpointCgroup(id)) {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			c.t.Errorf("cgroup %s: %v", dir, err)
		}
	}
}

const (
	count      = "i=0; while :; do i=$((i+1)); echo $i; echo $i >/count; sleep 0.02; done"
	wroteAll   = "echo core >$images/core-1.img\necho pages >$images/pages-1.img\necho log >$work/dump.log\necho stats >$work/stats-dump\n"
	wroteSome  = "echo core >$images/core-1.img\necho '(00.1) fine' >$work/dump.log\necho '(00.2) Error (criu/tty.c:1): tty: broken' >>$work/dump.log\n"
	saysFailed = `echo '{"level":"error","msg":"criu failed: type NOTIFY errno 0\\nlog file: /x"}' >$log` + "\nexit 1\n"
)

// freezes is a script that leaves a container standing still, and a child that outlives it.
func (c *checkpointing) freezes(id string) string {
	cgroup := c.containers[id].rec.Cgroup
	file, frozen := filepath.Join(c.cgroups.Folder("freezer", cgroup), "freezer.state"), "FROZEN"
	if c.cgroups.Unified {
		file, frozen = filepath.Join(c.cgroups.Folder("", cgroup), "cgroup.freeze"), "1"
	}
	return fmt.Sprintf("setsid sleep 1000 &\necho %s >%s\n", frozen, file)
}

func TestCheckpoint(t *testing.T) {
	c := newCheckpointing(t)
	pod := c.pod(c.podConfig("counter"))
	id := c.start(pod, containerConfig("c", "sh", "-c", count))
	for name, tc := range map[string]struct {
		script  string
		timeout int64
		code    codes.Code
		says    string
	}{
		"success":             {wroteAll, 0, codes.OK, ""},
		"failure":             {wroteSome + saysFailed, 0, codes.Unknown, "criu failed: type NOTIFY errno 0; Error (criu/tty.c:1): tty: broken"},
		"failure, stuck":      {wroteSome + c.freezes(id) + saysFailed, 0, codes.Unknown, "criu failed"},
		"failure, no words":   {"exit 3", 0, codes.Unknown, "exit status 3"},
		"failure on its feet": {"echo no such option >&2; exit 2", 0, codes.Unknown, "no such option"},
		"nothing written":     {"exit 0", 0, codes.Unknown, "wrote no images"},
		"not a file":          {wroteAll + "ln -s /etc/shadow $images/x.img", 0, codes.Unknown, "x.img among the images is no regular file"},
		"timeout":             {wroteSome + "sleep 1000", 1, codes.DeadlineExceeded, "not done within 1s"},
		"timeout, stuck":      {wroteSome + c.freezes(id) + "sleep 1000", 1, codes.DeadlineExceeded, "not done within 1s"},
	} {
		t.Run(name, func(t *testing.T) {
			c.does(tc.script)
			location := filepath.Join(c.out, strings.ReplaceAll(name, " ", "-")+".tar")
			began := time.Now()
			err := c.CheckpointContainer(t.Context(), &runtimeapi.CheckpointContainerRequest{ContainerId: id, Location: location, Timeout: tc.timeout})
			if status.Code(err) != tc.code || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v, want %v with %q", err, tc.code, tc.says)
			}
			if took := time.Since(began); took > 8*time.Second {
				t.Errorf("took %v", took)
			}
			asked, _ := os.ReadFile(c.asked)
			want := fmt.Sprintf(" checkpoint --image-path %[1]s/checkpoint --work-path %[1]s --leave-running %[2]s\n", c.cfg.checkpointDir(id), id)
			if !strings.HasSuffix(string(asked), want) || !strings.HasPrefix(string(asked), "--root "+c.cfg.ociRoot()+" ") {
				t.Errorf("asked for %q, want …%q", asked, want)
			}
			c.counts(id)
			var left []string
			entries, _ := os.ReadDir(c.out)
			for _, e := range entries {
				left = append(left, e.Name())
			}
			wantLeft := []string(nil)
			if tc.code == codes.OK {
				wantLeft = []string{filepath.Base(location)}
			}
			if d := cmp.Diff(wantLeft, left); d != "" {
				t.Error(d)
			}
			os.Remove(location)
		})
	}
}

// TestCheckpointArchive looks into one.
func TestCheckpointArchive(t *testing.T) {
	c := newCheckpointing(t)
	pod := c.pod(c.podConfig("counter"))
	id := c.start(pod, containerConfig("c", "sh", "-c", "rm /plain; "+count))
	c.does(wroteAll)
	location := filepath.Join(c.out, "a.tar")
	if err := os.WriteFile(location, []byte("an older one"), 0o644); err != nil {
		t.Fatal(err)
	}
	for c.log(id) == "" {
		time.Sleep(10 * time.Millisecond)
	}
	if err := c.CheckpointContainer(t.Context(), &runtimeapi.CheckpointContainerRequest{ContainerId: id[:20], Location: location}); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(location)
	if err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	names, text := contents(t, location)
	want := []string{"config.dump", "spec.dump", "status.dump", "deleted.files", "rootfs-diff.tar", "dump.log", "stats-dump", "checkpoint/",
		"checkpoint/core-1.img", "checkpoint/pages-1.img"}
	if d := cmp.Diff(want, names); d != "" {
		t.Error(d)
	}
	var config, spec, state struct {
		ID, Name, RootfsImage, Runtime string
		Annotations                    map[string]string
		Metadata                       struct{ Name string }
	}
	var deleted []string
	for name, v := range map[string]any{"config.dump": &config, "spec.dump": &spec, "status.dump": &state, "deleted.files": &deleted} {
		if err := json.Unmarshal([]byte(text[name]), v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if config.ID != id || config.Name != "c" || config.RootfsImage != "busybox" || config.Runtime != "crun" {
		t.Errorf("config.dump: %+v", config)
	}
	if spec.Annotations["io.kubernetes.cri.sandbox-name"] != "counter" || state.Metadata.Name != "c" {
		t.Errorf("spec.dump and status.dump: %+v, %+v", spec, state)
	}
	if d := cmp.Diff([]string{"/plain"}, deleted); d != "" {
		t.Error(d)
	}
	inner := filepath.Join(c.out, "inner")
	if err := os.WriteFile(inner, []byte(text["rootfs-diff.tar"]), 0o600); err != nil {
		t.Fatal(err)
	}
	if names, _ := contents(t, inner); !slices.Contains(names, "count") {
		t.Errorf("rootfs-diff.tar: %v", names)
	}
}

func contents(t *testing.T, file string) (names []string, text map[string]string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text = map[string]string{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names, text
		}
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		text[h.Name] = string(raw)
	}
}

func TestCheckpointRefused(t *testing.T) {
	c := newCheckpointing(t)
	c.does(wroteAll)
	pod := c.pod(c.podConfig("refused"))
	running := c.start(pod, containerConfig("running", "sleep", "1000"))
	created := c.create(pod, containerConfig("created", "sleep", "1000"))
	ended := c.start(pod, containerConfig("ended", "true"))
	c.ended(ended)
	a := filepath.Join(c.out, "a.tar")
	for name, tc := range map[string]struct {
		id, location string
		timeout      int64
		want         codes.Code
	}{
		"none":               {"none", a, 0, codes.NotFound},
		"created":            {created, a, 0, codes.FailedPrecondition},
		"ended":              {ended, a, 0, codes.FailedPrecondition},
		"no location":        {running, "", 0, codes.InvalidArgument},
		"relative":           {running, "a.tar", 0, codes.InvalidArgument},
		"root":               {running, "/..", 0, codes.InvalidArgument},
		"a folder":           {running, c.out, 0, codes.InvalidArgument},
		"a device":           {running, "/dev/null", 0, codes.InvalidArgument},
		"in no folder":       {running, c.out + "/none/a.tar", 0, codes.InvalidArgument},
		"below a file":       {running, c.script + "/a.tar", 0, codes.InvalidArgument},
		"patience below 0":   {running, a, -1, codes.InvalidArgument},
		"what can be is not": {running, a, 0, codes.OK},
	} {
		err := c.CheckpointContainer(t.Context(), &runtimeapi.CheckpointContainerRequest{ContainerId: tc.id, Location: tc.location, Timeout: tc.timeout})
		if status.Code(err) != tc.want {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	t.Setenv("PATH", "/nothing")
	err := c.CheckpointContainer(t.Context(), &runtimeapi.CheckpointContainerRequest{ContainerId: running, Location: a})
	if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "install criu") {
		t.Errorf("without criu: %v", err)
	}
}

// TestCheckpointGivesWay holds that whoever ends a container, or calls a checkpoint off, does not wait for it.
func TestCheckpointGivesWay(t *testing.T) {
	c := newCheckpointing(t)
	pod := c.pod(c.podConfig("gives-way"))
	for name, tc := range map[string]struct {
		end  func(id string, cancel func()) error
		want codes.Code
	}{
		"stop":   {func(id string, _ func()) error { return c.StopContainer(t.Context(), id, 0) }, codes.Aborted},
		"remove": {func(id string, _ func()) error { return c.RemoveContainer(t.Context(), id) }, codes.Aborted},
		"cancel": {func(_ string, cancel func()) error { cancel(); return nil }, codes.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			id := c.start(pod, containerConfig(name, "sh", "-c", count))
			c.does(wroteSome + c.freezes(id) + "echo >" + c.out + "/begun\nsleep 1000")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error, 1)
			go func() {
				done <- c.CheckpointContainer(ctx, &runtimeapi.CheckpointContainerRequest{ContainerId: id, Location: filepath.Join(c.out, "a.tar")})
			}()
			for began := time.Now(); os.Remove(filepath.Join(c.out, "begun")) != nil; time.Sleep(5 * time.Millisecond) {
				if time.Since(began) > 10*time.Second {
					t.Fatal("the checkpoint does not begin")
				}
			}
			began := time.Now()
			if err := tc.end(id, cancel); err != nil {
				t.Error(err)
			}
			if err := <-done; status.Code(err) != tc.want {
				t.Errorf("%v, want %v", err, tc.want)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
			if name == "cancel" {
				c.counts(id)
			}
			if entries, _ := os.ReadDir(c.out); len(entries) > 0 {
				t.Errorf("left behind: %v", entries)
			}
			if pids, err := sys.CgroupProcs(c.cfg.checkpointCgroup(id)); err != nil || len(pids) > 0 {
				t.Errorf("processes %v, %v", pids, err)
			}
		})
	}
}
