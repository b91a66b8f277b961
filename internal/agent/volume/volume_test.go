package volume

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"carob.dev/carob/internal/agent/volume/mountpoint"
)

func TestEmptyDir(t *testing.T) {
	f := newFixture(t, emptyDirVolume(corev1.EmptyDirVolumeSource{}))
	f.pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr[int64](2000)}
	dir := f.setup(t)["v"].Path
	if want := filepath.Join(f.cfg.Dir, "uid-1/volumes/kubernetes.io~empty-dir/v"); dir != want {
		t.Errorf("path %s, want %s", dir, want)
	}
	if got := mode(t, dir); got != os.ModeDir|os.ModeSetgid|0o777 {
		t.Errorf("mode %v", got)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil || st.Gid != 2000 {
		t.Errorf("group %d, %v", st.Gid, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "kept"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, os.Chmod(dir, 0o700))
	f.setup(t)
	if got, top := mode(t, filepath.Join(dir, "kept")), mode(t, dir).Perm(); got != 0o600 || top != 0o700 {
		t.Errorf("a second Setup changed what the container did: %v, %v", got, top)
	}
}

func TestEmptyDirInMemory(t *testing.T) {
	f := newFixture(t, emptyDirVolume(corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: ptr(resource.MustParse("1Mi"))}))
	for range 2 {
		dir := f.setup(t)["v"].Path
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil || st.Type != unix.TMPFS_MAGIC || int64(st.Blocks)*st.Bsize != 1<<20 {
			t.Errorf("statfs: %+v, %v", st, err)
		}
		if mounts, _ := mountpoint.Below(dir); len(mounts) != 1 {
			t.Errorf("mounts: %v", mounts)
		}
		if got := mode(t, dir); got != os.ModeDir|os.ModeSticky|0o777 {
			t.Errorf("mode %v", got)
		}
	}
}

func TestEmptyDirInHugePages(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/mm/hugepages/hugepages-2048kB"); err != nil {
		t.Skip("this kernel has no huge pages of 2 MiB")
	}
	for _, medium := range []corev1.StorageMedium{"HugePages", "HugePages-2Mi"} {
		f := newFixture(t, emptyDirVolume(corev1.EmptyDirVolumeSource{Medium: medium, Mode: ptr[int32](0o1770)}))
		f.pod.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"hugepages-2Mi": resource.MustParse("4Mi")}
		for range 2 {
			dir := f.setup(t)["v"].Path
			var st unix.Statfs_t
			if err := unix.Statfs(dir, &st); err != nil || st.Type != unix.HUGETLBFS_MAGIC || st.Bsize != 2<<20 {
				t.Errorf("statfs: %+v, %v", st, err)
			}
			if got := mode(t, dir); got != os.ModeDir|os.ModeSticky|0o770 {
				t.Errorf("mode %v", got)
			}
		}
	}
}

func TestHostPath(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(dir, "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	missing := filepath.Join(dir, "missing")
	for _, tc := range []struct {
		path string
		kind corev1.HostPathType
		want string
	}{
		{dir, "", ""},
		{filepath.Join(dir, "x/new"), "", ""},
		{filepath.Join(dir, "y/new"), "DirectoryOrCreate", ""},
		{filepath.Join(dir, "newfile"), "FileOrCreate", ""},
		{dir, "Directory", ""},
		{file, "File", ""},
		{sock, "Socket", ""},
		{"/dev/null", "CharDevice", ""},
		{missing, "Directory", `hostPath type check failed, ` + missing + ` is not a directory, unable to determine its type: path "` + missing + `" does not exist`},
		{file, "Directory", "hostPath type check failed: " + file + " is not a directory, it's a File"},
		{dir, "FileOrCreate", "hostPath type check failed: " + dir + " is not a file, it's a Directory"},
		{file, "Socket", "hostPath type check failed: " + file + " is not a socket file, it's a File"},
		{"/dev/null", "BlockDevice", "hostPath type check failed: /dev/null is not a block device, it's a CharDevice"},
		{dir, "Odd", "Odd is an invalid volume type"},
		{dir + "/../x", "", "invalid HostPath `" + dir + "/../x`: must not contain '..'"},
	} {
		f := newFixture(t, hostPathVolume(tc.path, tc.kind))
		_, err := f.Setup(t.Context(), f.pod)
		want := ""
		if tc.want != "" {
			want = `MountVolume.SetUp failed for volume "v" : ` + tc.want
		}
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s %q:\n got %s\nwant %s", tc.path, tc.kind, got, want)
		}
	}
	if got := mode(t, filepath.Join(dir, "x/new")); got != os.ModeDir|0o755 {
		t.Errorf("made with mode %v", got)
	}
	if got := mode(t, filepath.Join(dir, "newfile")); got != 0o644 {
		t.Errorf("made with mode %v", got)
	}
}

func TestConfigMapFollowsItsObject(t *testing.T) {
	f := newFixture(t, configMapVolume("cm"))
	m := f.setup(t)["v"]
	if !m.ReadOnly {
		t.Error("not read-only")
	}
	if diff := cmp.Diff(map[string]string{"a": "1", "b": "2", "c": "\x00\x01"}, visible(t, m.Path)); diff != "" {
		t.Error(diff)
	}
	before, _ := os.Readlink(filepath.Join(m.Path, dataLink))
	if !strings.HasPrefix(before, "..2026_01_02_03_04_05.") {
		t.Errorf("version folder %s", before)
	}
	if err := f.Update(t.Context(), f.pod); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.Readlink(filepath.Join(m.Path, dataLink)); after != before {
		t.Error("an update without change wrote")
	}
	f.sources.configMaps["cm"] = &corev1.ConfigMap{Data: map[string]string{"b": "3", "d": "4"}}
	if err := f.Update(t.Context(), f.pod); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"b": "3", "d": "4"}, visible(t, m.Path)); diff != "" {
		t.Error(diff)
	}
	if _, err := os.Stat(filepath.Join(m.Path, before)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old version is still there: %v", err)
	}
	delete(f.sources.configMaps, "cm")
	if err := f.Update(t.Context(), f.pod); err == nil {
		t.Error("no error for a source that is gone")
	}
	if diff := cmp.Diff(map[string]string{"b": "3", "d": "4"}, visible(t, m.Path)); diff != "" {
		t.Error(diff)
	}
}

func TestAnInterruptedSwitchIsCompleted(t *testing.T) {
	for name, breakIt := range map[string]func(t *testing.T, dir string){
		"before the rename": func(t *testing.T, dir string) {
			must(t, os.Mkdir(filepath.Join(dir, "..2026_01_01_00_00_00.1"), 0o755), os.WriteFile(filepath.Join(dir, "..2026_01_01_00_00_00.1/a"), []byte("half"), 0o644),
				os.Symlink("..2026_01_01_00_00_00.1", filepath.Join(dir, newLink)))
		},
		"before the names are shown": func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Join(dir, "a")), os.Symlink("..data/gone", filepath.Join(dir, "gone")))
		},
		"current version missing": func(t *testing.T, dir string) {
			current, err := os.Readlink(filepath.Join(dir, dataLink))
			must(t, err, os.RemoveAll(filepath.Join(dir, current)))
		},
		"current version damaged": func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "..data/extra"), nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, configMapVolume("cm"))
			dir := f.setup(t)["v"].Path
			breakIt(t, dir)
			f.Volumes = f.restart(t, f.cfg.Dir)
			f.setup(t)
			if diff := cmp.Diff(map[string]string{"a": "1", "b": "2", "c": "\x00\x01"}, visible(t, dir)); diff != "" {
				t.Error(diff)
			}
			entries, err := os.ReadDir(dir)
			must(t, err)
			if len(entries) != 5 { // ..data, one version, three names
				t.Errorf("left over: %v", entries)
			}
		})
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestMissingSources(t *testing.T) {
	item := func(v corev1.Volume, key string, optional bool) corev1.Volume {
		items := []corev1.KeyToPath{{Key: key, Path: "dir/file", Mode: ptr[int32](0o600)}}
		if v.ConfigMap != nil {
			v.ConfigMap.Items, v.ConfigMap.Optional = items, &optional
		} else {
			v.Secret.Items, v.Secret.Optional = items, &optional
		}
		return v
	}
	for _, tc := range []struct {
		name   string
		volume corev1.Volume
		want   string
	}{
		{"no ConfigMap", configMapVolume("x"), `configmap "x" not found`},
		{"no Secret", secretVolume("x"), `secret "x" not found`},
		{"no key", item(configMapVolume("cm"), "nope", false), "configmap references non-existent config key: nope"},
		{"no secret key", item(secretVolume("s"), "nope", false), "references non-existent secret key: nope"},
		{"optional key", item(configMapVolume("cm"), "nope", true), ""},
		{"optional Secret", item(secretVolume("x"), "nope", true), ""},
		{"key there", item(secretVolume("s"), "key", false), ""},
		{"not supported", corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{RBD: &corev1.RBDVolumeSource{}}}, "this kind of volume is not supported"},
		{"huge pages", emptyDirVolume(corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumHugePages}), "medium HugePages: hugePages storage requested, but there is no resource request for huge pages"},
		{"odd medium", emptyDirVolume(corev1.EmptyDirVolumeSource{Medium: "Tape"}), `unknown storage medium "Tape"`},
		{"odd page size", emptyDirVolume(corev1.EmptyDirVolumeSource{Medium: "HugePages-x"}), `storage medium "HugePages-x": ` + resource.ErrFormatWrong.Error()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t, tc.volume)
			_, err := f.Setup(t.Context(), f.pod)
			got := ""
			var failed *Error
			if errors.As(err, &failed) {
				got = failed.Err.Error()
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestSecretIsInMemoryWithModeAndGroup(t *testing.T) {
	f := newFixture(t, secretVolume("s"))
	f.pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr[int64](3000)}
	dir := f.setup(t)["v"].Path
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		t.Errorf("not on tmpfs: %v", err)
	}
	if got := mode(t, filepath.Join(dir, "key")); got != 0o440 {
		t.Errorf("mode %v, want 0440: 0400 and what the group needs", got)
	}
	var fileStat unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "key"), &fileStat); err != nil || fileStat.Gid != 3000 {
		t.Errorf("group %d, %v", fileStat.Gid, err)
	}
}

func TestProjected(t *testing.T) {
	src := corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: ptr[int32](0o644),
		Sources: []corev1.VolumeProjection{
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, Items: []corev1.KeyToPath{{Key: "a", Path: "conf/a"}}}},
			{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}},
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr[int64](1000)}},
		},
	}}}
	f := newFixture(t, src)
	asked := 0
	f.cfg.Token = func(_ context.Context, pod *corev1.Pod, spec authenticationv1.TokenRequestSpec) (*authenticationv1.TokenRequestStatus, error) {
		asked++
		if spec.BoundObjectRef.UID != pod.UID {
			t.Errorf("token bound to %v", spec.BoundObjectRef)
		}
		return &authenticationv1.TokenRequestStatus{Token: strings.Repeat("t", asked), ExpirationTimestamp: metav1.NewTime(f.clock.Now().Add(1000 * time.Second))}, nil
	}
	dir := f.setup(t)["v"].Path
	want := map[string]string{"conf/a": "1", "key": "hidden", "labels": `app="x"`, "token": "t"}
	if diff := cmp.Diff(want, visible(t, dir)); diff != "" {
		t.Error(diff)
	}
	f.pod.Labels["app"] = "y"
	f.clock.SetTime(f.clock.Now().Add(700 * time.Second))
	must(t, f.Update(t.Context(), f.pod))
	want["labels"] = `app="y"`
	if diff := cmp.Diff(want, visible(t, dir)); diff != "" || asked != 1 {
		t.Error(diff, asked)
	}
	if at, ok := f.RefreshAt(f.pod.UID); !ok || at.Sub(f.clock.Now()) != 100*time.Second {
		t.Errorf("RefreshAt %v, %v", at, ok)
	}
	f.clock.SetTime(f.clock.Now().Add(200 * time.Second))
	must(t, f.Update(t.Context(), f.pod))
	if got := visible(t, dir)["token"]; got != "tt" {
		t.Errorf("token not renewed when a fifth of its life is left: %s", got)
	}
}

func TestNestedMountpoints(t *testing.T) {
	f := newFixture(t, configMapVolume("cm"))
	f.pod.Spec.Containers[0].VolumeMounts = append(f.pod.Spec.Containers[0].VolumeMounts,
		corev1.VolumeMount{Name: "other", MountPath: "/v/in/side"}, corev1.VolumeMount{Name: "third", MountPath: "/v/in/side/deeper"})
	dir := f.setup(t)["v"].Path
	if got := mode(t, filepath.Join(dir, "in/side")); !got.IsDir() {
		t.Errorf("mode %v", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "in/side/deeper")); err == nil {
		t.Error("made a folder in a volume that is nested itself")
	}
}

func TestTeardown(t *testing.T) {
	host := t.TempDir()
	must(t, os.WriteFile(filepath.Join(host, "precious"), nil, 0o600))
	secret := secretVolume("s")
	empty := emptyDirVolume(corev1.EmptyDirVolumeSource{})
	empty.Name = "e"
	hp := hostPathVolume(host, "")
	hp.Name = "h"
	f := newFixture(t, secret, empty, hp)
	dir := f.setup(t)["e"].Path
	must(t, os.Symlink(host, filepath.Join(dir, "link")))
	for _, m := range []corev1.VolumeMount{{Name: "h", MountPath: "/h", SubPath: "made"}, {Name: "h", MountPath: "/h", SubPath: "precious"}, {Name: "e", MountPath: "/e", SubPath: "x/y"}} {
		if _, err := f.Resolve(t.Context(), f.pod, "c", m); err != nil {
			t.Fatal(err)
		}
	}
	f.Volumes = f.restart(t, f.cfg.Dir)
	if uids, err := f.Pods(); err != nil || len(uids) != 1 {
		t.Errorf("Pods: %v, %v", uids, err)
	}
	for range 2 {
		must(t, f.Teardown(t.Context(), f.pod.UID))
	}
	if _, err := os.Stat(filepath.Join(f.cfg.Dir, "uid-1")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left over: %v", err)
	}
	if _, err := os.Stat(filepath.Join(host, "precious")); err != nil {
		t.Error(err)
	}
	if mounts, err := mountpoint.Below(f.cfg.Dir); err != nil || len(mounts) > 0 {
		t.Errorf("mounts left: %v, %v", mounts, err)
	}
	if err := f.Teardown(t.Context(), "../x"); err == nil {
		t.Error("a UID that leads elsewhere was accepted")
	}
}

func BenchmarkSetupAndTeardown(b *testing.B) {
	if os.Getenv(nodeEnv) == "" {
		b.Skip("needs root")
	}
	secret := secretVolume("s")
	v := New(Config{Dir: filepath.Join(b.TempDir(), "pods"), Sources: &fakeSources{secrets: map[string]*corev1.Secret{"s": {Data: map[string][]byte{"key": []byte("x")}}}}})
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}, Spec: corev1.PodSpec{Volumes: []corev1.Volume{secret}}}
	for b.Loop() {
		if _, err := v.Setup(b.Context(), pod); err != nil {
			b.Fatal(err)
		}
		if err := v.Teardown(b.Context(), "u"); err != nil {
			b.Fatal(err)
		}
	}
}

// TestRemoveMounted holds that volumes that are mounts go without a look at the others, also where mounts lie upon one another or in them, and
// that those on the disk stay.
func TestRemoveMounted(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	top := filepath.Join(t.TempDir(), "volumes")
	mounted, disk := filepath.Join(top, "projected", "token"), filepath.Join(top, "empty-dir", "data")
	for _, dir := range []string{mounted, disk} {
		must(t, os.MkdirAll(dir, 0o755))
	}
	must(t, os.WriteFile(filepath.Join(disk, "file"), nil, 0o644))
	for range 2 {
		must(t, unix.Mount("tmpfs", mounted, "tmpfs", 0, ""))
	}
	must(t, os.Mkdir(filepath.Join(mounted, "in"), 0o755))
	must(t, unix.Mount("tmpfs", filepath.Join(mounted, "in"), "tmpfs", 0, ""))
	must(t, New(Config{}).removeMounted(t.Context(), top))
	if _, err := os.Stat(mounted); !os.IsNotExist(err) {
		t.Errorf("the mounted volume: %v", err)
	}
	if _, err := os.Stat(filepath.Join(disk, "file")); err != nil {
		t.Error(err)
	}
	if left, err := mountpoint.Below(top); err != nil || len(left) > 0 {
		t.Errorf("still mounted: %v, %v", left, err)
	}
	must(t, New(Config{}).removeMounted(t.Context(), top))
}
