package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"carob.dev/carob/internal/runtime/shim/wire"
)

// session is a client that is attached to a container.
type attached struct {
	in, out *os.File
}

// attach joins stdin and stdout of a container.
func (b *bench) attach(id, of string) attached {
	b.t.Helper()
	inR, inW, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	b.ask(wire.Frame{Op: wire.OpAttach, ID: id, Of: of, Args: []string{"stdin", "stdout"}}, int(inR.Fd()), int(outW.Fd()))
	inR.Close()
	outW.Close()
	b.t.Cleanup(func() { inW.Close(); outR.Close() })
	return attached{inW, outR}
}

func (b *bench) runWith(id, script string, stdin, once, tty int) {
	b.t.Helper()
	f := b.frame(id, script)
	f.Stdin, f.Once, f.TTY = stdin, once, tty
	b.ask(f)
}

// gate returns a piece of script that waits until goOn is called, as when somebody has attached.
func (b *bench) gate() (wait string, goOn func()) {
	b.t.Helper()
	path := filepath.Join(b.t.TempDir(), "open")
	return "while ! test -e " + path + "; do sleep 0.01; done; ", func() {
		b.t.Helper()
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			b.t.Fatal(err)
		}
	}
}

// TestStuckReader holds that a container waits for a session that does not read, as its own terminal would have it wait, loses nothing, and
// goes on when the session ends.
func TestStuckReader(t *testing.T) {
	b := newBench(t)
	wait, goOn := b.gate()
	b.run("c", wait+"i=0; while test $i -lt 30000; do echo $i; i=$((i+1)); done")
	stuck := b.attach("stuck", "c")
	goOn()
	time.Sleep(300 * time.Millisecond)
	still := b.entries(b.log("c"))
	if time.Sleep(200 * time.Millisecond); b.entries(b.log("c")) != still {
		t.Error("the container did not wait for the session")
	}
	stuck.out.Close()
	b.ended("c")
	if n := strings.Count(b.entries(b.log("c")), "\n"); n != 30000 {
		t.Errorf("%d lines", n)
	}
	b.wait(func(f wire.Frame) bool { return f.Op == wire.OpDetach && f.ID == "stuck" })
}

// TestTyping has two sessions type much at once: all of it arrives, and is on both screens, also through a terminal, whose program cannot
// read on while nobody reads what it writes.
func TestTyping(t *testing.T) {
	for tty := range 2 {
		b := newBench(t)
		const size = 300000
		b.runWith("c", fmt.Sprintf("test %d = 0 || stty raw -echo; echo ready; head -c %d | tee %s/got; exit 3", tty, 2*size, b.dir), 1, 0, tty)
		ses := []attached{b.attach("s0", "c"), b.attach("s1", "c")}
		b.waitLog("c", "ready")
		var wg sync.WaitGroup
		seen := make([]int, len(ses))
		for i, s := range ses {
			text := bytes.Repeat([]byte{byte('a' + i)}, size)
			wg.Go(func() {
				if _, err := s.in.Write(text); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				got, err := io.ReadAll(s.out)
				if err != nil {
					t.Error(err)
				}
				seen[i] = bytes.Count(got, []byte{'a'}) + bytes.Count(got, []byte{'b'})
			})
		}
		if f := b.ended("c"); f.Code != 3 {
			t.Errorf("tty %d: %+v", tty, f)
		}
		wg.Wait()
		got, err := os.ReadFile(b.dir + "/got")
		if err != nil || bytes.Count(got, []byte{'a'}) != size || bytes.Count(got, []byte{'b'}) != size {
			t.Errorf("tty %d: %d a, %d b of %d each, %v", tty, bytes.Count(got, []byte{'a'}), bytes.Count(got, []byte{'b'}), size, err)
		}
		for i, n := range seen { // the word ready has one of them, and may have been there before the session
			if n < 2*size || n > 2*size+1 {
				t.Errorf("tty %d: session %d saw %d", tty, i, n)
			}
		}
	}
}

// waitLog waits until a container has logged a word.
func (b *bench) waitLog(id, word string) {
	b.t.Helper()
	for range 1000 {
		if strings.Contains(b.entries(b.log(id)), word) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	b.t.Fatalf("%q is not in the log", word)
}

// TestStdin holds when a container's stdin ends: with the first session's if it is for one only, else never, and that a container
// which closes it early, or all its streams, harms nobody.
func TestStdin(t *testing.T) {
	b := newBench(t)
	b.runWith("once", "cat; echo over", 1, 1, 0)
	s := b.attach("s", "once")
	if _, err := s.in.Write([]byte("typed\n")); err != nil {
		t.Fatal(err)
	}
	s.in.Close()
	if out, err := io.ReadAll(s.out); err != nil || string(out) != "typed\nover\n" {
		t.Errorf("once: %q %v", out, err)
	}
	b.ended("once")

	b.runWith("often", "read a; echo $a; read b; echo $b", 1, 0, 0)
	for i, word := range []string{"one", "two"} {
		s := b.attach(fmt.Sprint("o", i), "often")
		if _, err := s.in.Write([]byte(word + "\n")); err != nil {
			t.Fatal(err)
		}
		s.in.Close()
		b.waitLog("often", word)
	}
	b.ended("often")

	wait, goOn := b.gate()
	b.runWith("early", "exec <&-; "+wait+"echo still; exec >&- 2>&-; sleep 0.2; exit 7", 1, 0, 0)
	s = b.attach("e", "early")
	goOn()
	go func() {
		for { // ends with the session
			if _, err := s.in.Write(make([]byte, 100000)); err != nil {
				return
			}
		}
	}()
	if out, err := io.ReadAll(s.out); err != nil || string(out) != "still\n" {
		t.Errorf("early: %q %v", out, err)
	}
	if f := b.ended("early"); f.Code != 7 {
		t.Errorf("early: %+v", f)
	}
}

// TestResizes has a terminal's size change ten thousand times in one go.
func TestResizes(t *testing.T) {
	b := newBench(t)
	b.runWith("c", "read x; stty size", 1, 0, 1)
	b.waitTerminal("c")
	began := time.Now()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 2500 {
				if _, err := b.Ask(context.Background(), wire.Frame{Op: wire.OpResize, ID: "c", Width: 10*i + n, Height: n}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	t.Logf("10000 resizes took %v", time.Since(began))
	b.ask(wire.Frame{Op: wire.OpResize, ID: "c", Width: 77, Height: 33})
	s := b.attach("s", "c")
	if _, err := s.in.Write([]byte("x\n")); err != nil {
		t.Fatal(err)
	}
	if out, _ := io.ReadAll(s.out); !strings.Contains(string(out), "33 77") {
		t.Errorf("%q", out)
	}
	if n := rss(t, b.pid); n > 8<<20 {
		t.Errorf("the shim has %d KiB resident", n>>10)
	}
}

// waitTerminal waits until a container has its terminal.
func (b *bench) waitTerminal(id string) {
	b.t.Helper()
	for range 1000 {
		if _, err := b.Ask(context.Background(), wire.Frame{Op: wire.OpResize, ID: id, Width: 80, Height: 25}); err == nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	b.t.Fatal("no terminal")
}

// rss is a process's resident memory in bytes.
func rss(t *testing.T, pid int) int {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	var all, resident int
	if err == nil {
		_, err = fmt.Sscan(string(raw), &all, &resident)
	}
	if err != nil {
		t.Fatal(err)
	}
	return resident * os.Getpagesize()
}

// TestShutdown ends all.
func TestShutdown(t *testing.T) {
	b := newBench(t)
	pid := b.run("c", "exec sleep 1000")
	b.ask(wire.Frame{Op: wire.OpShutdown})
	select {
	case <-b.Gone():
	case <-time.After(5 * time.Second):
		t.Fatal("the shim lives on")
	}
	for range 200 {
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("the container lives on")
}
