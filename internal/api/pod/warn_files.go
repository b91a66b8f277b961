package pod

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// placed is a file of a volume and, in a projected volume, where it comes from.
type placed struct{ path, source string }

func (f placed) String() string {
	if f.source == "" {
		return fmt.Sprintf("%q", f.path)
	}
	return fmt.Sprintf("%q (%s)", f.path, f.source)
}

// files warns of volumes in which one file would hide another or lie inside it.
func (w *warnings) files(volumes []corev1.Volume) {
	for _, v := range volumes {
		switch {
		case v.ConfigMap != nil:
			w.overlaps(v.Name, fmt.Sprintf("ConfigMap %q", v.ConfigMap.Name), keyPaths(v.ConfigMap.Items, ""))
		case v.Secret != nil:
			w.overlaps(v.Name, fmt.Sprintf("Secret %q", v.Secret.SecretName), keyPaths(v.Secret.Items, ""))
		case v.DownwardAPI != nil:
			w.overlaps(v.Name, "DownwardAPI", filePaths(v.DownwardAPI.Items, ""))
		case v.Projected != nil:
			var all []placed
			for _, s := range v.Projected.Sources {
				switch {
				case s == corev1.VolumeProjection{}:
					w.list = append(w.list, fmt.Sprintf("volume %q (Projected) has no sources provided", v.Name))
				case s.ConfigMap != nil:
					all = append(all, keyPaths(s.ConfigMap.Items, fmt.Sprintf("ConfigMap %q", s.ConfigMap.Name))...)
				case s.Secret != nil:
					all = append(all, keyPaths(s.Secret.Items, fmt.Sprintf("Secret %q", s.Secret.Name))...)
				case s.DownwardAPI != nil:
					all = append(all, filePaths(s.DownwardAPI.Items, "DownwardAPI")...)
				case s.ServiceAccountToken != nil:
					all = append(all, placed{s.ServiceAccountToken.Path, "ServiceAccountToken"})
				}
			}
			w.overlaps(v.Name, "Projected", all)
		}
	}
}

func keyPaths(items []corev1.KeyToPath, source string) []placed {
	var all []placed
	for _, k := range items {
		all = append(all, placed{k.Path, source})
	}
	return all
}

func filePaths(items []corev1.DownwardAPIVolumeFile, source string) []placed {
	var all []placed
	for _, f := range items {
		all = append(all, placed{f.Path, source})
	}
	return all
}

func (w *warnings) overlaps(volume, kind string, files []placed) {
	for i := range files {
		files[i].path = strings.TrimRight(files[i].path, "/")
		a := files[i].path
		for _, o := range files[:i] {
			b := o.path
			if a == "" || b == "" || !strings.HasPrefix(a+"/", b+"/") && !strings.HasPrefix(b+"/", a+"/") {
				continue
			}
			w.list = append(w.list, fmt.Sprintf("volume %q (%s): overlapping paths: %s with %s", volume, kind, files[i], o))
		}
	}
}
