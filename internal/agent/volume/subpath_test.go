package volume

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"carob.dev/carob/internal/agent/volume/mountpoint"
)

func TestSubPath(t *testing.T) {
	f := newFixture(t, emptyDirVolume(corev1.EmptyDirVolumeSource{}))
	root := f.setup(t)["v"].Path
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("no"), 0o600),
		os.Mkdir(filepath.Join(root, "dir"), 0o755), os.WriteFile(filepath.Join(root, "dir/file"), []byte("yes"), 0o644),
		os.Symlink("dir", filepath.Join(root, "inner")), os.Symlink("../../../../../../../../../../"+outside, filepath.Join(root, "up")),
		os.Symlink(outside, filepath.Join(root, "abs")), os.Symlink(outside+"/new", filepath.Join(root, "dangling")))
	for _, tc := range []struct{ sub, want string }{
		{"dir", ""}, {"dir/file", ""}, {"inner/file", ""}, {"made/on/demand", ""},
		{"up", "not within volume path"}, {"up/secret", "not within volume path"}, {"abs", "not within volume path"}, {"abs/x", "not within volume path"},
		{"dangling", "not within volume path"},
		{"dir/../../x", "must not contain '..'"}, {"/etc", "must not be an absolute path"},
		{"dir/file/x", "not a directory"},
	} {
		path, err := f.Resolve(t.Context(), f.pod, "c", corev1.VolumeMount{Name: "v", MountPath: "/v", SubPath: tc.sub})
		if tc.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tc.sub, err)
			} else if want := filepath.Join(f.cfg.Dir, "uid-1/volume-subpaths/v/c/0"); path != want {
				t.Errorf("%s: path %s, want %s", tc.sub, path, want)
			} else if same, err := sameFile(path, filepath.Join(root, tc.sub)); err != nil || !same {
				t.Errorf("%s: not the same file: %v", tc.sub, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %s", tc.sub, err, tc.want)
		}
	}
	if got := mode(t, filepath.Join(root, "made/on")); got.Perm() != 0o777 {
		t.Errorf("made with mode %v, the volume has 0777", got)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("made outside: %v, %v", entries, err)
	}
	if mounts, err := mountpoint.Below(f.cfg.Dir); err != nil || len(mounts) != 1 {
		t.Errorf("mounts: %v, %v; want one, the last", mounts, err)
	}
}

func TestSubPathOfConfigMap(t *testing.T) {
	f := newFixture(t, configMapVolume("cm"))
	f.setup(t)
	path, err := f.Resolve(t.Context(), f.pod, "c", corev1.VolumeMount{Name: "v", MountPath: "/v", SubPath: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "1" {
		t.Errorf("%q, %v", data, err)
	}
	whole, err := f.Resolve(t.Context(), f.pod, "c", corev1.VolumeMount{Name: "v", MountPath: "/v"})
	if want := filepath.Join(f.cfg.Dir, "uid-1/volumes/kubernetes.io~configmap/v"); err != nil || whole != want {
		t.Errorf("%s, %v", whole, err)
	}
	if _, err := f.Resolve(t.Context(), f.pod, "c", corev1.VolumeMount{Name: "none", MountPath: "/v"}); err == nil {
		t.Error("a volume that is not there was resolved")
	}
}

func sameFile(a, b string) (bool, error) {
	ia, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	ib, err := os.Stat(b)
	return os.SameFile(ia, ib), err
}
