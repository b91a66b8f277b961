// Package shim is carob's side of the conversation with the Pods' shims: it starts them, finds them again, asks, and hears what happens.
//
// It may import sys. A Client's reports come in the order in which the shim sent them, from one goroutine.
package shim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/runtime/shim/wire"
)

// ErrGone is wrapped by all errors of requests to a shim that has ended.
var ErrGone = errors.New("the Pod's shim is gone")

// EmptyPlace is the folder where a shim mounts in Spec.Empty.
const EmptyPlace = "p"

// Refusal is a request's failure as the shim tells it.
type Refusal struct{ Op, Text string }

func (r *Refusal) Error() string { return r.Op + ": " + r.Text }

// Client is a connection to one shim.
type Client struct {
	conn *net.UnixConn
	// report is called for each frame that answers no request; gone once, after the last.
	report func(wire.Frame)
	gone   func()

	mu      sync.Mutex
	seq     int
	waiting map[int]chan wire.Frame
	dead    bool
	done    chan struct{}
}

// Spec says how to start a shim.
type Spec struct {
	// Binary is the shim's program.
	Binary string
	// Dir is its state folder, Socket its socket's path: both must have an existing parent.
	Dir, Socket string
	// Boot is the boot id that it notes with its facts.
	Boot string
	// Cgroup is the open folder of the cgroup (v2) to start it in; may be nil.
	Cgroup *os.File
	// Empty is a mount namespace as sys.EmptyMounts makes it with the place EmptyPlace; may be nil.
	Empty *os.File
	// Within runs the function that starts the process, on a thread whose cgroups the process is to inherit.
	Within func(start func() error) error
}

// Start starts a shim and connects to it. It also returns its process.
func Start(s Spec, report func(wire.Frame), gone func()) (c *Client, pid int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("start shim: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "shim"), os.NewFile(uintptr(fds[1]), "shim")
	defer theirs.Close()
	defer ours.Close()
	log, err := os.OpenFile(s.Dir+"/shim.log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, 0, fmt.Errorf("start shim: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(s.Binary, s.Dir, s.Socket, s.Boot)
	cmd.Args[0] = "carob-shim"
	cmd.Dir = "/"
	cmd.Env = []string{"GOMAXPROCS=1", "GOGC=off"}
	cmd.Stderr = log
	cmd.ExtraFiles = []*os.File{theirs}
	if s.Empty != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, s.Empty)
		cmd.Env = append(cmd.Env, "CAROB_EMPTY_NS=1")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if s.Cgroup != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(s.Cgroup.Fd())
	}
	if err := s.Within(cmd.Start); err != nil {
		return nil, 0, fmt.Errorf("start shim: %w", err)
	}
	go cmd.Wait() // reaps it, if this process lives that long
	conn, err := net.FileConn(ours)
	if err != nil {
		cmd.Process.Kill()
		return nil, 0, fmt.Errorf("start shim: %w", err)
	}
	return serve(conn.(*net.UnixConn), report, gone), cmd.Process.Pid, nil
}

// Connect finds a running shim again by its socket.
func Connect(socket string, report func(wire.Frame), gone func()) (*Client, error) {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrGone, err)
	}
	return serve(conn, report, gone), nil
}

func serve(conn *net.UnixConn, report func(wire.Frame), gone func()) *Client {
	c := &Client{conn: conn, report: report, gone: gone, waiting: map[int]chan wire.Frame{}, done: make(chan struct{})}
	go c.read()
	return c
}

// Close lets go of the shim, which runs on. It waits until no report is under way; it must not be called from one.
func (c *Client) Close() {
	c.mu.Lock()
	c.gone = func() {}
	c.mu.Unlock()
	c.conn.Close()
	<-c.done
}

// Gone is closed once the connection has ended.
func (c *Client) Gone() <-chan struct{} { return c.done }

func (c *Client) read() {
	defer close(c.done)
	buf := make([]byte, wire.MaxAnswer)
	for {
		n, _, flags, _, err := c.conn.ReadMsgUnix(buf, nil)
		if err != nil || n == 0 {
			break
		}
		var f wire.Frame
		if flags&unix.MSG_TRUNC != 0 || f.Parse(buf[:n]) != nil {
			break
		}
		if f.Seq == 0 {
			c.report(f)
			continue
		}
		c.mu.Lock()
		ch := c.waiting[f.Seq]
		delete(c.waiting, f.Seq)
		c.mu.Unlock()
		if ch != nil {
			ch <- f
		}
	}
	c.conn.Close()
	c.mu.Lock()
	c.dead = true
	for seq, ch := range c.waiting {
		delete(c.waiting, seq)
		close(ch)
	}
	gone := c.gone
	c.mu.Unlock()
	gone()
}

// Ask sends a request, with descriptors if there are any, and waits for the reply. The error wraps ErrGone if the shim ends, is a *Refusal
// if the shim says no, or is the context's; the request may still be carried out in the last case.
func (c *Client) Ask(ctx context.Context, f wire.Frame, fds ...int) (wire.Frame, error) {
	ch := make(chan wire.Frame, 1)
	c.mu.Lock()
	if c.dead {
		c.mu.Unlock()
		return f, fmt.Errorf("%s: %w", f.Op, ErrGone)
	}
	c.seq++
	f.V, f.Seq = wire.Version, c.seq
	c.waiting[f.Seq] = ch
	c.mu.Unlock()
	packet := f.Append(nil)
	if len(packet) > wire.MaxFrame {
		c.forget(f.Seq)
		return f, fmt.Errorf("%s: request of %d bytes is too long", f.Op, len(packet))
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := c.conn.WriteMsgUnix(packet, oob, nil); err != nil {
		c.forget(f.Seq)
		return f, fmt.Errorf("%s: %w: %w", f.Op, ErrGone, err)
	}
	select {
	case <-ctx.Done():
		c.forget(f.Seq)
		return f, fmt.Errorf("%s: %w", f.Op, ctx.Err())
	case r, ok := <-ch:
		if !ok {
			return f, fmt.Errorf("%s: %w", f.Op, ErrGone)
		}
		if r.Err != "" {
			return r, &Refusal{Op: f.Op, Text: r.Err}
		}
		return r, nil
	}
}

func (c *Client) forget(seq int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, seq)
}
