package sys

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// BornInCgroup runs f on a thread that stands in the cgroup in every v1 hierarchy, so that a process which f starts on it is born there.
// On v2 alone it only runs f: there a process is started in a cgroup by its descriptor.
//
// Moving a process takes the kernel's lock over all forks, which costs milliseconds whenever it has not been taken for a moment; a thread
// that moves itself takes none.
func BornInCgroup(path string, f func() error) error {
	c, err := CgroupLayout()
	if err != nil {
		return err
	}
	if len(c.V1) == 0 {
		return f()
	}
	tid := 0
	err = onNewThread(func() error {
		tid = unix.Gettid()
		for _, dir := range c.Folders(path) {
			if err := os.WriteFile(filepath.Join(dir, "tasks"), []byte("0"), 0); err != nil {
				return fmt.Errorf("enter cgroup %s: %w", path, err)
			}
		}
		return f()
	})
	// The thread is about to end; until it has, whoever looks into the cgroup finds this process.
	for range 2000 {
		if unix.Tgkill(os.Getpid(), tid, 0) != nil {
			break
		}
		time.Sleep(50 * time.Microsecond)
	}
	return err
}

// CgroupAnticipateMove makes the next move of a process between cgroups quick, if it comes within some ten milliseconds: it has the kernel
// take the lock that moves need, which waits until every processor has passed by and is then kept ready for a moment. It blocks meanwhile.
// pid is any process that stands in the cgroup; it stays there.
func CgroupAnticipateMove(path string, pid int) {
	c, err := CgroupLayout()
	if err != nil {
		return
	}
	if dirs := c.Folders(path); len(dirs) > 0 {
		os.WriteFile(filepath.Join(dirs[0], "cgroup.procs"), []byte(strconv.Itoa(pid)), 0) // nothing depends on it
	}
}
