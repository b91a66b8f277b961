package runtime

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// hostDevices is the device at a path, or all below a folder, without the terminals and the like that each container has of its own. Their
// paths are at or below inside.
func hostDevices(top, inside string) ([]specs.LinuxDevice, error) {
	top, err := filepath.EvalSymlinks(top)
	if err != nil {
		return nil, err
	}
	var list []specs.LinuxDevice
	err = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if path == top {
				return err
			}
			return nil // devices come and go
		}
		if d.IsDir() {
			switch path {
			case "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/hugepages":
				return fs.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil || info.Mode()&fs.ModeDevice == 0 || path == "/dev/console" || path == "/dev/ptmx" || strings.HasPrefix(path, "/dev/pts") {
			return nil
		}
		st := info.Sys().(*syscall.Stat_t)
		kind := "b"
		if info.Mode()&fs.ModeCharDevice != 0 {
			kind = "c"
		}
		mode, uid, gid := info.Mode().Perm(), st.Uid, st.Gid
		list = append(list, specs.LinuxDevice{Path: filepath.Join(inside, strings.TrimPrefix(path, top)), Type: kind, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
			FileMode: &mode, UID: &uid, GID: &gid})
		return nil
	})
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("%s is not a device", top)
	}
	return list, err
}
