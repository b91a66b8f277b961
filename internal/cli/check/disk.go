package check

import (
	"errors"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// noOverlay names the file systems that cannot hold overlay's upper folder.
var noOverlay = map[int64]string{
	unix.OVERLAYFS_SUPER_MAGIC: "an overlay itself", unix.NFS_SUPER_MAGIC: "NFS", unix.MSDOS_SUPER_MAGIC: "FAT", unix.V9FS_MAGIC: "9p",
	0x65735546: "FUSE", unix.ECRYPTFS_SUPER_MAGIC: "eCryptfs", unix.SQUASHFS_MAGIC: "squashfs", 0xff534d42: "CIFS", 0xfe534d42: "SMB",
}

// disk asks the nearest folder above root that exists.
func disk(root string) Disk {
	for dir := root; ; dir = filepath.Dir(dir) {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		if err == nil {
			return Disk{
				FreeBytes: st.Bavail * uint64(st.Bsize), FreeInodes: st.Ffree, InodesKnown: st.Files > 0,
				ReadOnly: st.Flags&unix.ST_RDONLY != 0, NoExec: st.Flags&unix.ST_NOEXEC != 0,
				Mount: mountPoint(dir), Type: noOverlay[int64(st.Type)],
			}
		}
		if !errors.Is(err, unix.ENOENT) || dir == "/" {
			return Disk{Err: err}
		}
	}
}

// mountPoint is the highest folder above dir on the same device.
func mountPoint(dir string) string {
	var here, above unix.Stat_t
	if unix.Stat(dir, &here) != nil {
		return dir
	}
	for dir != "/" {
		parent := filepath.Dir(dir)
		if unix.Stat(parent, &above) != nil || above.Dev != here.Dev {
			return dir
		}
		dir = parent
	}
	return dir
}
