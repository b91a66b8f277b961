package volume

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"carob.dev/carob/internal/agent/volume/mountpoint"
)

// claimed is a fixture whose one volume is a claim bound to a persistent volume of the given source.
func claimed(t *testing.T, source corev1.PersistentVolumeSource) (*fixture, *corev1.PersistentVolume) {
	t.Helper()
	f := newFixture(t, corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}})
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: source,
		ClaimRef: &corev1.ObjectReference{UID: "claim-1"}, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}}}
	f.sources.volumes = map[string]*corev1.PersistentVolume{"pv": pv}
	f.sources.claims = map[string]*corev1.PersistentVolumeClaim{"c": {ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "ns", UID: "claim-1"},
		Spec:   corev1.PersistentVolumeClaimSpec{VolumeName: "pv", AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}},
		Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound}}}
	return f, pv
}

func local(path string) corev1.PersistentVolumeSource {
	return corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}}
}

func TestLocalVolume(t *testing.T) {
	data := t.TempDir()
	must(t, os.WriteFile(filepath.Join(data, "kept"), []byte("x"), 0o600))
	f, pv := claimed(t, local(data))
	pv.Spec.MountOptions, pv.Annotations = []string{"noexec", "nosuid"}, map[string]string{groupAnnotation: "77"}
	for range 2 {
		m := f.setup(t)["v"]
		if got, err := os.ReadFile(filepath.Join(m.Path, "kept")); err != nil || string(got) != "x" || m.ReadOnly || m.Group == nil || *m.Group != 77 ||
			strings.Join(m.Options, " ") != "noexec nosuid" {
			t.Errorf("%q, %v, %+v", got, err, m)
		}
		if mounts, err := mountpoint.Below(m.Path); err != nil || len(mounts) != 1 {
			t.Errorf("mounts: %v, %v", mounts, err)
		}
		var st unix.Statfs_t
		if err := unix.Statfs(m.Path, &st); err != nil || st.Flags&(unix.ST_NOEXEC|unix.ST_NOSUID) != unix.ST_NOEXEC|unix.ST_NOSUID {
			t.Errorf("flags %x, %v", st.Flags, err)
		}
		f.Volumes = f.restart(t, f.cfg.Dir)
	}
	if sub, err := f.setupThenResolve(t, corev1.VolumeMount{Name: "v", MountPath: "/v", SubPath: "made"}); err != nil || mode(t, sub) != mode(t, filepath.Join(data, "made")) {
		t.Errorf("subPath %s: %v", sub, err)
	}
	must(t, f.Teardown(t.Context(), f.pod.UID))
	if mounts, err := mountpoint.Below(f.cfg.Dir); err != nil || len(mounts) > 0 {
		t.Errorf("left: %v, %v", mounts, err)
	}
	if _, err := os.Stat(filepath.Join(data, "kept")); err != nil {
		t.Errorf("the data: %v", err)
	}
}

func (f *fixture) setupThenResolve(t *testing.T, m corev1.VolumeMount) (string, error) {
	t.Helper()
	f.setup(t)
	return f.Resolve(t.Context(), f.pod, "c", m)
}

func TestClaimsThatLeadNowhere(t *testing.T) {
	const processing = "Unable to attach or mount volumes: unmounted volumes=[v], unattached volumes=[], failed to process volumes=[v]: error processing PVC ns/c: "
	for _, tc := range []struct {
		name    string
		change  func(f *fixture, pv *corev1.PersistentVolume)
		want    string
		pending bool
	}{
		{"no claim", func(f *fixture, _ *corev1.PersistentVolume) { f.sources.claims = nil },
			processing + `failed to fetch PVC from API server: persistentvolumeclaims "c" not found`, true},
		{"unbound", func(f *fixture, _ *corev1.PersistentVolume) { f.sources.claims["c"].Status.Phase = corev1.ClaimPending }, processing + "PVC is not bound", true},
		{"being deleted", func(f *fixture, _ *corev1.PersistentVolume) { f.sources.claims["c"].DeletionTimestamp = &metav1.Time{} }, processing + "PVC is being deleted", true},
		{"no volume", func(f *fixture, _ *corev1.PersistentVolume) { f.sources.volumes = nil },
			processing + `failed to fetch PV pv from API server: persistentvolumes "pv" not found`, true},
		{"bound to another", func(_ *fixture, pv *corev1.PersistentVolume) { pv.Spec.ClaimRef.UID = "other" },
			processing + "found PV object pv but its pv.Spec.ClaimRef.UID other does not point to claim.UID claim-1", true},
		{"a device in volumeMounts", func(_ *fixture, pv *corev1.PersistentVolume) { pv.Spec.VolumeMode = ptr(corev1.PersistentVolumeBlock) },
			"Unable to attach or mount volumes: unmounted volumes=[v], unattached volumes=[], failed to process volumes=[v]: volume v has volumeMode Block, but is specified in volumeMounts", true},
		{"another node's", func(_ *fixture, pv *corev1.PersistentVolume) {
			pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
				{Key: "kubernetes.io/hostname", Operator: corev1.NodeSelectorOpIn, Values: []string{"n2"}}}}}}}
		}, `MountVolume.NodeAffinity check failed for volume "pv" : no matching NodeSelectorTerms`, false},
		{"gone from the disk", func(_ *fixture, pv *corev1.PersistentVolume) { pv.Spec.Local.Path += "/gone" },
			`MountVolume.SetUp failed for volume "v" : path "/nowhere/gone" does not exist`, false},
		{"of a dead kind", func(_ *fixture, pv *corev1.PersistentVolume) {
			pv.Spec.PersistentVolumeSource = corev1.PersistentVolumeSource{RBD: &corev1.RBDPersistentVolumeSource{}}
		}, `MountVolume.SetUp failed for volume "v" : persistent volume pv: this kind of volume is not supported`, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, pv := claimed(t, local("/nowhere"))
			tc.change(f, pv)
			_, err := f.Setup(t.Context(), f.pod)
			if err == nil || err.Error() != tc.want || Pending(err) != tc.pending {
				t.Errorf("pending %v, want %v:\n got %v\nwant %s", Pending(err), tc.pending, err, tc.want)
			}
		})
	}
}

func TestEphemeralClaimMustBeThePods(t *testing.T) {
	f, _ := claimed(t, local(t.TempDir()))
	f.pod.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}
	f.sources.claims["p-v"] = f.sources.claims["c"]
	if _, err := f.Setup(t.Context(), f.pod); err == nil || !strings.Contains(err.Error(), "pod is not owner") {
		t.Errorf("somebody else's claim: %v", err)
	}
	f.sources.claims["p-v"].OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "p", UID: f.pod.UID, Controller: ptr(true)}}
	f.setup(t)
}

func TestReadWriteOncePod(t *testing.T) {
	f, pv := claimed(t, local(t.TempDir()))
	once := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
	pv.Spec.AccessModes, f.sources.claims["c"].Spec.AccessModes = once, once
	f.setup(t)
	other := f.pod.DeepCopy()
	other.UID = "uid-2"
	if _, err := f.Setup(t.Context(), other); err == nil || !strings.Contains(err.Error(), "ReadWriteOncePod access mode and is already in use by another pod") {
		t.Errorf("a second Pod: %v", err)
	}
	must(t, f.Teardown(t.Context(), f.pod.UID))
	if _, err := f.Setup(t.Context(), other); err != nil {
		t.Error(err)
	}
	must(t, f.Teardown(t.Context(), other.UID))
}

func TestGroupOfAPersistentVolume(t *testing.T) {
	for _, tc := range []struct {
		name   string
		policy corev1.PodFSGroupChangePolicy
		// before are mode and group of the top folder.
		mode  uint32
		group int
		want  int
	}{
		{"always", corev1.FSGroupChangeAlways, 0o2775, 4000, 4000},
		{"as it should be", corev1.FSGroupChangeOnRootMismatch, 0o2775, 4000, 0},
		{"another group", corev1.FSGroupChangeOnRootMismatch, 0o2775, 1, 4000},
		{"too few rights", corev1.FSGroupChangeOnRootMismatch, 0o2755, 4000, 4000},
	} {
		t.Run(tc.name, func(t *testing.T) {
			data := t.TempDir()
			must(t, os.WriteFile(filepath.Join(data, "file"), nil, 0o600), os.Chown(data, 0, tc.group), unix.Chmod(data, tc.mode))
			f, _ := claimed(t, local(data))
			f.pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr[int64](4000), FSGroupChangePolicy: &tc.policy}
			f.setup(t)
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(data, "file"), &st); err != nil || int(st.Gid) != tc.want {
				t.Errorf("group %d, want %d; %v", st.Gid, tc.want, err)
			}
		})
	}
}

// TestSecondGroup holds that a Pod does not take the files away from another that has them, and that this is said.
func TestSecondGroup(t *testing.T) {
	data := t.TempDir()
	f, _ := claimed(t, local(data))
	f.pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr[int64](4000)}
	f.setup(t)
	other := f.pod.DeepCopy()
	other.UID = "uid-2"
	other.Spec.SecurityContext.FSGroup = ptr[int64](5000)
	if _, err := f.Setup(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	want := []string{"AlreadyMountedVolume: The requested fsGroup is 5000, but the volume pv has GID 4000. The volume may not be shareable."}
	if diff := cmp.Diff(want, f.events); diff != "" {
		t.Error(diff)
	}
	must(t, f.Teardown(t.Context(), other.UID))
}

// TestOwnershipFollowsNoLink holds that neither a link nor what it leads to is changed beyond the link itself.
func TestOwnershipFollowsNoLink(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	outside, dir := filepath.Join(t.TempDir(), "outside"), t.TempDir()
	must(t, os.WriteFile(outside, nil, 0o600), os.Symlink(outside, filepath.Join(dir, "link")), os.MkdirAll(filepath.Join(dir, "a/b"), 0o700),
		os.WriteFile(filepath.Join(dir, "a/b/suid"), nil, 0o700), unix.Chmod(filepath.Join(dir, "a/b/suid"), 0o4711))
	must(t, setOwnership(dir, 4321, corev1.FSGroupChangeAlways, readWrite))
	var st unix.Stat_t
	if err := unix.Stat(outside, &st); err != nil || st.Gid != 0 || st.Mode&0o777 != 0o600 {
		t.Errorf("outside: group %d, mode %o, %v", st.Gid, st.Mode, err)
	}
	for path, want := range map[string]uint32{"a": 0o2770, "a/b": 0o2770, "a/b/suid": 0o4771} {
		if err := unix.Stat(filepath.Join(dir, path), &st); err != nil || st.Gid != 4321 || st.Mode&0o7777 != want {
			t.Errorf("%s: group %d, mode %o, want %o; %v", path, st.Gid, st.Mode&0o7777, want, err)
		}
	}
}

// TestRemoveTreeLeavesMounts holds that what is mounted in a Pod's folder is never removed as if it were the Pod's.
func TestRemoveTreeLeavesMounts(t *testing.T) {
	if os.Getenv(nodeEnv) == "" {
		t.Skip("needs root")
	}
	data, top := t.TempDir(), filepath.Join(t.TempDir(), "top")
	in := filepath.Join(top, "a", "in")
	must(t, os.WriteFile(filepath.Join(data, "precious"), nil, 0o600), os.MkdirAll(in, 0o755), unix.Mount(data, in, "", unix.MS_BIND, ""))
	defer mountpoint.Unmount(in)
	if err := removeTree(top); err == nil || !strings.Contains(err.Error(), "something is mounted there") {
		t.Errorf("removed: %v", err)
	}
	if _, err := os.Stat(filepath.Join(data, "precious")); err != nil {
		t.Error(err)
	}
	must(t, mountpoint.Unmount(in))
	for i := range 3000 {
		must(t, os.WriteFile(filepath.Join(in, string(rune('a'+i%26))+strings.Repeat("x", i%100)+string(rune('0'+i%10))), nil, 0o400))
	}
	must(t, removeTree(top))
	if _, err := os.Lstat(top); !os.IsNotExist(err) {
		t.Error(err)
	}
}
