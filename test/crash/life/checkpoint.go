package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CRIU does not run on every kernel. These play the parts of an OCI runtime that has it, slowly enough to be found at work, and of itself.
const (
	fakeCrun = `#!/bin/sh
case "$*" in
"checkpoint --help") exit 0 ;;
*" checkpoint "*)
  while [ $# -gt 1 ]; do case $1 in --image-path) images=$2 ;; --work-path) work=$2 ;; esac; shift; done
  echo pages >"$images/pages-1.img" && sleep 0.05 && echo log >"$work/dump.log" ;;
*) exec %s "$@" ;;
esac
`
	fakeCRIU = "#!/bin/sh\necho Looks good.\n"
)

// pretend has the runtime use the fakes.
func (n *node) pretend() error {
	crun, err := exec.LookPath("crun")
	if err != nil {
		return err
	}
	dir := n.cfg.Path("fakes")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{"crun": fmt.Sprintf(fakeCrun, crun), "criu": fakeCRIU} {
		file := filepath.Join(dir, name)
		if _, err := os.Stat(file); err == nil { // it may be running
			continue
		}
		if err := os.WriteFile(file+".new", []byte(text), 0o755); err != nil {
			return err
		}
		if err := os.Rename(file+".new", file); err != nil {
			return err
		}
	}
	n.cfg.OCIRuntimes = map[string]string{"": filepath.Join(dir, "crun")}
	return os.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// checkpoint makes one of the long container. Whatever an earlier try left, there is one archive then and nothing else.
func (l *life) checkpoint(ctx context.Context) error {
	if !l.checkpoints {
		return nil
	}
	c, err := l.container(ctx, "long")
	if err != nil {
		return err
	}
	if c == nil {
		return errors.New("the long container is lost")
	}
	dir := filepath.Join(l.dir(), "checkpoints")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	file := filepath.Join(dir, "c.tar")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != filepath.Base(file) {
			return fmt.Errorf("left behind: %s", e.Name())
		}
	}
	if _, err := os.Stat(filepath.Join(l.cfg.Path("containers"), c.Id, "checkpoint")); err == nil {
		return errors.New("left behind: the work folder of a checkpoint")
	}
	if err := l.CheckpointContainer(ctx, &runtimeapi.CheckpointContainerRequest{ContainerId: c.Id, Location: file, Timeout: int64(patience.Seconds())}); err != nil {
		return err
	}
	if _, err := os.Stat(file); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}
