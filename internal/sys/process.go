package sys

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

// Process is what the kernel tells of one process.
type Process struct {
	PID, PPID int
	// Comm is the name of at most 15 bytes; Args the whole command line, empty for a zombie.
	Comm string
	Args []string
	// RSS is the resident memory, in bytes.
	RSS int64
	// Cgroups are its paths, one for each hierarchy.
	Cgroups []string
	// Namespaces maps net, ipc, uts, pid, mnt, user, cgroup to the identity that the kernel prints, such as net:[4026531840].
	Namespaces map[string]string
}

// namespaceKinds are the links of /proc/<pid>/ns that Processes reads.
var namespaceKinds = []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"}

// Processes reads all live processes from /proc that keep accepts by their PIDs and cgroups. One that ends while it is being read is left out.
func Processes(keep func(pid int, cgroups []string) bool) ([]Process, error) {
	return processesIn(os.DirFS("/proc"), keep, os.Readlink)
}

func processesIn(proc fs.FS, keep func(int, []string) bool, readlink func(string) (string, error)) ([]Process, error) {
	entries, err := fs.ReadDir(proc, ".")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var all []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		raw, err := fs.ReadFile(proc, path.Join(e.Name(), "cgroup"))
		if err != nil {
			continue
		}
		cgroups := parseCgroups(string(raw))
		if !keep(pid, cgroups) {
			continue
		}
		p := Process{PID: pid, Cgroups: cgroups, Namespaces: map[string]string{}}
		stat, err := fs.ReadFile(proc, path.Join(e.Name(), "stat"))
		if err != nil || !p.parseStat(string(stat)) {
			continue
		}
		if status, err := fs.ReadFile(proc, path.Join(e.Name(), "status")); err == nil {
			p.parseRSS(string(status))
		}
		cmdline, _ := fs.ReadFile(proc, path.Join(e.Name(), "cmdline"))
		for arg := range bytes.SplitSeq(bytes.TrimRight(cmdline, "\x00"), []byte{0}) {
			p.Args = append(p.Args, string(arg))
		}
		if len(cmdline) == 0 {
			p.Args = nil
		}
		for _, k := range namespaceKinds {
			if id, err := readlink("/proc/" + e.Name() + "/ns/" + k); err == nil {
				p.Namespaces[k] = id
			}
		}
		all = append(all, p)
	}
	return all, nil
}

// parseCgroups takes the path out of each "id:controllers:/path" line.
func parseCgroups(file string) []string {
	var paths []string
	for line := range strings.Lines(file) {
		if parts := strings.SplitN(strings.TrimSpace(line), ":", 3); len(parts) == 3 {
			paths = append(paths, parts[2])
		}
	}
	return paths
}

// parseStat reads "pid (comm) state ppid …": comm may hold spaces and parentheses, so its end is the last one.
func (p *Process) parseStat(s string) bool {
	open, shut := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open < 0 || shut < open {
		return false
	}
	p.Comm = s[open+1 : shut]
	f := strings.Fields(s[shut+1:])
	if len(f) < 22 {
		return false
	}
	ppid, err1 := strconv.Atoi(f[1])
	pages, err2 := strconv.ParseInt(f[21], 10, 64)
	p.PPID, p.RSS = ppid, pages*int64(os.Getpagesize())
	return err1 == nil && err2 == nil
}

// parseRSS takes the exact figure, which status has; that in stat lags behind by some pages, which is all that a small process has.
func (p *Process) parseRSS(status string) {
	for line := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			if kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")), 10, 64); err == nil {
				p.RSS = kib << 10
			}
			return
		}
	}
}
