package sys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/failpoint"
)

// cgroupMount is where every distribution mounts the cgroup file systems.
const cgroupMount = "/sys/fs/cgroup"

// Cgroups says how this machine's cgroups are mounted.
type Cgroups struct {
	// Unified is true where /sys/fs/cgroup itself is cgroup v2.
	Unified bool
	// Hybrid is true where v1 controllers and a v2 tree at /sys/fs/cgroup/unified are both mounted.
	Hybrid bool
	// V1 maps a controller (and name=… trees) to its folder; empty on v2.
	V1 map[string]string
}

var cgroupLayout = sync.OnceValues(func() (Cgroups, error) {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Cgroups{}, err
	}
	return parseCgroupMounts(string(raw)), nil
})

// CgroupLayout reads how cgroups are mounted, once.
func CgroupLayout() (Cgroups, error) { return cgroupLayout() }

func parseCgroupMounts(mountinfo string) Cgroups {
	c := Cgroups{V1: map[string]string{}}
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		f, tail := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || len(tail) < 3 {
			continue
		}
		switch where := f[4]; {
		case tail[0] == "cgroup2" && where == cgroupMount:
			c.Unified = true
		case tail[0] == "cgroup2" && where == cgroupMount+"/unified":
			c.Hybrid = true
		case tail[0] == "cgroup" && filepath.Dir(where) == cgroupMount:
			for opt := range strings.SplitSeq(tail[2], ",") {
				switch opt {
				case "rw", "ro", "xattr", "clone_children", "noprefix":
				default:
					if !strings.HasPrefix(opt, "release_agent") {
						c.V1[opt] = where
					}
				}
			}
		}
	}
	return c
}

// Folders are the folders of the cgroup path, one for each hierarchy, sorted.
func (c Cgroups) Folders(path string) []string {
	if c.Unified {
		return []string{filepath.Join(cgroupMount, path)}
	}
	var all []string
	for _, root := range c.V1 {
		all = append(all, filepath.Join(root, path))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Folder is the folder of a path for one controller, empty if the machine does not have the controller.
func (c Cgroups) Folder(controller, path string) string {
	if c.Unified {
		return filepath.Join(cgroupMount, path)
	}
	if root, ok := c.V1[controller]; ok {
		return filepath.Join(root, path)
	}
	return ""
}

// SwapControl says whether the swap of cgroups can be limited; on v2 that shows in an existing one, whose path is asked for.
func (c Cgroups) SwapControl(path string) bool {
	file := filepath.Join(c.V1["memory"], "memory.memsw.limit_in_bytes")
	if c.Unified {
		file = filepath.Join(c.Folder("", path), "memory.swap.max")
	} else if c.V1["memory"] == "" {
		return false
	}
	_, err := os.Stat(file)
	return err == nil
}

// CgroupCreate makes the cgroup path (such as /carob/kubepods/burstable/pod1), and those above it, in every hierarchy and sets its
// limits. One that exists is kept and gets the limits.
func CgroupCreate(path string, r Resources) error {
	c, err := CgroupLayout()
	if err != nil {
		return err
	}
	if path = filepath.Clean("/" + path); path == "/" {
		return errors.New("make cgroup: the root cgroup is not ours")
	}
	if c.Unified {
		err = makeUnified(path)
	} else {
		err = c.makeV1(path)
	}
	if err != nil {
		return fmt.Errorf("make cgroup %s: %w", path, err)
	}
	return CgroupUpdate(path, r)
}

func makeUnified(path string) error {
	dir := cgroupMount
	for part := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		enableControllers(dir)
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// enableControllers hands what a cgroup has down to its children, one by one: a controller that cannot be handed down (real-time
// processes, a threaded cgroup) does not take the others with it.
func enableControllers(dir string) {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	on, _ := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	active := strings.Fields(string(on))
	for _, ctl := range strings.Fields(string(have)) {
		if !slices.Contains(active, ctl) {
			os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+ctl), 0)
		}
	}
}

func (c Cgroups) makeV1(path string) error {
	for _, dir := range c.Folders(path) {
		err := os.Mkdir(dir, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = os.MkdirAll(dir, 0o755)
		}
		if err != nil {
			return err
		}
		failpoint.Hit("sys/cgroup/made")
	}
	if root, ok := c.V1["cpuset"]; ok {
		return inheritCpuset(root, path)
	}
	return nil
}

// inheritCpuset gives new v1 cpuset groups the processors and memory nodes of the group above, without which they take no process.
func inheritCpuset(root, path string) error {
	dir := root
	for part := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		parent := dir
		dir = filepath.Join(dir, part)
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			own, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil || strings.TrimSpace(string(own)) != "" {
				continue
			}
			above, err := os.ReadFile(filepath.Join(parent, file))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, file), above, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// CgroupEnter moves a process into the cgroup, in every hierarchy.
func CgroupEnter(path string, pid int) error {
	c, err := CgroupLayout()
	if err != nil {
		return err
	}
	for _, dir := range c.Folders(path) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return fmt.Errorf("move process %d into cgroup %s: %w", pid, path, err)
		}
	}
	return nil
}

// CgroupProcs are the processes in the cgroup and those below it.
func CgroupProcs(path string) ([]int, error) {
	c, err := CgroupLayout()
	if err != nil {
		return nil, err
	}
	seen := map[int]bool{}
	var pids []int
	for _, top := range c.Folders(path) {
		filepath.WalkDir(top, func(dir string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return nil
			}
			raw, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			for f := range strings.FieldsSeq(string(raw)) {
				if pid, err := strconv.Atoi(f); err == nil && pid > 0 && !seen[pid] {
					seen[pid] = true
					pids = append(pids, pid)
				}
			}
			return nil
		})
	}
	slices.Sort(pids)
	return pids, nil
}

// CgroupKillAll kills every process in the cgroup and below: at once on v2; on v1, and on kernels before 5.14, frozen first, so that
// none can fork away.
// It does not wait for them to be gone.
func CgroupKillAll(path string) error {
	c, err := CgroupLayout()
	if err != nil {
		return err
	}
	state, freeze := filepath.Join(c.Folder("freezer", path), "freezer.state"), "FROZEN"
	if c.Unified {
		dir := filepath.Join(cgroupMount, path)
		err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
		if err == nil || !exists(dir) {
			return nil
		}
		if exists(filepath.Join(dir, "cgroup.kill")) { // kernels before 5.14 do not have it
			return fmt.Errorf("kill cgroup %s: %w", path, err)
		}
		state, freeze = filepath.Join(dir, "cgroup.freeze"), "1"
	}
	pids, err := CgroupProcs(path)
	if err != nil || len(pids) == 0 {
		return err
	}
	frozen := os.WriteFile(state, []byte(freeze), 0) == nil
	if pids, err = CgroupProcs(path); err == nil {
		for _, pid := range pids {
			if pid != os.Getpid() { // a thread of ours may stand there for a moment, and v1 names its process
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
	if frozen {
		err = errors.Join(err, CgroupThaw(path))
	}
	return err
}

// CgroupThaw lets the processes of a cgroup that somebody froze go on. One that is not frozen, or not there, is left as it is.
func CgroupThaw(path string) error {
	c, err := CgroupLayout()
	if err != nil {
		return err
	}
	file, thaw := filepath.Join(c.Folder("freezer", path), "freezer.state"), "THAWED"
	if c.Unified {
		file, thaw = filepath.Join(cgroupMount, path, "cgroup.freeze"), "0"
	}
	if err := os.WriteFile(file, []byte(thaw), 0); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("thaw cgroup %s: %w", path, err)
	}
	return nil
}

// CgroupRemove removes the cgroup and those below it. Processes that are still leaving are waited for, up to half a second; it fails
// with EBUSY if some stay. What does not exist is removed.
func CgroupRemove(path string) error {
	c, err := CgroupLayout()
	if err != nil {
		return err
	}
	var errs []error
	folders := c.Folders(path)
	if c.Hybrid { // runc makes a group in the second tree as well
		folders = append(folders, filepath.Join(cgroupMount, "unified", path))
	}
	for _, top := range folders {
		if err := removeCgroupTree(top); err != nil {
			errs = append(errs, fmt.Errorf("remove cgroup %s: %w", top, err))
		}
		failpoint.Hit("sys/cgroup/removed")
	}
	return errors.Join(errs...)
}

func removeCgroupTree(top string) error {
	err := unix.Rmdir(top)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	var dirs []string
	filepath.WalkDir(top, func(dir string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, dir)
		}
		return nil
	})
	slices.Reverse(dirs)
	for _, dir := range dirs {
		wait := time.Millisecond
		for spent := time.Duration(0); ; spent += wait {
			err := unix.Rmdir(dir)
			if err == nil || err == unix.ENOENT {
				break
			}
			if err != unix.EBUSY || spent > 500*time.Millisecond {
				return err
			}
			time.Sleep(wait)
			wait = min(2*wait, 20*time.Millisecond)
		}
	}
	return nil
}
