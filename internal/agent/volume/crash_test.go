package volume

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const crashEnv = "CAROB_VOLUME_TEST_CRASH"

// TestKilledWhileSwitching kills the process at each step from one version of a configMap to the next. A reader sees all of one version or all of the
// other, and the next life of the agent completes the switch.
func TestKilledWhileSwitching(t *testing.T) {
	next := map[string]string{"a": "new", "d": "new"}
	if dir := os.Getenv(crashEnv); dir != "" {
		v := New(Config{Dir: dir, Sources: &fakeSources{configMaps: map[string]*corev1.ConfigMap{"cm": {Data: next}}}, Log: slog.New(slog.DiscardHandler)})
		v.Setup(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "uid-1"}, Spec: corev1.PodSpec{Volumes: []corev1.Volume{configMapVolume("cm")}}})
		t.Fatal("it lives")
	}
	for _, point := range []string{"volume/written", "volume/linked", "volume/switched", "volume/shown"} {
		t.Run(filepath.Base(point), func(t *testing.T) {
			f := newFixture(t, configMapVolume("cm"))
			f.sources.configMaps["cm"] = &corev1.ConfigMap{Data: map[string]string{"a": "old", "b": "old"}}
			dir := f.setup(t)["v"].Path
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestKilledWhileSwitching$")
			cmd.Env = append(os.Environ(), crashEnv+"="+f.cfg.Dir, "CAROB_FAILPOINT="+point)
			out, err := cmd.CombinedOutput()
			var ended *exec.ExitError
			if !errors.As(err, &ended) || ended.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the process was not killed: %v\n%s", err, out)
			}
			version := map[string]string{}
			entries, err := os.ReadDir(filepath.Join(dir, dataLink))
			must(t, err)
			for _, e := range entries {
				data, err := os.ReadFile(filepath.Join(dir, dataLink, e.Name()))
				must(t, err)
				version[e.Name()] = string(data)
			}
			old := map[string]string{"a": "old", "b": "old"}
			want := next
			if slices.Contains([]string{"volume/written", "volume/linked"}, point) {
				want = old
			}
			if diff := cmp.Diff(want, version); diff != "" {
				t.Errorf("after the kill: %s", diff)
			}
			if a, err := os.ReadFile(filepath.Join(dir, "a")); err != nil || string(a) != want["a"] {
				t.Errorf("a is %q, %v", a, err)
			}
			f.sources.configMaps["cm"] = &corev1.ConfigMap{Data: next}
			f.Volumes = f.restart(t, f.cfg.Dir)
			f.setup(t)
			if diff := cmp.Diff(next, visible(t, dir)); diff != "" {
				t.Errorf("after the next life: %s", diff)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 4 { // ..data, one version, two names
				t.Errorf("left over: %v, %v", entries, err)
			}
		})
	}
}

// TestReadOnlyDisk holds that each kind of volume fails with what the kernel says while the disk is read-only, and is made once it is not.
func TestReadOnlyDisk(t *testing.T) {
	for _, vol := range []corev1.Volume{configMapVolume("cm"), secretVolume("s"), emptyDirVolume(corev1.EmptyDirVolumeSource{}),
		emptyDirVolume(corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory})} {
		f := newFixture(t, vol)
		must(t, os.MkdirAll(f.cfg.Dir, 0o755), unix.Mount("tmpfs", f.cfg.Dir, "tmpfs", 0, ""), unix.Mount("", f.cfg.Dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		if _, err := f.Setup(t.Context(), f.pod); err == nil || !strings.Contains(err.Error(), `MountVolume.SetUp failed for volume "v" : `) || !errors.Is(err, unix.EROFS) {
			t.Errorf("%+v: %v", vol, err)
		}
		must(t, unix.Mount("", f.cfg.Dir, "", unix.MS_REMOUNT, ""))
		f.setup(t)
		must(t, f.Teardown(t.Context(), f.pod.UID), unix.Unmount(f.cfg.Dir, 0))
	}
}

// TestHostPathIsMended holds that a hostPath of the wrong type is taken once it is right.
func TestHostPathIsMended(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	f := newFixture(t, hostPathVolume(path, corev1.HostPathDirectory))
	must(t, os.WriteFile(path, nil, 0o600))
	if _, err := f.Setup(t.Context(), f.pod); err == nil || !strings.Contains(err.Error(), "is not a directory, it's a File") {
		t.Errorf("a file: %v", err)
	}
	must(t, os.Remove(path), os.Mkdir(path, 0o755))
	f.setup(t)
}

func TestMemorySize(t *testing.T) {
	pod := func(limits ...string) *corev1.Pod {
		p := &corev1.Pod{}
		for _, l := range limits {
			c := corev1.Container{}
			if l != "" {
				c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(l)}
			}
			p.Spec.Containers = append(p.Spec.Containers, c)
		}
		return p
	}
	for _, tc := range []struct {
		name        string
		pod         *corev1.Pod
		limit       string
		allocatable int64
		want        int64
	}{
		{"nothing", pod(""), "", 0, 0},
		{"the node", pod(""), "", 1000, 1000},
		{"its own", pod(""), "10", 1000, 10},
		{"its own is too much", pod(""), "5000", 1000, 1000},
		{"the Pod", pod("100", "50"), "", 1000, 150},
		{"the Pod, and its own is less", pod("100"), "20", 1000, 20},
		{"the Pod, and its own is more", pod("100"), "200", 1000, 100},
		{"a container without a limit", pod("100", ""), "", 1000, 1000},
		{"a Pod with more than the node", pod("5000"), "", 1000, 1000},
		{"zero is none", pod(""), "0", 1000, 1000},
	} {
		src := &corev1.EmptyDirVolumeSource{}
		if tc.limit != "" {
			src.SizeLimit = ptr(resource.MustParse(tc.limit))
		}
		if got := memorySize(tc.pod, src, tc.allocatable); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}
