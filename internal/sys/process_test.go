package sys

import (
	"errors"
	"os"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestProcessesReadsOddNames(t *testing.T) {
	stat := " S 7 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 100 1000000 3 18446744073709551615\n"
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	proc := fstest.MapFS{
		"10/cgroup":  file("4:pids:/carob/kubepods/podx/c1\n0::/carob/kubepods/podx/c1\n"),
		"10/stat":    file("10 (a) b (c)" + stat),
		"10/cmdline": file("sh\x00-c\x00echo a:b\x00"),
		"10/status":  file("Name:\ta) b (c\nVmRSS:\t      16 kB\nRssAnon:\t 8 kB\n"),
		"11/cgroup":  file("0::/user.slice\n"),
		"11/stat":    file("11 (x)" + stat),
		"12/cgroup":  file("0::/carob/kubepods/podx/c1\n"),
		"12/stat":    file("12 (zombie)" + stat),
		"12/cmdline": file(""),
		"13/cgroup":  file("0::/carob/gone\n"),
		"self":       file(""),
	}
	readlink := func(name string) (string, error) {
		if name == "/proc/10/ns/net" {
			return "net:[1]", nil
		}
		return "", errors.New("gone")
	}
	got, err := processesIn(proc, func(pid int, c []string) bool { return pid == 11 || len(c) > 0 && c[0] != "/user.slice" }, readlink)
	if err != nil {
		t.Fatal(err)
	}
	rss := 3 * int64(os.Getpagesize())
	want := []Process{
		{PID: 10, PPID: 7, Comm: "a) b (c", Args: []string{"sh", "-c", "echo a:b"}, RSS: 16 << 10,
			Cgroups: []string{"/carob/kubepods/podx/c1", "/carob/kubepods/podx/c1"}, Namespaces: map[string]string{"net": "net:[1]"}},
		{PID: 11, PPID: 7, Comm: "x", RSS: rss, Cgroups: []string{"/user.slice"}, Namespaces: map[string]string{}},
		{PID: 12, PPID: 7, Comm: "zombie", RSS: rss, Cgroups: []string{"/carob/kubepods/podx/c1"}, Namespaces: map[string]string{}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
