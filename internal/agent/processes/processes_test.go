package processes

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"carob.dev/carob/internal/sys"
)

func TestBuild(t *testing.T) {
	host := map[string]string{"net": "net:[1]", "ipc": "ipc:[1]", "uts": "uts:[1]", "pid": "pid:[1]", "mnt": "mnt:[1]"}
	held := map[string]string{"net": "net:[2]", "ipc": "ipc:[2]", "uts": "uts:[2]", "pid": "pid:[1]", "mnt": "mnt:[3]"}
	joined := map[string]string{"net": "net:[2]", "ipc": "ipc:[2]", "uts": "uts:[2]", "pid": "pid:[9]", "mnt": "mnt:[9]"}
	proc := func(pid, parent int, cgroup string, ns map[string]string) sys.Process {
		return sys.Process{PID: pid, PPID: parent, Comm: "p", Args: []string{"p"}, RSS: 5, Cgroups: []string{cgroup, cgroup}, Namespaces: ns}
	}
	procs := []sys.Process{
		proc(10, 1, "/carob/kubepods/podu/pause", held),
		proc(13, 12, "/carob/kubepods/podu/c1/inner", joined),
		proc(12, 11, "/carob/kubepods/podu/c1", joined),
		proc(20, 5, "/carob/kubepods/podu/c1", joined), // an exec: its parent is the shim
		proc(30, 1, "/carob/kubepods/podu/c10", joined),
	}
	got := Build("n", []Sandbox{
		{UID: "u", Namespace: "default", Name: "b", PausePID: 10, Containers: map[string]string{"c1": "web", "c2": "dead"}},
		{UID: "v", Namespace: "default", Name: "a", PausePID: 99},
	}, procs, host)
	shares := []string{"ipc", "net", "uts"}
	p := func(pid int, children ...Process) Process {
		return Process{PID: pid, Comm: "p", Command: []string{"p"}, RSSBytes: 5, Shares: shares, Children: children}
	}
	want := Report{Node: "n", Pods: []Pod{
		{UID: "v", Namespace: "default", Name: "a"},
		{UID: "u", Namespace: "default", Name: "b",
			Pause: &Process{PID: 10, Comm: "p", Command: []string{"p"}, RSSBytes: 5, Shares: []string{"ipc", "mnt", "net", "uts"}},
			Containers: []Container{
				{Name: "dead", ID: "c2"},
				{Name: "web", ID: "c1", Processes: []Process{p(12, p(13)), p(20)}},
			}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
