package runtime

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/runtime/shim/wire"
	"carob.dev/carob/internal/sys"
)

type streams struct{ r *Runtime }

// Streaming returns the direct calls behind the CRI's exec, attach and port-forward URLs. Exec returns an utilexec.CodeExitError when the
// command ends with another code than 0.
func (r *Runtime) Streaming() streaming.Runtime { return streams{r} }

// Exec runs a command with the given streams, any of which may be nil. With a terminal, err is not used.
func (s streams) Exec(ctx context.Context, containerID string, cmd []string, in io.Reader, out, err io.WriteCloser, tty bool,
	resize <-chan remotecommand.TerminalSize) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var p *process
	var fail error
	var wait func()
	if tty {
		p, wait, fail = s.execTerminal(ctx, containerID, cmd, in, out, resize)
	} else {
		p, wait, fail = s.execPipes(ctx, containerID, cmd, in, out, err)
	}
	if fail != nil {
		return fmt.Errorf("failed to exec in container: %w", fail)
	}
	code, fail := p.wait(ctx)
	wait()
	if fail != nil {
		return fail
	}
	if code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("command terminated with exit code %d", code), Code: code}
	}
	return nil
}

// plumbing is a set of pipes between a stream of the caller and a descriptor that the shim gets.
type plumbing struct {
	theirs, ours []*os.File
	fds          []int
	wg           sync.WaitGroup
}

// input makes a pipe that in is copied to; a nil in reads as empty.
func (p *plumbing) input(in io.Reader) error {
	if in == nil {
		null, err := os.Open(os.DevNull)
		if err == nil {
			p.give(null)
		}
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	p.give(r)
	p.ours = append(p.ours, w)
	go func() { // ends with the caller's stream, or at the first write after the process has gone
		io.Copy(w, in)
		w.Close()
	}()
	return nil
}

// output makes a pipe that is copied to out; what goes to a nil out is dropped.
func (p *plumbing) output(out io.WriteCloser) error {
	if out == nil {
		null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err == nil {
			p.give(null)
		}
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	p.give(w)
	p.ours = append(p.ours, r)
	p.wg.Go(func() {
		io.Copy(out, r)
		r.Close() // a caller that takes no more must not be waited for
	})
	return nil
}

func (p *plumbing) give(f *os.File) {
	p.theirs = append(p.theirs, f)
	p.fds = append(p.fds, int(f.Fd()))
}

func (p *plumbing) handedOver() {
	for _, f := range p.theirs {
		f.Close()
	}
}

func (p *plumbing) close() {
	for _, f := range p.ours {
		f.Close()
	}
}

func (s streams) execPipes(ctx context.Context, containerID string, cmd []string, in io.Reader, out, err io.WriteCloser) (*process, func(), error) {
	p := new(plumbing)
	for _, step := range []func() error{func() error { return p.input(in) }, func() error { return p.output(out) }, func() error { return p.output(err) }} {
		if err := step(); err != nil {
			p.handedOver()
			p.close()
			return nil, nil, err
		}
	}
	proc, fail := s.r.startProcess(ctx, containerID, cmd, p.fds, "")
	p.handedOver()
	if fail != nil {
		p.close()
		p.wg.Wait()
		return nil, nil, fail
	}
	return proc, func() { s.r.settle(&p.wg, p.close) }, nil
}

// settle waits for the last output; a process that was left behind may hold it open and is not waited for.
func (r *Runtime) settle(wg *sync.WaitGroup, close func()) {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		defer func() { done <- struct{}{} }()
	}()
	t := r.cfg.Clock.NewTimer(lastOutput)
	defer t.Stop()
	select {
	case <-done:
		close()
	case <-t.C():
		close()
		<-done
	}
}

func (s streams) execTerminal(ctx context.Context, containerID string, cmd []string, in io.Reader, out io.WriteCloser,
	resize <-chan remotecommand.TerminalSize) (*process, func(), error) {
	c, _, err := s.r.running(containerID)
	if err != nil {
		return nil, nil, err
	}
	path := filepath.Join(s.r.cfg.shimDir(c.sb.rec.ID), "t-"+execID())
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	terminal := make(chan *os.File, 1)
	go func() {
		defer close(terminal)
		if conn, err := l.AcceptUnix(); err == nil {
			defer conn.Close()
			if f := receiveFile(conn); f != nil {
				terminal <- f
			}
		}
	}()
	p, err := s.r.startProcess(ctx, containerID, cmd, nil, path)
	if err != nil {
		l.Close()
		if f, ok := <-terminal; ok {
			f.Close()
		}
		return nil, nil, err
	}
	tty, ok := <-terminal
	if !ok {
		p.kill()
		return nil, nil, fmt.Errorf("the OCI runtime sent no terminal")
	}
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case size, ok := <-resize:
				if !ok {
					return
				}
				setSize(tty, size)
			}
		}
	}()
	if in != nil {
		go io.Copy(tty, in)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if out != nil {
			io.Copy(out, tty) // ends with EIO when the last process has closed the terminal
		}
	})
	return p, func() { s.r.settle(&wg, func() { tty.Close() }) }, nil
}

func setSize(tty *os.File, size remotecommand.TerminalSize) {
	raw, err := tty.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: size.Width, Row: size.Height})
	})
}

func receiveFile(conn *net.UnixConn) *os.File {
	buf, oob := make([]byte, 4096), make([]byte, 64)
	_, n, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) == 0 {
		return nil
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) == 0 {
		return nil
	}
	unix.SetNonblock(fds[0], true)
	return os.NewFile(uintptr(fds[0]), "terminal")
}

// Attach joins the streams to those of a running container until it ends or ctx does.
func (s streams) Attach(ctx context.Context, containerID string, in io.Reader, out, err io.WriteCloser, tty bool,
	resize <-chan remotecommand.TerminalSize) error {
	c, client, fail := s.r.running(containerID)
	if fail != nil {
		return fail
	}
	p := new(plumbing)
	var names []string
	add := func(name string, have bool, f func() error) {
		if have && fail == nil {
			names = append(names, name)
			fail = f()
		}
	}
	add("stdin", in != nil && c.rec.Config.GetStdin(), func() error { return p.input(in) })
	add("stdout", out != nil, func() error { return p.output(out) })
	add("stderr", err != nil && !c.rec.Config.GetTty(), func() error { return p.output(err) })
	id := execID()
	ended := s.r.waiting.add(id)
	defer s.r.waiting.remove(id)
	if fail == nil {
		_, fail = client.Ask(ctx, wire.Frame{Op: wire.OpAttach, ID: id, Of: c.rec.ID, Args: names}, p.fds...)
	}
	p.handedOver()
	defer p.close()
	if fail != nil {
		return fmt.Errorf("attach to container %s: %w", containerID, fail)
	}
	for {
		select {
		case size, ok := <-resize:
			if !ok {
				resize = nil
				continue
			}
			client.Ask(ctx, wire.Frame{Op: wire.OpResize, ID: c.rec.ID, Width: int(size.Width), Height: int(size.Height)})
		case <-ended:
			s.r.settle(&p.wg, p.close)
			return nil
		case <-client.Gone():
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// PortForward joins stream to a TCP port of the Pod, on its loopback, until either side ends.
func (s streams) PortForward(ctx context.Context, sandboxID string, port int32, stream io.ReadWriteCloser) error {
	sb, err := s.r.findSandbox(sandboxID)
	if err != nil {
		return err
	}
	s.r.mu.Lock()
	rec := sb.rec
	s.r.mu.Unlock()
	if !rec.Ready {
		return status.Errorf(codes.FailedPrecondition, "sandbox %q is not running", sandboxID)
	}
	conn, err := s.r.dialPod(ctx, &rec, strconv.Itoa(int(port)))
	if err != nil {
		return fmt.Errorf("failed to connect to localhost:%d inside sandbox %q: %w", port, sandboxID, err)
	}
	defer conn.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(stream, conn)
	}()
	go func() {
		io.Copy(conn, stream)
		conn.(*net.TCPConn).CloseWrite()
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	return stream.Close()
}

func (r *Runtime) dialPod(ctx context.Context, rec *sandboxRecord, port string) (conn net.Conn, err error) {
	dial := func() error {
		var d net.Dialer
		if conn, err = d.DialContext(ctx, "tcp4", net.JoinHostPort("127.0.0.1", port)); err != nil {
			var v6 error
			if conn, v6 = d.DialContext(ctx, "tcp6", net.JoinHostPort("::1", port)); v6 == nil {
				return nil
			}
		}
		return err
	}
	if rec.Config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() == runtimeapi.NamespaceMode_NODE {
		err = dial()
		return conn, err
	}
	err = sys.InNamespaces(rec.PausePID, []string{"net"}, dial)
	return conn, err
}
