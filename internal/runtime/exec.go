package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	utilexec "k8s.io/utils/exec"

	"carob.dev/carob/internal/runtime/shim"
	"carob.dev/carob/internal/runtime/shim/wire"
)

// waiters are those who wait for the end of an exec or of an attached session, by its ID.
type waiters struct {
	mu sync.Mutex
	by map[string]chan wire.Frame
}

func (w *waiters) add(id string) chan wire.Frame {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.by == nil {
		w.by = map[string]chan wire.Frame{}
	}
	ch := make(chan wire.Frame, 1)
	w.by[id] = ch
	return ch
}

func (w *waiters) remove(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.by, id)
}

func (w *waiters) tell(id string, f wire.Frame) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ch := w.by[id]; ch != nil {
		ch <- f
		delete(w.by, id)
	}
}

func (r *Runtime) execEnded(f wire.Frame) { r.waiting.tell(f.ID, f) }
func (r *Runtime) sessionEnded(id string) { r.waiting.tell(id, wire.Frame{Op: wire.OpDetach, ID: id}) }
func execID() string                      { return newID()[:16] }

// lastOutput is how long output is waited for after a command has ended.
const lastOutput = time.Second

// running returns a running container with its shim.
func (r *Runtime) running(id string) (*container, *shim.Client, error) {
	c, err := r.findContainer(id)
	if err != nil {
		return nil, nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.rec.State != runtimeapi.ContainerState_CONTAINER_RUNNING || c.sb.client == nil {
		return nil, nil, status.Errorf(codes.FailedPrecondition, "container %q is not running", id)
	}
	return c, c.sb.client, nil
}

// process is a command that was started in a container.
type process struct {
	r      *Runtime
	client *shim.Client
	id     string
	ended  chan wire.Frame
	file   string
}

// startProcess starts cmd in a container, with three descriptors as its stdio, or with a terminal that is sent to the socket console.
func (r *Runtime) startProcess(ctx context.Context, containerID string, cmd []string, stdio []int, console string) (*process, error) {
	if len(cmd) == 0 || cmd[0] == "" {
		return nil, status.Error(codes.InvalidArgument, "no command")
	}
	c, client, err := r.running(containerID)
	if err != nil {
		return nil, err
	}
	bin, hide, err := r.binary(c.sb.rec.Handler)
	if err != nil {
		return nil, err
	}
	p := &process{r: r, client: client, id: execID()}
	p.file = filepath.Join(r.cfg.shimDir(c.sb.rec.ID), "p-"+p.id+".json")
	if err := r.writeProcess(c, cmd, console != "", p.file); err != nil {
		return nil, err
	}
	defer os.Remove(p.file)
	givePipes(c, stdio)
	p.ended = r.waiting.add(p.id)
	_, err = client.Ask(context.WithoutCancel(ctx), wire.Frame{Op: wire.OpExec, ID: p.id, Of: c.rec.ID, Bin: bin, Root: r.cfg.ociRoot(), Process: p.file,
		Console: console, TTY: flag(console != ""), Hide: hide, Args: ociArgs(c.rec.Cgroup)}, stdio...)
	if err != nil {
		r.waiting.remove(p.id)
		var refusal *shim.Refusal
		if errors.As(err, &refusal) {
			err = fmt.Errorf("OCI runtime exec failed: exec failed: %s", explain(refusal.Text, cmd))
		}
		return nil, err
	}
	return p, nil
}

// writeProcess writes the specification of a process like the container's own, with another command.
func (r *Runtime) writeProcess(c *container, cmd []string, tty bool, file string) error {
	spec, err := readSpec(filepath.Join(r.cfg.bundleDir(c.rec.ID), "config.json"))
	if err != nil {
		return err
	}
	spec.Process.Args, spec.Process.Terminal = cmd, tty
	if tty {
		spec.Process.Env = append(spec.Process.Env, "TERM=xterm")
	}
	raw, err := json.Marshal(spec.Process)
	if err != nil {
		return err
	}
	return os.WriteFile(file, raw, 0o600)
}

func readSpec(path string) (*specs.Spec, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var spec specs.Spec
	if err := json.Unmarshal(raw, &spec); err != nil {
		return nil, err
	}
	return &spec, nil
}

func (p *process) kill() {
	// It may have ended just now; its end is told either way.
	p.client.Ask(context.Background(), wire.Frame{Op: wire.OpKill, ID: p.id, Sig: int(unix.SIGKILL)})
}

// wait returns the exit code; a process that outlives ctx is killed.
func (p *process) wait(ctx context.Context) (int, error) {
	select {
	case f := <-p.ended:
		return f.Code, nil
	case <-p.client.Gone():
		return 0, shim.ErrGone
	case <-ctx.Done():
	}
	p.kill()
	select {
	case <-p.ended:
	case <-p.client.Gone():
	}
	return 0, ctx.Err()
}

// maxSync is how much of each output ExecSync keeps, in bytes; the rest is read and dropped.
const maxSync = 16 << 20

// ExecSync runs a command and returns its output. A command that ends with another code than 0 is an utilexec.CodeExitError; one that
// takes longer than timeout (0: for ever) is killed, and the error is a DeadlineExceeded status.
func (r *Runtime) ExecSync(ctx context.Context, containerID string, cmd []string, timeout time.Duration) (stdout, stderr []byte, err error) {
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer outR.Close()
	errR, errW, err := os.Pipe()
	if err != nil {
		outW.Close()
		return nil, nil, err
	}
	defer errR.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, nil, errors.Join(err, outW.Close(), errW.Close())
	}
	p, err := r.startProcess(ctx, containerID, cmd, []int{int(null.Fd()), int(outW.Fd()), int(errW.Fd())}, "")
	null.Close()
	outW.Close()
	errW.Close()
	if err != nil {
		return nil, nil, fmt.Errorf("failed to exec in container: %w", err)
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	var outB, errB capped
	var wg sync.WaitGroup
	wg.Go(func() { outB.readFrom(outR) })
	wg.Go(func() { errB.readFrom(errR) })
	code, err := p.wait(ctx)
	if err == nil {
		// A process that the command left behind may hold its output open; it is not waited for much longer.
		deadline := time.Now().Add(time.Second)
		outR.SetReadDeadline(deadline)
		errR.SetReadDeadline(deadline)
	} else {
		outR.SetReadDeadline(time.Now())
		errR.SetReadDeadline(time.Now())
	}
	wg.Wait()
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return outB.Bytes(), errB.Bytes(), status.Errorf(codes.DeadlineExceeded, "failed to exec in container: timeout %v exceeded: %v", timeout, err)
	case err != nil:
		return outB.Bytes(), errB.Bytes(), err
	case code != 0:
		return outB.Bytes(), errB.Bytes(), utilexec.CodeExitError{Err: fmt.Errorf("command %q exited with %d: %s", cmd, code, errB.Bytes()), Code: code}
	}
	return outB.Bytes(), errB.Bytes(), nil
}

// capped keeps the first maxSync bytes.
type capped struct{ bytes.Buffer }

func (c *capped) readFrom(f *os.File) {
	buf := make([]byte, 32<<10)
	for {
		n, err := f.Read(buf)
		if room := maxSync - c.Len(); room > 0 {
			c.Write(buf[:min(n, room)])
		}
		if err != nil {
			return
		}
	}
}
