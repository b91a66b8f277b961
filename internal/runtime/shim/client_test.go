package shim

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/runtime/shim/wire"
)

// pair is a client, and the end that its shim would have.
func pair(t *testing.T, report func(wire.Frame)) (*Client, *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
	}
	c := serve(ends[0], report, func() {})
	t.Cleanup(func() { ends[1].Close(); <-c.Gone() })
	return c, ends[1]
}

// TestVersion1 plays a shim of version 1 as it was recorded: the client says what that shim expects, byte for byte, and understands it.
func TestVersion1(t *testing.T) {
	raw, err := os.ReadFile("wire/testdata/v1/pod.txt")
	if err != nil {
		t.Fatal(err)
	}
	type exchange struct {
		asked  string
		answer []string
	}
	var script []exchange
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimSpace(line)
		if frame, ok := strings.CutPrefix(line, "> "); ok {
			script = append(script, exchange{asked: frame})
		} else if frame, ok := strings.CutPrefix(line, "< "); ok {
			last := &script[len(script)-1]
			last.answer = append(last.answer, frame)
		}
	}
	reports := make(chan wire.Frame, 100)
	c, shim := pair(t, func(f wire.Frame) { reports <- f })
	for _, e := range script {
		var f wire.Frame
		if err := f.Parse([]byte(e.asked)); err != nil {
			t.Fatal(err)
		}
		wantSeq, other := f.Seq, f.V != wire.Version || strings.Contains(e.asked, `"new"`)
		heard := make(chan string, 1)
		go func() {
			buf := make([]byte, wire.MaxFrame)
			n, err := shim.Read(buf)
			if err != nil {
				t.Error(err)
			}
			heard <- string(buf[:n])
			for _, a := range e.answer {
				if _, err := shim.Write([]byte(a)); err != nil {
					t.Error(err)
				}
			}
		}()
		reply, err := c.Ask(context.Background(), f)
		if said := <-heard; said != e.asked && !other {
			t.Errorf("said  %s\nnot as %s", said, e.asked)
		}
		for _, a := range e.answer {
			var want wire.Frame
			if err := want.Parse([]byte(a)); err != nil {
				t.Fatal(err)
			}
			if want.Seq == 0 {
				if d := cmp.Diff(want, <-reports); d != "" {
					t.Errorf("report %s: %s", a, d)
				}
				continue
			}
			if d := cmp.Diff(want, reply); d != "" || want.Seq != wantSeq {
				t.Errorf("reply %s: %s", a, d)
			}
			var refusal *Refusal
			if (want.Err != "") != errors.As(err, &refusal) || want.Err != "" && refusal.Text != want.Err {
				t.Errorf("reply %s: %v", a, err)
			}
		}
	}
}

// TestHostileShim holds that what is no frame, or too long, ends the connection, and that every request then fails with ErrGone.
func TestHostileShim(t *testing.T) {
	for _, raw := range []string{"x", `{"seq":"1"}`, `{"op":"` + strings.Repeat("x", wire.MaxAnswer) + `"}`} {
		c, shim := pair(t, func(wire.Frame) {})
		asked := make(chan error, 1)
		go func() {
			_, err := c.Ask(context.Background(), wire.Frame{Op: wire.OpHello})
			asked <- err
		}()
		if _, err := shim.Read(make([]byte, wire.MaxFrame)); err != nil {
			t.Fatal(err)
		}
		if _, err := shim.Write([]byte(raw)); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-asked:
			if !errors.Is(err, ErrGone) {
				t.Errorf("%.20q: %v", raw, err)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%.20q: the client waits on", raw)
		}
		if _, err := c.Ask(context.Background(), wire.Frame{Op: wire.OpHello}); !errors.Is(err, ErrGone) {
			t.Errorf("%.20q, asked again: %v", raw, err)
		}
	}
}
