package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// setupHostPath checks that the node has what the volume says, and makes what it may make. A path without a type is made as a
// folder, 0755, when it is missing, as containerd does.
func setupHostPath(src *corev1.HostPathVolumeSource) error {
	if slices.Contains(strings.Split(filepath.ToSlash(src.Path), "/"), "..") {
		return fmt.Errorf("invalid HostPath `%s`: must not contain '..'", src.Path)
	}
	if !filepath.IsAbs(src.Path) {
		return fmt.Errorf("invalid HostPath `%s`: must be an absolute path", src.Path)
	}
	kind := corev1.HostPathUnset
	if src.Type != nil {
		kind = *src.Type
	}
	info, err := os.Stat(src.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil {
		switch kind {
		case corev1.HostPathUnset, corev1.HostPathDirectoryOrCreate:
			return os.MkdirAll(src.Path, 0o755)
		case corev1.HostPathFileOrCreate:
			f, err := os.OpenFile(src.Path, os.O_CREATE, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		}
	}
	return checkHostPath(src.Path, kind, info)
}

// hostPathKinds are what the types ask for: the name that messages have for it, and the type that a file of this kind has.
var hostPathKinds = map[corev1.HostPathType]struct {
	name string
	is   corev1.HostPathType
}{
	corev1.HostPathDirectoryOrCreate: {"directory", corev1.HostPathDirectory},
	corev1.HostPathDirectory:         {"directory", corev1.HostPathDirectory},
	corev1.HostPathFileOrCreate:      {"file", corev1.HostPathFile},
	corev1.HostPathFile:              {"file", corev1.HostPathFile},
	corev1.HostPathSocket:            {"socket file", corev1.HostPathSocket},
	corev1.HostPathCharDev:           {"character device", corev1.HostPathCharDev},
	corev1.HostPathBlockDev:          {"block device", corev1.HostPathBlockDev},
}

// checkHostPath compares what is at path (nil for nothing) with what the type asks for.
func checkHostPath(path string, kind corev1.HostPathType, info fs.FileInfo) error {
	if kind == corev1.HostPathUnset {
		return nil
	}
	want, ok := hostPathKinds[kind]
	if !ok {
		return fmt.Errorf("%s is an invalid volume type", kind)
	}
	if info == nil {
		return fmt.Errorf("hostPath type check failed, %[1]s is not a %[2]s, unable to determine its type: path %[1]q does not exist", path, want.name)
	}
	have, ok := fileKind(info.Mode())
	if !ok {
		return fmt.Errorf("hostPath type check failed, %s is not a %s, unable to determine its type: "+
			"only recognise file, directory, socket, block device and character device", path, want.name)
	}
	if have != want.is {
		return fmt.Errorf("hostPath type check failed: %s is not a %s, it's a %s", path, want.name, have)
	}
	return nil
}

func fileKind(mode fs.FileMode) (kind corev1.HostPathType, ok bool) {
	switch {
	case mode.IsDir():
		return corev1.HostPathDirectory, true
	case mode.IsRegular():
		return corev1.HostPathFile, true
	case mode&fs.ModeSocket != 0:
		return corev1.HostPathSocket, true
	case mode&fs.ModeCharDevice != 0:
		return corev1.HostPathCharDev, true
	case mode&fs.ModeDevice != 0:
		return corev1.HostPathBlockDev, true
	}
	return "", false
}
