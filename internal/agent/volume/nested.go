package volume

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// makeNestedMountpoints makes the folders that other volumes will be mounted on inside this one, for containers get it read-only.
func makeNestedMountpoints(dir, volume string, pod *corev1.Pod) error {
	for _, nested := range nestedMountpoints(volume, pod) {
		if strings.HasPrefix(nested, "..") {
			return fmt.Errorf("volume mount %q in %q starts with '..'", nested, volume)
		}
		if err := os.MkdirAll(filepath.Join(dir, nested), 0o755); err != nil {
			return fmt.Errorf("unable to create nested volume mountpoints: %w", err)
		}
	}
	return nil
}

// nestedMountpoints are the mount points of other mounts that lie in the volume, as paths in it.
func nestedMountpoints(volume string, pod *corev1.Pod) []string {
	var out []string
	for _, c := range allContainers(pod) {
		for _, m := range c.mounts {
			if m.Name != volume || m.SubPath != "" || m.SubPathExpr != "" {
				continue
			}
			for _, other := range c.mounts {
				if rel, ok := within(m.MountPath, other.MountPath); ok && closest(c.mounts, other.MountPath) == path.Clean(m.MountPath) {
					out = append(out, rel)
				}
			}
		}
	}
	return out
}

// closest is the mount point that p lies directly in.
func closest(mounts []corev1.VolumeMount, p string) string {
	best := ""
	for _, m := range mounts {
		if _, ok := within(m.MountPath, p); ok && len(path.Clean(m.MountPath)) > len(best) {
			best = path.Clean(m.MountPath)
		}
	}
	return best
}

// within returns p as seen from dir, if it is below it.
func within(dir, p string) (rel string, ok bool) {
	rel, ok = strings.CutPrefix(path.Clean(p), strings.TrimSuffix(path.Clean(dir), "/")+"/")
	return rel, ok && rel != ""
}
