package volume

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountTmpfs puts a tmpfs on dir unless one is there. size is its limit in bytes, 0 for the kernel's default of half the
// memory. It is kept out of swap where the kernel can.
func mountTmpfs(dir string, r root, size int64) error {
	if there, err := hasMounted(dir, unix.TMPFS_MAGIC); err != nil || there {
		return err
	}
	opts := r.options()
	if size > 0 {
		opts = append(opts, "size="+strconv.FormatInt(size, 10))
	}
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, strings.Join(append(opts, "noswap"), ","))
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("tmpfs", dir, "tmpfs", 0, strings.Join(opts, ","))
	}
	if err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
	}
	return nil
}

// options are mount options of tmpfs and hugetlbfs.
func (r root) options() []string {
	opts := []string{"mode=" + strconv.FormatUint(uint64(r.mode), 8)}
	if r.group != nil {
		opts = append(opts, "gid="+strconv.FormatInt(*r.group, 10))
	}
	return opts
}

// mountHugePages puts a hugetlbfs with pages of the given size in bytes on dir unless one is there.
func mountHugePages(dir string, r root, page int64) error {
	if there, err := hasMounted(dir, unix.HUGETLBFS_MAGIC); err != nil || there {
		return err
	}
	opts := append(r.options(), "pagesize="+strconv.FormatInt(page, 10))
	if err := unix.Mount("nodev", dir, "hugetlbfs", 0, strings.Join(opts, ",")); err != nil {
		return fmt.Errorf("mount huge pages of %d bytes on %s: %w", page, dir, err)
	}
	return nil
}

// hasMounted says whether a file system of the kind with this magic number is mounted on dir.
func hasMounted(dir string, magic int64) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return false, fmt.Errorf("look at %s: %w", dir, err)
	}
	if int64(st.Type) != magic {
		return false, nil
	}
	return isMountpoint(dir)
}

// isMountpoint says whether something is mounted on path itself.
func isMountpoint(path string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, 0, &st)
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", path, err)
	}
	if st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
	}
	mounts, err := mountsBelow(path)
	return slices.Contains(mounts, path), err
}

// unmountBelow unmounts dir and everything under it, last mounted first.
func unmountBelow(dir string) error {
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(mounts) {
		if err := unmount(m); err != nil {
			return err
		}
	}
	if len(mounts) == 0 {
		return nil
	}
	left, err := mountsBelow(dir)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("still mounted: %s", strings.Join(left, ", "))
	}
	return err
}

// unmount unmounts what was mounted on path last. Nothing there is no error.
func unmount(path string) error {
	err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(path, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return nil
}

// mountsBelow lists the mount points at and under dir in the order they were mounted.
func mountsBelow(dir string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []string
	escaped := strings.ContainsAny(dir, " \t\n\\")
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if !escaped && !bytes.Contains(lines.Bytes(), []byte(dir)) {
			continue // most are of other Pods
		}
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		if point := unescape(fields[4]); point == dir || strings.HasPrefix(point, dir+"/") {
			out = append(out, point)
		}
	}
	return out, lines.Err()
}

// unescape undoes the \ooo that mountinfo writes for blanks and backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
