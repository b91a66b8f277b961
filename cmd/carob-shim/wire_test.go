package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/runtime/shim/wire"
)

// conversation is the recorded one of protocol version 1.
const conversation = "../../internal/runtime/shim/wire/testdata/v1/pod.txt"

// TestVersion1 says to this shim what a carob of version 1 says, byte for byte, and holds that the shim says what that carob expects.
func TestVersion1(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	raw, err := os.ReadFile(conversation)
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t)
	for name, script := range map[string]string{"cat": "cat", "sleep": "exec sleep 1000", "seven": "exit 7"} {
		if err := os.WriteFile(b.dir+"/"+name, []byte(script), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: b.dir + "/s", Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	ended, typist, err := os.Pipe() // a session's stdin that is at its end
	if err != nil {
		t.Fatal(err)
	}
	typist.Close()
	defer ended.Close()
	text := strings.NewReplacer("$DIR", b.dir, "$OCI", self).Replace(string(raw))
	expected := map[string]int{}
	settle := func() {
		t.Helper()
		buf := make([]byte, wire.MaxAnswer)
		for len(expected) > 0 {
			conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatalf("%v; not heard: %v", err, expected)
			}
			got := shape(t, buf[:n])
			if expected[got]--; expected[got] < 0 {
				t.Fatalf("heard %s\nexpected %v", got, expected)
			}
			if expected[got] == 0 {
				delete(expected, got)
			}
		}
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if frame, ok := strings.CutPrefix(line, "< "); ok {
			expected[shape(t, []byte(frame))]++
			continue
		}
		frame, ok := strings.CutPrefix(line, "> ")
		if !ok {
			continue
		}
		settle()
		var f wire.Frame
		if err := f.Parse([]byte(frame)); err != nil {
			t.Fatalf("%s: %v", frame, err)
		}
		var fds []int
		switch f.Op {
		case wire.OpExec:
			fds = []int{int(null.Fd()), int(null.Fd()), int(null.Fd())}
		case wire.OpAttach:
			fds = []int{int(ended.Fd()), int(null.Fd()), int(null.Fd())}[3-len(f.Args):]
		}
		var oob []byte
		if fds != nil {
			oob = unix.UnixRights(fds...)
		}
		if _, _, err := conn.WriteMsgUnix([]byte(frame), oob, nil); err != nil {
			t.Fatal(err)
		}
	}
	settle()
}

// shape is a frame without the numbers that differ each time.
func shape(t *testing.T, raw []byte) string {
	t.Helper()
	var f wire.Frame
	if err := f.Parse(raw); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	for _, n := range []*int{&f.Pid, &f.Started, &f.Ended} {
		*n = min(*n, 1)
	}
	return string(f.Append(nil))
}

// TestHostileFrames sends what is no frame, on connections of its own: the shim hangs up on those, and lives.
func TestHostileFrames(t *testing.T) {
	b := newBench(t)
	b.run("c", "exec sleep 1000")
	for _, raw := range []string{"x", "{", `{"v":1,"op":7}`, strings.Repeat("[", 100), string(make([]byte, 1000)), strings.Repeat(`{"a":`, 20000)} {
		conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: b.dir + "/s", Net: "unixpacket"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(raw)); err != nil {
			t.Errorf("%.20q: %v", raw, err)
		}
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := conn.Read(make([]byte, 100)); err == nil || os.IsTimeout(err) {
			t.Errorf("%.20q: %d bytes, %v", raw, n, err)
		}
		conn.Close()
	}
	b.ask(wire.Frame{Op: wire.OpHello})
	got := b.wait(func(f wire.Frame) bool { return f.Op == wire.OpState && f.ID == "c" })
	if d := cmp.Diff(0, got.Exited); d != "" {
		t.Error(d, fmt.Sprint(got))
	}
}
