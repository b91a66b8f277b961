package volume

import (
	"io/fs"
	"os"
	"path/filepath"
)

// What a group gets, besides passage through folders, on volumes that containers may write to and on those that they may only read.
const (
	groupWrites fs.FileMode = 0o660
	groupReads  fs.FileMode = 0o440
)

// setGroup gives dir and all in it to group with the permissions of grant, folders with the set-group-ID bit so that new files
// belong to it too. It follows no symbolic link. A nil group changes nothing.
func setGroup(dir string, group *int64, grant fs.FileMode) error {
	if group == nil {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := os.Lchown(path, -1, int(*group)); err != nil {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := info.Mode() | grant
		if d.IsDir() {
			mode |= 0o110 | fs.ModeSetgid
		}
		return os.Chmod(path, mode)
	})
}

// setGroupOnce is setGroup for a folder that containers write to: when the folder itself is in order nothing below is looked at.
func setGroupOnce(dir string, group *int64) error {
	if group == nil {
		return nil
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if gid, ok := groupOf(info); ok && gid == *group && info.Mode()&fs.ModeSetgid != 0 && info.Mode().Perm()&0o770 == 0o770 {
		return nil
	}
	return setGroup(dir, group, groupWrites)
}
