package volumebinder

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

func read[T runtime.Object](t *testing.T, obj T, text string) T {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(text), obj); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return obj
}

func claim(t *testing.T, text string) *corev1.PersistentVolumeClaim {
	c := read(t, &corev1.PersistentVolumeClaim{}, text)
	c.Name, c.Namespace, c.UID = "c", "ns", "uid"
	if c.Status.Phase == "" {
		c.Status.Phase = corev1.ClaimPending
	}
	if len(c.Spec.AccessModes) == 0 {
		c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	}
	return c
}

func pv(t *testing.T, text string) *corev1.PersistentVolume {
	v := read(t, &corev1.PersistentVolume{}, text)
	if len(v.Spec.AccessModes) == 0 {
		v.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	}
	if v.Status.Phase == "" {
		v.Status.Phase = corev1.VolumeAvailable
	}
	return v
}

// said is a plan in a form that can be compared: what is written, and what of it matters.
func said(p plan) string {
	out := ""
	switch {
	case p.volume != nil:
		out = "volume " + p.volume.Name + " for nobody"
		if r := p.volume.Spec.ClaimRef; r != nil {
			out = "volume " + p.volume.Name + " for " + r.Namespace + "/" + r.Name + " " + string(r.UID) + by(p.volume.Annotations)
		}
	case p.volumeStatus != nil:
		out = "volume " + p.volumeStatus.Name + " is " + string(p.volumeStatus.Status.Phase)
	case p.claim != nil:
		out = "claim of " + p.claim.Spec.VolumeName + by(p.claim.Annotations)
		if p.claim.Spec.VolumeName == "" {
			out = "claim for class " + *p.claim.Spec.StorageClassName + ", provisioner " + p.claim.Annotations["volume.kubernetes.io/storage-provisioner"]
		}
	case p.status != nil:
		size := p.status.Status.Capacity[corev1.ResourceStorage]
		out = "claim is " + string(p.status.Status.Phase) + " with " + size.String()
	}
	if p.event != nil {
		out += " | " + p.event.kind + " " + p.event.reason + ": " + p.event.message
	}
	return out
}

func by(annotations map[string]string) string {
	if annotations["pv.kubernetes.io/bound-by-controller"] == "yes" {
		return " by us"
	}
	return ""
}

const (
	asks     = `spec: {storageClassName: "", resources: {requests: {storage: 1Gi}}}`
	complete = `{metadata: {annotations: {pv.kubernetes.io/bind-completed: "yes"}}, spec: {volumeName: v, storageClassName: "", resources: {requests: {storage: 1Gi}}}`
	ours     = `claimRef: {namespace: ns, name: c, uid: uid}`
)

func TestDecideClaim(t *testing.T) {
	class := func(text string) *storagev1.StorageClass { return read(t, &storagev1.StorageClass{}, text) }
	later := class(`{metadata: {name: s}, provisioner: a.b/c, volumeBindingMode: WaitForFirstConsumer}`)
	now := class(`{metadata: {name: s}, provisioner: a.b/c, volumeBindingMode: Immediate}`)
	const classed = `spec: {storageClassName: s, resources: {requests: {storage: 1Gi}}}`
	waiting := `Normal ExternalProvisioning: Waiting for a volume to be created either by the external provisioner 'a.b/c' ` +
		`or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.`
	for _, tt := range []struct {
		name, claim string
		volumes     []string
		world       world
		want        string
	}{
		{name: "nothing there", claim: asks, want: " | Normal FailedBinding: no persistent volumes available for this claim and no storage class is set"},
		{name: "the smallest that fits", claim: asks, volumes: []string{
			`{metadata: {name: big}, spec: {capacity: {storage: 9Gi}}}`, `{metadata: {name: small}, spec: {capacity: {storage: 1Mi}}}`,
			`{metadata: {name: v}, spec: {capacity: {storage: 2Gi}}}`,
		}, want: "volume v for ns/c uid by us"},
		{name: "the fewest modes beyond", claim: asks, volumes: []string{
			`{metadata: {name: a}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce, ReadOnlyMany]}}`,
			`{metadata: {name: b}, spec: {capacity: {storage: 2Gi}, accessModes: [ReadWriteOnce]}}`,
		}, want: "volume b for ns/c uid by us"},
		{name: "other modes, classes, labels, states", claim: `spec: {storageClassName: s, selector: {matchLabels: {a: b}}, resources: {requests: {storage: 1Gi}}}`,
			volumes: []string{
				`{metadata: {name: a, labels: {a: b}}, spec: {storageClassName: s, capacity: {storage: 1Gi}, accessModes: [ReadOnlyMany]}}`,
				`{metadata: {name: b, labels: {a: b}}, spec: {capacity: {storage: 1Gi}}}`, `{metadata: {name: c}, spec: {storageClassName: s, capacity: {storage: 1Gi}}}`,
				`{metadata: {name: d, labels: {a: b}}, spec: {storageClassName: s, capacity: {storage: 1Gi}}, status: {phase: Released}}`,
				`{metadata: {name: e, labels: {a: b}}, spec: {storageClassName: s, volumeMode: Block, capacity: {storage: 1Gi}}}`,
				`{metadata: {name: f, labels: {a: b}}, spec: {storageClassName: s, capacity: {storage: 1Gi}, claimRef: {namespace: ns, name: other}}}`,
				`{metadata: {name: g, labels: {a: b}, deletionTimestamp: "2026-01-01T00:00:00Z"}, spec: {storageClassName: s, capacity: {storage: 1Gi}}}`,
			}, want: ` | Warning ProvisioningFailed: storageclass.storage.k8s.io "s" not found`},
		{name: "kept for it by somebody", claim: asks, volumes: []string{`{metadata: {name: v}, spec: {capacity: {storage: 9Gi}, claimRef: {namespace: ns, name: c}}}`},
			want: "volume v for ns/c uid"},
		{name: "then the volume's phase", claim: asks, volumes: []string{`{metadata: {name: v}, spec: {capacity: {storage: 1Gi}, ` + ours + `}}`}, want: "volume v is Bound"},
		{name: "then the claim", claim: asks, volumes: []string{`{metadata: {name: v}, spec: {capacity: {storage: 1Gi}, ` + ours + `}, status: {phase: Bound}}`},
			want: "claim of v by us"},
		{name: "then its phase", claim: complete + "}", volumes: []string{`{metadata: {name: v}, spec: {capacity: {storage: 2Gi}, ` + ours + `}, status: {phase: Bound}}`},
			want: "claim is Bound with 2Gi"},
		{name: "and no more", claim: complete + `, status: {phase: Bound, accessModes: [ReadWriteOnce], capacity: {storage: 1Gi}}}`,
			volumes: []string{`{metadata: {name: v}, spec: {capacity: {storage: 2Gi}, ` + ours + `}, status: {phase: Bound}}`}, want: ""},
		{name: "grows by somebody's hand", claim: complete + `, status: {phase: Bound, accessModes: [ReadWriteOnce], capacity: {storage: 1Mi}}}`,
			volumes: []string{`{metadata: {name: v}, spec: {capacity: {storage: 1Mi}, ` + ours + `}, status: {phase: Bound}}`},
			want:    " | Normal ExternalExpanding: waiting for an external controller to expand this PVC"},
		{name: "grows by our own", claim: complete + `, status: {phase: Bound, accessModes: [ReadWriteOnce], capacity: {storage: 1Mi}}}`,
			volumes: []string{`{metadata: {name: v, annotations: {pv.kubernetes.io/provisioned-by: carob.dev/local-path}}, spec: {capacity: {storage: 1Mi}, ` + ours + `}, status: {phase: Bound}}`},
			want:    ""},
		{name: "deleted before it was bound", claim: `metadata: {deletionTimestamp: "2026-01-01T00:00:00Z"}`, volumes: []string{`{metadata: {name: v}, spec: {capacity: {storage: 2Gi}}}`}, want: ""},
		{name: "volume came unbound", claim: complete + "}", volumes: []string{`{metadata: {name: v}, spec: {capacity: {storage: 1Gi}}}`}, want: "volume v for ns/c uid by us"},
		{name: "volume lost", claim: complete + "}", want: "claim is Lost with 0 | Warning ClaimLost: Bound claim has lost its PersistentVolume. Data on the volume is lost!"},
		{name: "lost already", claim: complete + ", status: {phase: Lost}}", want: ""},
		{name: "reference lost", claim: `metadata: {annotations: {pv.kubernetes.io/bind-completed: "yes"}}`,
			want: "claim is Lost with 0 | Warning ClaimLost: Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"},
		{name: "two for one", claim: complete + "}", volumes: []string{`{metadata: {name: v}, spec: {capacity: {storage: 1Gi}, claimRef: {namespace: ns, name: d, uid: u}}}`},
			want: "claim is Lost with 0 | Warning ClaimMisbound: Two claims are bound to the same volume, this one is bound incorrectly"},

		{name: "named, not there", claim: `spec: {volumeName: v}`, want: ""},
		{name: "named, too small", claim: `spec: {volumeName: v, resources: {requests: {storage: 1Gi}}}`, volumes: []string{`{metadata: {name: v}, spec: {capacity: {storage: 1Mi}}}`},
			want: ` | Warning VolumeMismatch: Cannot bind to requested volume "v": requested PV is too small`},
		{name: "named, of another class", claim: `spec: {volumeName: v, storageClassName: s}`, volumes: []string{`{metadata: {name: v}, spec: {capacity: {storage: 1Mi}}}`},
			want: ` | Warning VolumeMismatch: Cannot bind to requested volume "v": storageClassName does not match`},
		{name: "named, taken", claim: `spec: {volumeName: v}`, volumes: []string{`{metadata: {name: v}, spec: {claimRef: {namespace: ns, name: d}}}`},
			want: ` | Warning FailedBinding: volume "v" already bound to a different claim.`},
		{name: "named, fits", claim: `spec: {volumeName: v}`, volumes: []string{`{metadata: {name: v}, spec: {capacity: {storage: 1Mi}}}`}, want: "volume v for ns/c uid by us"},

		{name: "default class that came later", claim: `spec: {resources: {requests: {storage: 1Gi}}}`, world: world{usual: later}, want: "claim for class s, provisioner "},
		{name: "provisioner is asked", claim: classed, world: world{class: now}, want: "claim for class s, provisioner a.b/c"},
		{name: "and waited for", world: world{class: now}, claim: `{metadata: {annotations: {volume.kubernetes.io/storage-provisioner: a.b/c,
			volume.beta.kubernetes.io/storage-provisioner: a.b/c}}, ` + classed + `}`, want: " | " + waiting},
		{name: "nobody provisions", claim: classed, world: world{class: class(`{metadata: {name: s}, provisioner: kubernetes.io/no-provisioner}`)},
			want: " | Warning ProvisioningFailed: no volume plugin matched name: kubernetes.io/no-provisioner"},
		{name: "no Pod yet", claim: classed, world: world{class: later}, want: " | Normal WaitForFirstConsumer: waiting for first consumer to be created before binding"},
		{name: "a Pod without a node", claim: classed, world: world{class: later, waiting: []string{"p"}}, want: " | Normal WaitForPodScheduled: waiting for pod p to be scheduled"},
		{name: "Pods without a node", claim: classed, world: world{class: later, waiting: []string{"q", "p"}}, want: " | Normal WaitForPodScheduled: waiting for pods p,q to be scheduled"},
		{name: "the scheduler's to bind", claim: classed, world: world{class: later}, volumes: []string{`{metadata: {name: v}, spec: {storageClassName: s, capacity: {storage: 1Gi}}}`},
			want: " | Normal WaitForFirstConsumer: waiting for first consumer to be created before binding"},
		{name: "bound by the scheduler", claim: classed, world: world{class: later}, volumes: []string{`{metadata: {name: v}, spec: {storageClassName: s, capacity: {storage: 1Gi}, ` + ours + `}}`},
			want: "volume v is Bound"},
		{name: "node chosen", claim: `{metadata: {annotations: {volume.kubernetes.io/selected-node: n1}}, ` + classed + `}`, world: world{class: later},
			want: "claim for class s, provisioner a.b/c"},
	} {
		w := tt.world
		for _, text := range tt.volumes {
			w.volumes = append(w.volumes, pv(t, text))
		}
		if diff := cmp.Diff(tt.want, said(decideClaim(claim(t, tt.claim), w))); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestDecideVolume(t *testing.T) {
	bound := `spec: {volumeName: v}`
	for _, tt := range []struct{ name, volume, claim, want string }{
		{"new", `{metadata: {name: v}, status: {phase: Pending}}`, "", "volume v is Available"},
		{"kept for a claim to come", `{metadata: {name: v}, spec: {claimRef: {namespace: ns, name: c}}, status: {phase: Pending}}`, "", "volume v is Available"},
		{"bound", `{metadata: {name: v}, spec: {` + ours + `}}`, bound, "volume v is Bound"},
		{"to be bound by the claim", `{metadata: {name: v}, spec: {` + ours + `}}`, `spec: {}`, ""},
		{"of another mode", `{metadata: {name: v}, spec: {volumeMode: Block, ` + ours + `}}`, `spec: {}`,
			` | Warning VolumeMismatch: Cannot bind PersistentVolume to requested PersistentVolumeClaim "c" due to incompatible volumeMode.`},
		{"claim gone", `{metadata: {name: v}, spec: {` + ours + `}, status: {phase: Bound}}`, "", "volume v is Released"},
		{"retained", `{metadata: {name: v}, spec: {persistentVolumeReclaimPolicy: Retain, ` + ours + `}, status: {phase: Released}}`, "", ""},
		{"recycled", `{metadata: {name: v}, spec: {persistentVolumeReclaimPolicy: Recycle, ` + ours + `}, status: {phase: Released}}`, "",
			"volume v is Failed | Warning VolumeFailedRecycle: No recycler plugin found for the volume!"},
		{"deleted by its provisioner", `{metadata: {name: v, annotations: {pv.kubernetes.io/provisioned-by: a.b/c}}, spec: {persistentVolumeReclaimPolicy: Delete, ` + ours +
			`}, status: {phase: Released}}`, "", ""},
		{"deleted by nobody", `{metadata: {name: v}, spec: {persistentVolumeReclaimPolicy: Delete, ` + ours + `}, status: {phase: Released}}`, "",
			`volume v is Failed | Warning VolumeFailedDelete: error getting deleter volume plugin for volume "v": no deletable volume plugin matched`},
		{"failed stays", `{metadata: {name: v}, spec: {persistentVolumeReclaimPolicy: Recycle, ` + ours + `}, status: {phase: Failed}}`, "", ""},
		{"claim elsewhere, bound by us", `{metadata: {name: v, annotations: {pv.kubernetes.io/bound-by-controller: "yes"}}, spec: {` + ours + `}}`, `spec: {volumeName: w}`,
			"volume v for nobody"},
		{"claim elsewhere, kept by somebody", `{metadata: {name: v}, spec: {` + ours + `}}`, `spec: {volumeName: w}`, "volume v for ns/c "},
		{"claim elsewhere, provisioned", `{metadata: {name: v, annotations: {pv.kubernetes.io/provisioned-by: a.b/c}}, spec: {persistentVolumeReclaimPolicy: Delete, ` + ours + `}}`,
			`spec: {volumeName: w}`, "volume v is Released"},
	} {
		var c *corev1.PersistentVolumeClaim
		if tt.claim != "" {
			c = claim(t, tt.claim)
		}
		if diff := cmp.Diff(tt.want, said(decideVolume(pv(t, tt.volume), c))); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", tt.name, diff)
		}
	}
}
