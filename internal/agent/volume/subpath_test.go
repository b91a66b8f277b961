package volume

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
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

// TestSubPathAfterAnEdit holds that a file of a configMap can be mounted again, in its new version, after the one that was mounted has gone.
func TestSubPathAfterAnEdit(t *testing.T) {
	f := newFixture(t, configMapVolume("cm"))
	f.setup(t)
	mount := corev1.VolumeMount{Name: "v", MountPath: "/v", SubPath: "a"}
	for _, restart := range []bool{false, true} {
		for _, content := range []string{"2", "3", ""} {
			path, err := f.Resolve(t.Context(), f.pod, "c", mount)
			if err != nil {
				t.Fatal(err)
			}
			before, err := os.ReadFile(path)
			must(t, err)
			f.sources.configMaps["cm"] = &corev1.ConfigMap{Data: map[string]string{"a": content}}
			must(t, f.Update(t.Context(), f.pod))
			if now, err := os.ReadFile(path); err != nil || string(now) != string(before) {
				t.Errorf("what is mounted changed under the container: %q, %v", now, err)
			}
			if restart {
				f.Volumes = f.restart(t, f.cfg.Dir)
				f.setup(t)
			}
			if path, err = f.Resolve(t.Context(), f.pod, "c", mount); err != nil {
				t.Fatal(err)
			}
			if now, err := os.ReadFile(path); err != nil || string(now) != content {
				t.Errorf("after the edit: %q, want %q; %v", now, content, err)
			}
		}
	}
	delete(f.sources.configMaps["cm"].Data, "a")
	must(t, f.Update(t.Context(), f.pod))
	// The key is gone: as with kubelet, a folder stands in for what is not there. When the key comes back, so does the file.
	if path, err := f.Resolve(t.Context(), f.pod, "c", mount); err != nil || !mode(t, path).IsDir() {
		t.Errorf("a key that is gone is mounted, %v", err)
	}
	f.sources.configMaps["cm"] = &corev1.ConfigMap{Data: map[string]string{"a": "back"}}
	must(t, f.Update(t.Context(), f.pod))
	path, err := f.Resolve(t.Context(), f.pod, "c", mount)
	must(t, err)
	if now, err := os.ReadFile(path); err != nil || string(now) != "back" {
		t.Errorf("after the key came back: %q, %v", now, err)
	}
}

// TestSubPathRace has a container swap a folder for a link while the subPath is resolved: what is mounted is never outside the volume.
func TestSubPathRace(t *testing.T) {
	f := newFixture(t, emptyDirVolume(corev1.EmptyDirVolumeSource{}))
	root := f.setup(t)["v"].Path
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("no"), 0o600), os.MkdirAll(filepath.Join(root, "d"), 0o755),
		os.Symlink(outside, filepath.Join(root, "l")))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, filepath.Join(root, "d"), unix.AT_FDCWD, filepath.Join(root, "l"), unix.RENAME_EXCHANGE)
			}
		}
	}()
	got := 0
	for range 300 {
		path, err := f.Resolve(t.Context(), f.pod, "c", corev1.VolumeMount{Name: "v", MountPath: "/v", SubPath: "d/made"})
		if err != nil {
			continue
		}
		got++
		if same, err := sameFile(filepath.Dir(path), outside); err == nil && same {
			t.Fatal("outside")
		}
	}
	close(stop)
	<-done
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("made outside: %v, %v", entries, err)
	}
	t.Logf("%d of 300 could be resolved", got)
}

func sameFile(a, b string) (bool, error) {
	ia, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	ib, err := os.Stat(b)
	return os.SameFile(ia, ib), err
}
