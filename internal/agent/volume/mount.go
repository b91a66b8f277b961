package volume

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/agent/volume/mountpoint"
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
	return mountpoint.Is(dir)
}
