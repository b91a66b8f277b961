//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// process is one on the machine, found without asking Carob.
type process struct {
	pid, parent int
	comm        string
	cgroup      string
}

func allProcesses() map[int]process {
	all := map[int]process{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue
		}
		end := strings.LastIndexByte(string(stat), ')')
		fields := strings.Fields(string(stat[end+1:]))
		parent, _ := strconv.Atoi(fields[1])
		cgroup, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cgroup"))
		comm := string(stat[strings.IndexByte(string(stat), '(')+1 : end])
		all[pid] = process{pid: pid, parent: parent, comm: comm, cgroup: string(cgroup)}
	}
	return all
}

// mainProcess is the first process of a running container: the one in its cgroup whose parent is not.
func (s *space) mainProcess(p *corev1.Pod, container string) process {
	s.Helper()
	_, id, ok := strings.Cut(status(p, container).ContainerID, "://")
	if !ok {
		s.Fatalf("container %s of pod %s has no ID: %+v", container, p.Name, status(p, container))
	}
	all := allProcesses()
	for _, proc := range all {
		if strings.Contains(proc.cgroup, id) && !strings.Contains(all[proc.parent].cgroup, id) {
			return proc
		}
	}
	s.Fatalf("no process of container %s (%s) of pod %s", container, id, p.Name)
	return process{}
}

// pause is the pause process beside a container's.
func (s *space) pause(p *corev1.Pod, container string) process {
	s.Helper()
	of := s.mainProcess(p, container)
	for _, proc := range allProcesses() {
		if proc.parent == of.parent && proc.comm == "pause" {
			return proc
		}
	}
	s.Fatalf("no pause process beside %d of pod %s", of.pid, p.Name)
	return process{}
}

// namespaces are those of a process by kind.
func (s *space) namespaces(pid int) map[string]string {
	s.Helper()
	ns := map[string]string{}
	for _, kind := range []string{"net", "ipc", "uts", "mnt", "pid", "cgroup"} {
		id, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
		if err != nil {
			s.Fatal(err)
		}
		ns[kind] = id
	}
	return ns
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}
