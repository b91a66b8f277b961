// Package leak finds what a Carob left behind on a machine: processes, mounts, namespaces, links, nft tables, cgroups and files,
// looked for in the namespaces of every process. It finds by name, root and namespace, and asks no Carob.
package leak

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"carob.dev/carob/internal/config"
)

// Scope is where one Carob may have left something.
type Scope struct {
	// Root is its state folder.
	Root string
	// HolderPID is the process that pins the test host's namespaces; 0 if it ran on the machine itself.
	HolderPID int
	// Ignore are processes that may live in the host: the test's own registry, a kubectl.
	Ignore []int
	// KeepRoot says that the state folder itself may stay (after down, before uninstall).
	KeepRoot bool
}

// Leak is one thing that should not be there.
type Leak struct {
	// Kind is process, mount, namespace, link, nft, cgroup or file.
	Kind string
	What string
}

func (l Leak) String() string { return l.Kind + ": " + l.What }

// Find returns everything left in the scope, sorted.
func Find(s Scope) ([]Leak, error) {
	cfg := config.Default(s.Root)
	var leaks []Leak
	procs, err := processes()
	if err != nil {
		return nil, err
	}
	leaks = append(leaks, findProcesses(s, cfg, procs)...)
	leaks = append(leaks, findMounts(cfg, procs)...)
	leaks = append(leaks, findLinksAndTables(s, cfg)...)
	leaks = append(leaks, findCgroups(cfg)...)
	leaks = append(leaks, findFiles(s, cfg)...)
	sort.Slice(leaks, func(i, j int) bool { return leaks[i].String() < leaks[j].String() })
	return slices.Compact(leaks), nil
}

type process struct {
	pid           int
	comm, cmdline string
	exe, cgroup   string
	netns, mntns  string
	mounts        []string
}

func processes() ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var all []process
	seen := map[string]bool{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		dir := filepath.Join("/proc", e.Name())
		p := process{pid: pid, comm: strings.TrimSpace(read(dir + "/comm")), cgroup: read(dir + "/cgroup")}
		p.cmdline = strings.TrimSpace(strings.ReplaceAll(read(dir+"/cmdline"), "\x00", " "))
		p.exe, _ = os.Readlink(dir + "/exe")
		p.netns, _ = os.Readlink(dir + "/ns/net")
		if p.mntns, _ = os.Readlink(dir + "/ns/mnt"); p.mntns != "" && !seen[p.mntns] {
			seen[p.mntns] = true
			p.mounts = strings.Split(strings.TrimSpace(read(dir+"/mountinfo")), "\n")
		}
		all = append(all, p)
	}
	return all, nil
}

func read(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}

// findProcesses looks for processes that run from the root, stand in its cgroups, name it, or live in the host's namespaces or in
// namespaces that only a Carob's children have.
func findProcesses(s Scope, cfg config.Config, procs []process) []Leak {
	hostNet, hostMnt := "", ""
	if s.HolderPID != 0 {
		hostNet, _ = os.Readlink(fmt.Sprintf("/proc/%d/ns/net", s.HolderPID))
		hostMnt, _ = os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", s.HolderPID))
	}
	var leaks []Leak
	for _, p := range procs {
		if p.pid == s.HolderPID || slices.Contains(s.Ignore, p.pid) {
			continue
		}
		why := ""
		switch {
		case strings.HasPrefix(p.exe, cfg.Root+"/"):
			why = "runs from the root"
		case inCgroup(p.cgroup, cfg.CgroupRoot()):
			why = "stands in a cgroup of it"
		case hostNet != "" && p.netns == hostNet:
			why = "lives in the test host's network namespace"
		case hostMnt != "" && p.mntns == hostMnt:
			why = "lives in the test host's mount namespace"
		case strings.Contains(p.cmdline, cfg.Root+"/") || strings.Contains(p.cmdline, cfg.RunDir()+"/"):
			why = "names the root"
		default:
			continue
		}
		leaks = append(leaks, Leak{"process", fmt.Sprintf("%d %s (%s) %s", p.pid, p.comm, why, p.cmdline)})
	}
	return leaks
}

func inCgroup(file, root string) bool {
	for line := range strings.Lines(file) {
		if _, path, ok := cutLast(strings.TrimSpace(line), ":"); ok && (path == "/"+root || strings.HasPrefix(path, "/"+root+"/")) {
			return true
		}
	}
	return false
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// findMounts looks through every mount namespace that a process has, for mounts at or from the root or the run folder. A namespace
// file that is bound somewhere there is a pinned namespace.
func findMounts(cfg config.Config, procs []process) []Leak {
	var leaks []Leak
	for _, p := range procs {
		for _, line := range p.mounts {
			f := strings.Fields(line)
			if len(f) < 9 || !(within(f[4], cfg.Root) || within(f[4], cfg.RunDir()) || within(f[3], cfg.Root) || strings.Contains(line, cfg.Root+"/")) {
				continue
			}
			kind := "mount"
			if strings.Contains(line, " - nsfs ") {
				kind = "namespace"
			}
			leaks = append(leaks, Leak{kind, fmt.Sprintf("%s of %s, seen by process %d %s", f[4], f[3], p.pid, p.comm)})
		}
	}
	return leaks
}

func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// findLinksAndTables looks in the machine's and the host's network namespace.
func findLinksAndTables(s Scope, cfg config.Config) []Leak {
	var leaks []Leak
	in := func(where string, prefix []string, any bool) {
		run := func(args ...string) string {
			args = append(slices.Clone(prefix), args...)
			out, _ := exec.Command(args[0], args[1:]...).Output()
			return string(out)
		}
		for line := range strings.Lines(run("ip", "-o", "link")) {
			f := strings.Fields(line)
			name, _, _ := strings.Cut(strings.TrimSuffix(f[1], ":"), "@")
			if any && name != "lo" {
				leaks = append(leaks, Leak{"link", name + " in " + where})
			}
		}
		for line := range strings.Lines(run("nft", "list", "tables")) {
			f := strings.Fields(line)
			if len(f) == 3 && (any || f[2] == cfg.NFTable()) {
				leaks = append(leaks, Leak{"nft", "table " + f[1] + " " + f[2] + " in " + where})
			}
		}
	}
	in("the machine", nil, false)
	if s.HolderPID != 0 {
		in("the test host", []string{"nsenter", "--target", strconv.Itoa(s.HolderPID), "--net"}, true)
	}
	return leaks
}

// findCgroups looks under every controller of v1 and in the unified tree.
func findCgroups(cfg config.Config) []Leak {
	var leaks []Leak
	roots := []string{"/sys/fs/cgroup"}
	if f, err := os.Open("/proc/self/mounts"); err == nil {
		defer f.Close()
		for sc := bufio.NewScanner(f); sc.Scan(); {
			if m := strings.Fields(sc.Text()); len(m) > 2 && strings.HasPrefix(m[2], "cgroup") {
				roots = append(roots, m[1])
			}
		}
	}
	for _, r := range roots {
		top := filepath.Join(r, cfg.CgroupRoot())
		filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				leaks = append(leaks, Leak{"cgroup", path})
			}
			return nil
		})
	}
	return leaks
}

func findFiles(s Scope, cfg config.Config) []Leak {
	var leaks []Leak
	paths := []string{cfg.RunDir()}
	if !s.KeepRoot {
		paths = append(paths, cfg.Root)
	}
	for _, top := range paths {
		filepath.WalkDir(top, func(path string, _ fs.DirEntry, err error) error {
			if err == nil && len(leaks) < 50 {
				leaks = append(leaks, Leak{"file", path})
			}
			return nil
		})
	}
	return leaks
}
