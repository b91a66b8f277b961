package scheduler

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"
)

func read[T runtime.Object](t *testing.T, obj T, text string) T {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(text), obj); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return obj
}

func uses1(claim string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: claim, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}})
	}
}

// storageOf reads claims (uid: their name), volumes, classes, CSI nodes, drivers, capacities and attachments.
func storageOf(t *testing.T, texts ...string) *Storage {
	t.Helper()
	s := &Storage{
		Claims: map[types.NamespacedName]*corev1.PersistentVolumeClaim{}, Volumes: map[string]*corev1.PersistentVolume{},
		Classes: map[string]*storagev1.StorageClass{}, Nodes: map[string]*storagev1.CSINode{}, Drivers: map[string]*storagev1.CSIDriver{},
		Taken: map[string]types.UID{}, Selected: map[types.UID]string{},
	}
	for _, text := range texts {
		kind, body, _ := strings.Cut(text, " ")
		switch kind {
		case "claim":
			c := read(t, &corev1.PersistentVolumeClaim{}, body)
			c.Namespace, c.UID = "default", types.UID(c.Name)
			if len(c.Spec.AccessModes) == 0 {
				c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
			}
			s.Claims[types.NamespacedName{Namespace: c.Namespace, Name: c.Name}] = c
		case "volume":
			v := read(t, &corev1.PersistentVolume{}, body)
			v.Status.Phase, v.Spec.AccessModes = corev1.VolumeAvailable, []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
			s.Volumes[v.Name] = v
		case "class":
			c := read(t, &storagev1.StorageClass{}, body)
			if c.VolumeBindingMode == nil {
				c.VolumeBindingMode = ptr.To(storagev1.VolumeBindingWaitForFirstConsumer)
			}
			s.Classes[c.Name] = c
		case "csinode":
			n := read(t, &storagev1.CSINode{}, body)
			s.Nodes[n.Name] = n
		case "driver":
			d := read(t, &storagev1.CSIDriver{}, body)
			s.Drivers[d.Name] = d
		case "capacity":
			s.Capacities = append(s.Capacities, read(t, &storagev1.CSIStorageCapacity{}, body))
		case "attached":
			s.Attached = append(s.Attached, read(t, &storagev1.VolumeAttachment{}, body))
		default:
			t.Fatal(text)
		}
	}
	return s
}

const (
	boundClaim = `claim {metadata: {name: c, annotations: {pv.kubernetes.io/bind-completed: "yes"}}, spec: {volumeName: v}}`
	freeClaim  = `claim {metadata: {name: c}, spec: {storageClassName: s, resources: {requests: {storage: 1Gi}}}}`
	plainClass = `class {metadata: {name: s}, provisioner: d.io}`
	none       = " preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
)

func onlyOn(n string) string {
	return `nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [` + n + `]}]}]}}`
}

func TestChooseByStorage(t *testing.T) {
	two := []*corev1.Node{node("a", zone("z1")), node("b", zone("z2"))}
	limits := func(n int) string {
		return `csinode {metadata: {name: a}, spec: {drivers: [{name: d.io, nodeID: a, allocatable: {count: ` + string(rune('0'+n)) + `}}]}}`
	}
	csi := `volume {metadata: {name: v}, spec: {csi: {driver: d.io, volumeHandle: h}, ` + onlyOn("a") + `}}`
	for _, tt := range []struct {
		name    string
		pod     *corev1.Pod
		there   []*corev1.Pod
		storage []string
		change  func(*Storage)
		want    string // a node, then what is to be bound and made; or the error
	}{
		{name: "no claim of that name", pod: pod("p", uses1("c")), want: `0/2 nodes are available: persistentvolumeclaim "c" not found.` + none},
		{name: "claim unbound", pod: pod("p", uses1("c")), storage: []string{freeClaim, `class {metadata: {name: s}, provisioner: d.io, volumeBindingMode: Immediate}`},
			want: "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims." + none},
		{name: "claim lost", pod: pod("p", uses1("c")), storage: []string{`claim {metadata: {name: c}, spec: {volumeName: v}, status: {phase: Lost}}`},
			want: `0/2 nodes are available: persistentvolumeclaim "c" bound to non-existent persistentvolume "v".` + none},
		{name: "claim going", pod: pod("p", uses1("c")), storage: []string{`claim {metadata: {name: c, deletionTimestamp: "2026-01-01T00:00:00Z"}}`},
			want: `0/2 nodes are available: persistentvolumeclaim "c" is being deleted.` + none},
		{name: "claim of the Pod to come", pod: pod("p", func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "e", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}}}
		}), want: `0/2 nodes are available: waiting for ephemeral volume controller to create the persistentvolumeclaim "p-e".` + none},

		{name: "where the volume is", pod: pod("p", uses1("c")), storage: []string{boundClaim, `volume {metadata: {name: v}, spec: {` + onlyOn("b") + `}}`}, want: "b"},
		{name: "where no node is", pod: pod("p", uses1("c")), storage: []string{boundClaim, `volume {metadata: {name: v}, spec: {` + onlyOn("x") + `}}`},
			want: "0/2 nodes are available: 2 node(s) didn't match PersistentVolume's node affinity." + none},
		{name: "volume gone", pod: pod("p", uses1("c")), storage: []string{boundClaim},
			want: "0/2 nodes are available: 2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)." + none},
		{name: "volume of a zone", pod: pod("p", uses1("c")), storage: []string{boundClaim, `volume {metadata: {name: v, labels: {topology.kubernetes.io/zone: z0__z2}}}`}, want: "b"},

		{name: "a volume that is there", pod: pod("p", uses1("c")), storage: []string{freeClaim, `class {metadata: {name: s}, provisioner: kubernetes.io/no-provisioner}`,
			`volume {metadata: {name: v}, spec: {capacity: {storage: 1Gi}, storageClassName: s, ` + onlyOn("b") + `}}`}, want: "b v=c"},
		{name: "a volume that another claim is about to get", pod: pod("p", uses1("c")), storage: []string{freeClaim, `class {metadata: {name: s}, provisioner: kubernetes.io/no-provisioner}`,
			`volume {metadata: {name: v}, spec: {capacity: {storage: 1Gi}, storageClassName: s}}`}, change: func(s *Storage) { s.Taken["v"] = "other" },
			want: "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind." + none},
		{name: "a volume to be made", pod: pod("p", uses1("c")), storage: []string{freeClaim, plainClass}, want: "a +c"},
		{name: "made where another Pod wants it", pod: pod("p", uses1("c")), storage: []string{freeClaim, plainClass}, change: func(s *Storage) { s.Selected["c"] = "b" }, want: "b +c"},
		{name: "made where it was to be", pod: pod("p", uses1("c")), storage: []string{`claim {metadata: {name: c, annotations:
			{volume.kubernetes.io/selected-node: b}}, spec: {storageClassName: s}}`, plainClass}, want: "b +c"},
		{name: "made in a zone only", pod: pod("p", uses1("c")), storage: []string{freeClaim, `class {metadata: {name: s}, provisioner: d.io, allowedTopologies:
			[{matchLabelExpressions: [{key: topology.kubernetes.io/zone, values: [z2]}]}]}`}, want: "b +c"},
		{name: "made where there is room", pod: pod("p", uses1("c")), storage: []string{freeClaim, plainClass, `driver {metadata: {name: d.io}, spec: {storageCapacity: true}}`,
			`capacity {metadata: {name: x}, storageClassName: s, capacity: 1Mi, nodeTopology: {matchLabels: {kubernetes.io/hostname: a}}}`,
			`capacity {metadata: {name: y}, storageClassName: s, capacity: 2Gi, nodeTopology: {matchLabels: {kubernetes.io/hostname: b}}}`}, want: "b +c"},
		{name: "no room", pod: pod("p", uses1("c")), storage: []string{freeClaim, plainClass, `driver {metadata: {name: d.io}, spec: {storageCapacity: true}}`,
			`capacity {metadata: {name: y}, storageClassName: s, capacity: 2Gi, maximumVolumeSize: 1Mi, nodeTopology: {}}`},
			want: "0/2 nodes are available: 2 node(s) did not have enough free storage." + none},

		{name: "for one Pod only", pod: pod("p", uses1("c")), there: []*corev1.Pod{pod("q", uses1("c"), on("b"))}, storage: []string{
			`claim {metadata: {name: c, annotations: {pv.kubernetes.io/bind-completed: "yes"}}, spec: {volumeName: v, accessModes: [ReadWriteOncePod]}}`, `volume {metadata: {name: v}}`},
			want: "0/2 nodes are available: 2 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod. " +
				"preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."},
		{name: "as many as the driver can", pod: pod("p", uses1("c")), storage: []string{boundClaim, csi, limits(1)}, want: "a"},
		{name: "one more than the driver can", pod: pod("p", uses1("c")), storage: []string{boundClaim, csi, limits(0)},
			want: "0/2 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity, 1 node(s) exceed max volume count. " +
				"preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."},
		{name: "the same volume counts once", pod: pod("p", uses1("c")), there: []*corev1.Pod{pod("q", uses1("c"), on("a"))}, storage: []string{boundClaim, csi, limits(1),
			`attached {metadata: {name: x}, spec: {attacher: d.io, nodeName: a, source: {persistentVolumeName: v}}}`}, want: "a"},
		{name: "no driver there", pod: pod("p", uses1("c")), storage: []string{boundClaim, csi, `driver {metadata: {name: d.io}, spec: {preventPodSchedulingIfMissing: true}}`},
			want: "0/2 nodes are available: 2 d.io CSI driver is not installed on the node. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."},
	} {
		s := NewSnapshot(two, tt.there, nil)
		s.Storage = storageOf(t, tt.storage...)
		if tt.change != nil {
			tt.change(s.Storage)
		}
		got, b, err := choose(tt.pod, s)
		for _, one := range b.static {
			got += " " + one.volume.Name + "=" + one.claim.Name
		}
		for _, claim := range b.dynamic {
			got += " +" + claim.Name
		}
		if err != nil {
			got = err.Error()
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", tt.name, diff)
		}
	}
}

// TestWaitsForVolumes plays the provisioner and the binder.
func TestWaitsForVolumes(t *testing.T) {
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "default", UID: "c"}, Spec: corev1.PersistentVolumeClaimSpec{
		StorageClassName: ptr.To("s")}}
	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Provisioner: "d.io", VolumeBindingMode: ptr.To(storagev1.VolumeBindingWaitForFirstConsumer)}
	client, recorder := start(t, node("a"), class)
	create(t, client, pod("p", uses1("c")))
	event(t, recorder, `Warning FailedScheduling 0/1 nodes are available: persistentvolumeclaim "c" not found. `+
		"preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.")
	claims := client.CoreV1().PersistentVolumeClaims("default")
	if _, err := claims.Create(t.Context(), claim, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	selected := func() *corev1.PersistentVolumeClaim {
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			c, err := claims.Get(context.Background(), "c", metav1.GetOptions{})
			if err == nil && c.Annotations["volume.kubernetes.io/selected-node"] == "a" {
				return c.DeepCopy()
			}
			if time.Now().After(deadline) {
				t.Fatal("no node was chosen")
			}
		}
	}
	write := func(c *corev1.PersistentVolumeClaim) {
		t.Helper()
		if _, err := claims.Update(t.Context(), c, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	c := selected()
	c.Annotations, c.ResourceVersion = nil, "2" // there is none to be had on that node
	write(c)
	event(t, recorder, `Warning FailedScheduling binding volumes: provisioning failed for PVC "c"`)
	c = selected()
	c.Spec.VolumeName, c.Status.Phase, c.ResourceVersion = "v", corev1.ClaimBound, "3"
	c.Annotations["pv.kubernetes.io/bind-completed"] = "yes"
	write(c)
	event(t, recorder, "Normal Scheduled Successfully assigned default/p to a")
}
