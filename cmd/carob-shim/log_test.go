package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"carob.dev/carob/internal/runtime/shim/wire"
)

func TestLog(t *testing.T) {
	b := newBench(t)
	long := strings.Repeat("x", 5*maxLine/2)
	if err := os.WriteFile(b.dir+"/long", []byte(long+"\n"+long[:maxLine]+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.run("c", `cd `+b.dir+`; cat long; echo; sleep 0.1; echo err >&2; sleep 0.1; printf 'a\000\377\r\nhalf'; sleep 0.1; printf ' and half\nno newline'`)
	b.ended("c")
	want := "stdout P " + long[:maxLine] + "\nstdout P " + long[:maxLine] + "\nstdout F " + long[:maxLine/2] + "\nstdout F " + long[:maxLine] + "\nstdout F \n" +
		"stderr F err\nstdout F a\x00\xff\r\nstdout F half and half\nstdout P no newline\n"
	if d := cmp.Diff(want, b.entries(b.log("c"))); d != "" {
		t.Error(d)
	}
}

// TestReopen moves the log away again and again while a container writes numbered lines without a pause: each is there once, in order.
func TestReopen(t *testing.T) {
	b := newBench(t)
	stop := filepath.Join(b.dir, "stop")
	b.run("c", "i=0; until test -e "+stop+"; do echo $i; i=$((i+1)); done; echo $i numbers")
	var files []string
	for i := range 50 {
		moved := fmt.Sprintf("%s.%02d", b.log("c"), i)
		if err := os.Rename(b.log("c"), moved); err != nil {
			t.Fatal(err)
		}
		files = append(files, moved)
		if _, err := b.Ask(context.Background(), wire.Frame{Op: wire.OpReopen, ID: "c"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(stop, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.ended("c")
	var all strings.Builder
	for _, f := range append(files, b.log("c")) {
		all.WriteString(b.entries(f))
	}
	n, last := 0, ""
	for last = range strings.Lines(all.String()) {
		if last != fmt.Sprintf("stdout F %d\n", n) {
			break
		}
		n++
	}
	if last != fmt.Sprintf("stdout F %d numbers\n", n) || n < 50 || !strings.HasSuffix(all.String(), last) {
		t.Errorf("%q after %d numbers", last, n)
	}
}

// TestNoLog holds that a container goes on, and ends as it would, whatever is wrong with its log.
func TestNoLog(t *testing.T) {
	b := newBench(t)
	const script = "i=0; while test $i -lt 20000; do echo 0123456789; i=$((i+1)); done; exit 3"
	for id, log := range map[string]string{"none": "", "full": "/dev/full", "gone": b.dir + "/folder/log"} {
		if err := os.MkdirAll(b.dir+"/folder", 0o700); err != nil {
			t.Fatal(err)
		}
		f := b.frame(id, script)
		f.Log = log
		b.ask(f)
		os.RemoveAll(b.dir + "/folder")
		if f := b.ended(id); f.Code != 3 {
			t.Errorf("%s: %+v", id, f)
		}
	}
	if err := syscall.Mkfifo(b.dir+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	f := b.frame("fifo", script)
	f.Log = b.dir + "/fifo"
	if _, err := b.Ask(context.Background(), f); err == nil || !strings.Contains(err.Error(), "open log") {
		t.Errorf("a fifo without a reader: %v", err)
	}
}

// TestFullDisk fills the log's disk and makes room again: what is written then is whole.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	b := newBench(t)
	disk := b.dir + "/disk"
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", disk, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(disk, syscall.MNT_DETACH)
	f := b.frame("c", "i=0; while test $i -lt 5000; do echo 0123456789 0123456789; i=$((i+1)); done; until test -e "+b.dir+"/room; do sleep 0.05; done; echo after")
	f.Log = disk + "/log"
	b.ask(f)
	filled := func() bool {
		st, err := os.Stat(f.Log)
		return err == nil && st.Size() == 64<<10
	}
	for range 200 {
		if filled() {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if !filled() {
		t.Error("the disk is not full")
	}
	if err := syscall.Mount("none", disk, "tmpfs", syscall.MS_REMOUNT, "size=4m"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.dir+"/room", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.ended("c")
	raw, err := os.ReadFile(f.Log)
	if err != nil || !bytes.HasSuffix(raw, []byte(" stdout F after\n")) {
		t.Errorf("%v, the end is %q", err, raw[max(len(raw)-200, 0):])
	}
}

// BenchmarkLog measures what passes through the shim to a log, and what it costs the shim, for lines of 100 bytes.
func BenchmarkLog(b *testing.B) {
	const size = 256 << 20
	for b.Loop() {
		s := newBench(b)
		s.run("c", fmt.Sprintf("yes %0*d | head -c %d", 99, 7, size))
		began, used := time.Now(), cpu(b, s.pid)
		s.ended("c")
		took, cost := time.Since(began), cpu(b, s.pid)-used
		b.ReportMetric(size/1e6/took.Seconds(), "MB/s")
		b.ReportMetric(float64(cost.Microseconds())/1000/(size/1e6), "cpu-ms/MB")
		s.clean()
	}
}

// cpu is the processor time that a process has used.
func cpu(t testing.TB, pid int) time.Duration {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
	if err != nil {
		t.Fatal(err)
	}
	var ns int64
	if _, err := fmt.Sscan(string(raw), &ns); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ns)
}
