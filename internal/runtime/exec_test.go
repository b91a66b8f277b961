package runtime

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

func TestExecSync(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	id := b.start(b.pod(b.podConfig("exec")), containerConfig("c", "sleep", "1000"))
	out, errOut, err := b.ExecSync(ctx, id, []string{"sh", "-c", "echo a; echo b >&2"}, time.Second*5)
	if string(out) != "a\n" || string(errOut) != "b\n" || err != nil {
		t.Errorf("%q %q %v", out, errOut, err)
	}
	var exit utilexec.CodeExitError
	if _, _, err = b.ExecSync(ctx, id, []string{"sh", "-c", "exit 7"}, 0); !errors.As(err, &exit) || exit.Code != 7 {
		t.Errorf("exit 7: %v", err)
	}
	if _, _, err = b.ExecSync(ctx, id, []string{"sleep", "100"}, 200*time.Millisecond); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("timeout: %v", err)
	}
	_, _, err = b.ExecSync(ctx, id, []string{"nothere"}, 0)
	if err == nil || !strings.Contains(err.Error(), `exec: "nothere": executable file not found in $PATH`) {
		t.Errorf("missing command: %v", err)
	}
	// What the command started beside itself ends with it.
	if _, _, err = b.ExecSync(ctx, id, []string{"sh", "-c", "sleep 4321 & sleep 4322"}, 500*time.Millisecond); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("timeout: %v", err)
	}
	out, _, err = b.ExecSync(ctx, id, []string{"sh", "-c", "sleep 0.2; ps | grep 'sleep 432[12]' | grep -v grep"}, 0)
	if len(out) > 0 || !errors.As(err, &exit) || exit.Code != 1 {
		t.Errorf("left after a timeout: %q, %v", out, err)
	}
}

type buffer struct {
	bytes.Buffer
	closed bool
}

func (b *buffer) Close() error { b.closed = true; return nil }

func TestStreamingExec(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	id := b.start(b.pod(b.podConfig("stream")), containerConfig("c", "sleep", "1000"))
	var out, errOut buffer
	err := b.Streaming().Exec(ctx, id, []string{"sh", "-c", "cat; echo done >&2; exit 5"}, strings.NewReader(strings.Repeat("x", 300000)), &out, &errOut, false, nil)
	var exit utilexec.CodeExitError
	if !errors.As(err, &exit) || exit.Code != 5 || out.Len() != 300000 || errOut.String() != "done\n" {
		t.Errorf("%v, %d bytes, %q", err, out.Len(), errOut.String())
	}
	var tty buffer
	resize := make(chan remotecommand.TerminalSize, 1)
	resize <- remotecommand.TerminalSize{Width: 77, Height: 33}
	err = b.Streaming().Exec(ctx, id, []string{"sh", "-c", "sleep 0.2; stty size; test -t 0 && echo tty"}, nil, &tty, nil, true, resize)
	if err != nil || !strings.Contains(tty.String(), "33 77") || !strings.Contains(tty.String(), "tty\r\n") {
		t.Errorf("%v %q", err, tty.String())
	}
}

func TestAttach(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	pod := b.pod(b.podConfig("attach"))
	cfg := containerConfig("c", "sh", "-c", "while read x; do echo got $x; done; echo end")
	cfg.Stdin, cfg.StdinOnce = true, true
	id := b.start(pod, cfg)
	var out buffer
	if err := b.Streaming().Attach(ctx, id, strings.NewReader("1\n2\n"), &out, nil, false, nil); err != nil {
		t.Fatal(err)
	}
	if out.String() != "got 1\ngot 2\nend\n" {
		t.Errorf("%q", out.String())
	}
	if s := b.ended(id); s.ExitCode != 0 {
		t.Error(s)
	}
	if d := cmp.Diff("stdout F got 1\nstdout F got 2\nstdout F end\n", b.log(id)); d != "" {
		t.Error(d)
	}
	cfg = containerConfig("tty", "sh")
	cfg.Stdin, cfg.Tty = true, true
	id = b.start(pod, cfg)
	var term buffer
	r, w := io.Pipe()
	go func() {
		io.WriteString(w, "echo a$((1+1))\n")
		time.Sleep(200 * time.Millisecond)
		io.WriteString(w, "exit 4\n")
	}()
	if err := b.Streaming().Attach(ctx, id, r, &term, nil, true, nil); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(term.String(), "a2\r\n") || b.ended(id).ExitCode != 4 {
		t.Errorf("%q %v", term.String(), b.status(id))
	}
}

type pipeStream struct {
	io.Reader
	io.Writer
}

func (pipeStream) Close() error { return nil }

func TestPortForward(t *testing.T) {
	b := newBench(t)
	pod := b.pod(b.podConfig("forward"))
	id := b.start(pod, containerConfig("c", "sh", "-c", "echo hello | nc -l -p 8080 127.0.0.1 || nc -l -p 8080 -e echo hello"))
	time.Sleep(200 * time.Millisecond)
	var out buffer
	r, w := io.Pipe()
	defer w.Close()
	err := b.Streaming().PortForward(context.Background(), pod, 8080, pipeStream{r, &out})
	if err != nil || out.String() != "hello\n" {
		raw, _ := os.ReadFile(b.status(id).LogPath)
		t.Errorf("%v %q; log %s", err, out.String(), raw)
	}
	if err := b.Streaming().PortForward(context.Background(), pod, 9, pipeStream{r, &out}); err == nil {
		t.Error("a closed port was reached")
	}
}
