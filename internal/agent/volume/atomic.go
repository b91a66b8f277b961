package volume

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/failpoint"
)

const (
	// dataLink leads to the folder that holds the current version.
	dataLink = "..data"
	// newLink is dataLink before it is moved into place.
	newLink = "..data_tmp"
)

// writeAtomic makes dir hold files, whole. Real files are in a folder ..<time>; ..data links to it, and each visible name links
// through ..data, so that one rename switches all of them. What an interrupted call left is completed or removed.
func writeAtomic(dir string, files payload, group *int64, now time.Time) error {
	if err := files.check(); err != nil {
		return err
	}
	current, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the link to the current version: %w", err)
	}
	if current == "" || filepath.Base(current) != current || !holds(filepath.Join(dir, current), files) {
		if current, err = writeVersion(dir, files, group, now); err != nil {
			return err
		}
	}
	failpoint.Hit("volume/switched")
	if err := showNames(dir, files, group); err != nil {
		return err
	}
	failpoint.Hit("volume/shown")
	return removeStale(dir, files, current)
}

// check refuses paths that would leave the volume or hide its machinery, in Kubernetes' words.
func (p payload) check() error {
	for name := range p {
		switch {
		case name == "":
			return fmt.Errorf("invalid path: must not be empty: %q", name)
		case path.IsAbs(name):
			return fmt.Errorf("invalid path: must be relative path: %s", name)
		case len(name) > unix.PathMax-1:
			return fmt.Errorf("invalid path: must be less than or equal to %d characters", unix.PathMax-1)
		case strings.HasPrefix(name, ".."):
			return fmt.Errorf("invalid path: must not start with '..': %s", name)
		}
		for _, part := range strings.Split(name, "/") {
			if part == ".." {
				return fmt.Errorf("invalid path: must not contain '..': %s", name)
			}
			if len(part) > 255 {
				return errors.New("invalid path: filenames must be less than or equal to 255 characters")
			}
		}
	}
	return nil
}

// holds says whether the folder has exactly these files.
func holds(dir string, files payload) bool {
	seen := 0
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		f, ok := files[rel]
		info, err := d.Info()
		if err != nil || !ok || !info.Mode().IsRegular() || info.Size() != int64(len(f.data)) || info.Mode().Perm()&fs.FileMode(f.mode).Perm() != fs.FileMode(f.mode).Perm() {
			return fs.SkipAll
		}
		data, err := os.ReadFile(p)
		if err != nil || !bytes.Equal(data, f.data) {
			return fs.SkipAll
		}
		seen++
		return nil
	})
	if err != nil || seen != len(files) {
		return false
	}
	// Any file that is not in files ended the walk early, unless it came last.
	count := 0
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			count++
		}
		return err
	})
	return err == nil && count == len(files)
}

// writeVersion writes files into a folder of their own and makes it the current one. It returns the folder's name.
func writeVersion(dir string, files payload, group *int64, now time.Time) (name string, err error) {
	version, err := os.MkdirTemp(dir, now.UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return "", fmt.Errorf("make a folder for the new version: %w", err)
	}
	defer func() {
		if err != nil {
			os.RemoveAll(version)
		}
	}()
	if err := os.Chmod(version, 0o755); err != nil {
		return "", err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := writeFile(version, name, files[name]); err != nil {
			return "", fmt.Errorf("write %s: %w", name, err)
		}
	}
	if err := setGroup(version, group); err != nil {
		return "", err
	}
	failpoint.Hit("volume/written")
	link := filepath.Join(dir, newLink)
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	name = filepath.Base(version)
	if err := os.Symlink(name, link); err != nil {
		return "", fmt.Errorf("link the new version: %w", err)
	}
	failpoint.Hit("volume/linked")
	if err := os.Rename(link, filepath.Join(dir, dataLink)); err != nil {
		os.Remove(link)
		return "", fmt.Errorf("switch to the new version: %w", err)
	}
	return name, nil
}

func writeFile(dir, name string, f file) error {
	full := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return err
	}
	mode := fs.FileMode(f.mode).Perm()
	if err := os.WriteFile(full, f.data, mode); err != nil {
		return err
	}
	if err := os.Chmod(full, mode); err != nil {
		return err
	}
	if f.user != nil {
		return os.Chown(full, int(*f.user), -1)
	}
	return nil
}

// showNames makes the visible links that are missing.
func showNames(dir string, files payload, group *int64) error {
	for name := range files {
		top, _, _ := strings.Cut(name, "/")
		link := filepath.Join(dir, top)
		target := path.Join(dataLink, top)
		have, err := os.Readlink(link)
		if err == nil && have == target {
			continue
		}
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			// Another link, or an empty folder that stood in for a file that was missing when a container mounted it.
			if err := os.Remove(link); err != nil {
				return fmt.Errorf("show %s: %w", top, err)
			}
		}
		if err := os.Symlink(target, link); err != nil {
			return fmt.Errorf("show %s: %w", top, err)
		}
	}
	if group == nil {
		return nil
	}
	return setGroup(dir, group)
}

// removeStale drops links that lead nowhere now and versions that are not current.
func removeStale(dir string, files payload, current string) error {
	tops := map[string]bool{}
	for name := range files {
		top, _, _ := strings.Cut(name, "/")
		tops[top] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		full := filepath.Join(dir, name)
		switch {
		case name == dataLink || name == current:
		case strings.HasPrefix(name, ".."):
			if err := os.RemoveAll(full); err != nil {
				return fmt.Errorf("remove an old version: %w", err)
			}
		case e.Type() == fs.ModeSymlink && !tops[name]:
			target, err := os.Readlink(full)
			if err == nil && strings.HasPrefix(target, dataLink+"/") {
				err = os.Remove(full)
			}
			if err != nil {
				return fmt.Errorf("remove %s: %w", name, err)
			}
		}
	}
	return nil
}
