//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestResources tries what a container may use, as the kernel sees it, and the logs of one that writes a lot.
func TestResources(t *testing.T) {
	t.Parallel()
	t.Run("Limits", func(t *testing.T) {
		s := newSpace(t)
		s.apply(podOf("web", "terminationGracePeriodSeconds: 1", "containers:",
			container("guaranteed", forever, "resources: {limits: {cpu: 500m, memory: 64Mi}}"), container("other", forever, "resources: {limits: {cpu: 250m, memory: 32Mi}}")))
		s.apply(podOf("burst", "terminationGracePeriodSeconds: 1", "containers:", container("main", forever, "resources: {requests: {cpu: 500m, memory: 32Mi}}")))
		s.apply(simple("best", forever))
		p := s.ready("web", "burst", "best")
		for name, class := range map[string]string{"web": "Guaranteed", "burst": "Burstable", "best": "BestEffort"} {
			if got := s.kubectl("get", "pod", name, "-o", "jsonpath={.status.qosClass}"); got != class {
				t.Errorf("pod %s is %s, want %s", name, got, class)
			}
		}
		for name, v := range map[string]struct {
			container string
			memory    string
			cpu       string
		}{"first": {"guaranteed", "67108864", "50000"}, "second": {"other", "33554432", "25000"}} {
			proc := s.mainProcess(p, v.container)
			if got := cgroupValue(t, proc.cgroup, "memory", "memory.limit_in_bytes", "memory.max"); got != v.memory {
				t.Errorf("%s: memory limit %s, want %s", name, got, v.memory)
			}
			if got := cgroupValue(t, proc.cgroup, "cpu", "cpu.cfs_quota_us", "cpu.max"); got != v.cpu && got != v.cpu+" 100000" {
				t.Errorf("%s: cpu quota %s, want %s", name, got, v.cpu)
			}
		}
		for name, want := range map[string]string{"web": "-997", "best": "1000"} {
			pod := s.pod(name)
			score := strings.TrimSpace(readFile(t, fmt.Sprintf("/proc/%d/oom_score_adj", s.mainProcess(pod, pod.Spec.Containers[0].Name).pid)))
			if score != want && !(name == "web" && own(t) != "-997" && score != "") {
				t.Errorf("pod %s has the OOM score %s, want %s", name, score, want)
			}
		}
	})
	t.Run("LogRotation", func(t *testing.T) {
		s := newSpace(t)
		s.apply(simple("chatty", "i=0; while [ $i -lt 16 ]; do yes 'all work and no play makes jack a dull boy' | head -c 1048576; i=$((i+1)); done; echo; echo the end; "+
			"while [ ! -e /go ]; do sleep 0.1; done; echo more; "+forever))
		uid := string(s.ready("chatty").UID)
		within(t, 60*time.Second, "more than one log file", func() error {
			var sizes []int64
			filepath.WalkDir(s.c.host.Root, func(path string, d os.DirEntry, err error) error {
				if err == nil && strings.Contains(path, uid) && strings.Contains(d.Name(), ".log") && d.Type().IsRegular() {
					if fi, err := d.Info(); err == nil {
						sizes = append(sizes, fi.Size())
					}
				}
				return nil
			})
			if len(sizes) < 2 {
				return fmt.Errorf("%v", sizes)
			}
			return nil
		})
		s.sh("chatty", "", "touch /go")
		s.eventually("the log after its rotation", func() error {
			if got := s.kubectl("logs", "chatty", "--tail=2"); got != "the end\nmore\n" {
				return fmt.Errorf("%q", got)
			}
			return nil
		})
	})
}

// own is what this process's own OOM score is: no process may give itself a lower one without a capability that some machines withhold.
func own(t testing.TB) string { return strings.TrimSpace(readFile(t, "/proc/self/oom_score_adj")) }

// cgroupValue reads a value of a process's cgroup, of version 1 or 2; file is /proc/<pid>/cgroup.
func cgroupValue(t testing.TB, file, controller, v1, v2 string) string {
	t.Helper()
	for line := range strings.Lines(file) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		for _, c := range strings.Split(f[1], ",") {
			if c == controller {
				return strings.TrimSpace(readFile(t, filepath.Join("/sys/fs/cgroup", controller, f[2], v1)))
			}
		}
	}
	for line := range strings.Lines(file) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return strings.TrimSpace(readFile(t, filepath.Join("/sys/fs/cgroup", path, v2)))
		}
	}
	t.Error("no cgroup")
	return ""
}
