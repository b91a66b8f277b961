// Package processes tells which live processes stand behind each Pod of a node: its pause process and, container by container, the
// process trees, with the namespaces that each shares with pause.
//
// It may import sys. The report is served by the agent and drawn by the tree package; it is JSON, and fields are only ever added.
package processes

import (
	"slices"
	"sort"
	"strings"

	"carob.dev/carob/internal/sys"
)

// Report is the processes of all Pods on one node.
type Report struct {
	Node string `json:"node"`
	Pods []Pod  `json:"pods"`
}

// Pod is one Pod's processes. Pause is nil when the Pod has no live sandbox.
type Pod struct {
	UID        string      `json:"uid"`
	Namespace  string      `json:"namespace"`
	Name       string      `json:"name"`
	Pause      *Process    `json:"pause,omitempty"`
	Containers []Container `json:"containers,omitempty"`
}

// Container is one running container: the processes in its cgroup, as trees.
type Container struct {
	Name      string    `json:"name"`
	ID        string    `json:"id"`
	Processes []Process `json:"processes,omitempty"`
}

// Process is one live process.
type Process struct {
	PID     int      `json:"pid"`
	Comm    string   `json:"comm"`
	Command []string `json:"command,omitempty"`
	// RSSBytes is resident memory.
	RSSBytes int64 `json:"rssBytes"`
	// Shares are the namespaces (ipc, net, pid, uts, …) that are the same as pause's; for pause itself, those that are not the host's.
	Shares   []string  `json:"shares,omitempty"`
	Children []Process `json:"children,omitempty"`
}

// Sandbox is what the runtime knows of one live Pod.
type Sandbox struct {
	UID, Namespace, Name string
	PausePID             int
	// Containers maps a container's ID, which is the last element of its cgroup's path or the end of it, to its name.
	Containers map[string]string
}

// Build puts the sandboxes and the machine's processes together. host is the namespaces of the agent itself.
func Build(node string, sandboxes []Sandbox, procs []sys.Process, host map[string]string) Report {
	byPID := map[int]sys.Process{}
	owner := map[string][]int{}
	for _, p := range procs {
		byPID[p.PID] = p
		seen := map[string]bool{}
		for _, c := range p.Cgroups {
			for elem := range strings.SplitSeq(c, "/") {
				if scope, ok := strings.CutSuffix(elem, sys.ScopeEnd); ok { // carob-<ID>.scope, cri-containerd-<ID>.scope
					elem = scope[strings.LastIndex(scope, "-")+1:]
				}
				if elem != "" && !seen[elem] {
					seen[elem] = true
					owner[elem] = append(owner[elem], p.PID)
				}
			}
		}
	}
	report := Report{Node: node, Pods: []Pod{}}
	for _, s := range sandboxes {
		pod := Pod{UID: s.UID, Namespace: s.Namespace, Name: s.Name}
		pause, ok := byPID[s.PausePID]
		if ok {
			p := toProcess(pause, nil)
			p.Shares = differs(pause.Namespaces, host)
			pod.Pause = &p
		}
		for id, name := range s.Containers {
			pod.Containers = append(pod.Containers, Container{Name: name, ID: id, Processes: forest(owner[id], byPID, pause.Namespaces)})
		}
		sort.Slice(pod.Containers, func(i, j int) bool { return pod.Containers[i].Name < pod.Containers[j].Name })
		report.Pods = append(report.Pods, pod)
	}
	sort.Slice(report.Pods, func(i, j int) bool {
		a, b := report.Pods[i], report.Pods[j]
		return a.Namespace+"/"+a.Name < b.Namespace+"/"+b.Name
	})
	return report
}

// forest makes trees of the given processes by their parents; one whose parent is not among them (the first, or an exec's) is a root.
func forest(pids []int, byPID map[int]sys.Process, pause map[string]string) []Process {
	in := map[int]bool{}
	for _, pid := range pids {
		in[pid] = true
	}
	children := map[int][]int{}
	var roots []int
	for _, pid := range pids {
		if parent := byPID[pid].PPID; in[parent] {
			children[parent] = append(children[parent], pid)
		} else {
			roots = append(roots, pid)
		}
	}
	var build func([]int) []Process
	build = func(list []int) []Process {
		slices.Sort(list)
		var out []Process
		for _, pid := range list {
			p := toProcess(byPID[pid], pause)
			p.Children = build(children[pid])
			out = append(out, p)
		}
		return out
	}
	return build(roots)
}

func toProcess(p sys.Process, pause map[string]string) Process {
	return Process{PID: p.PID, Comm: p.Comm, Command: p.Args, RSSBytes: p.RSS, Shares: same(p.Namespaces, pause)}
}

func same(a, b map[string]string) []string {
	var out []string
	for k, id := range a {
		if id != "" && b[k] == id {
			out = append(out, k)
		}
	}
	sort.Strings(out)
	return out
}

func differs(a, host map[string]string) []string {
	var out []string
	for k, id := range a {
		if id != "" && host[k] != id {
			out = append(out, k)
		}
	}
	sort.Strings(out)
	return out
}
