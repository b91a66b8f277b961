package localpath

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/yaml"

	"carob.dev/carob/internal/api/volume"
)

func claimOf(t *testing.T, text string) *corev1.PersistentVolumeClaim {
	t.Helper()
	c := &corev1.PersistentVolumeClaim{}
	if err := yaml.UnmarshalStrict([]byte(text), c); err != nil {
		t.Fatal(err)
	}
	c.Name, c.Namespace, c.UID, c.ResourceVersion = "c", "ns", "123", "7"
	return c
}

func nodeOf(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{corev1.LabelHostname: name}, Annotations: map[string]string{volume.LocalPathFolder: "/root/volumes"},
	}}
}

func TestProvision(t *testing.T) {
	got, err := provision(claimOf(t, `spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}`), class(), nodeOf("n1"))
	if err != nil {
		t.Fatal(err)
	}
	want := &corev1.PersistentVolume{}
	if err := yaml.UnmarshalStrict([]byte(`
metadata:
  name: pvc-123
  annotations: {pv.kubernetes.io/provisioned-by: carob.dev/local-path, carob.dev/local-path-node: n1}
  finalizers: [carob.dev/local-path]
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  volumeMode: Filesystem
  persistentVolumeReclaimPolicy: Delete
  storageClassName: local-path
  local: {path: /root/volumes/pvc-123}
  claimRef: {apiVersion: v1, kind: PersistentVolumeClaim, namespace: ns, name: c, uid: "123", resourceVersion: "7"}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [n1]}]}]}}
`), want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRefusals(t *testing.T) {
	bare := nodeOf("n1")
	bare.Annotations = nil
	parameters := class()
	parameters.Parameters = map[string]string{"path": "/"}
	mounted := class()
	mounted.MountOptions = []string{"ro"}
	for _, tt := range []struct {
		name, claim string
		class       *storagev1.StorageClass
		node        *corev1.Node
		want        string
	}{
		{"block", `spec: {volumeMode: Block}`, class(), nodeOf("n1"), "volumeMode Block is not supported: volumes are folders"},
		{"many nodes", `spec: {accessModes: [ReadWriteMany]}`, class(), nodeOf("n1"),
			"accessMode ReadWriteMany is not supported: volumes are on one node, so they are ReadWriteOnce or ReadWriteOncePod"},
		{"parameters", `spec: {}`, parameters, nodeOf("n1"), `parameter "path" of storage class local-path is not supported: there are none`},
		{"mount options", `spec: {}`, mounted, nodeOf("n1"), "mountOptions of storage class local-path are not supported: a folder is not mounted"},
		{"selector", `spec: {selector: {matchLabels: {a: b}}}`, class(), nodeOf("n1"), "claim.spec.selector is not supported: no volume that fits it can be made"},
		{"source", `spec: {dataSource: {kind: PersistentVolumeClaim, name: d}}`, class(), nodeOf("n1"), "dataSource is not supported: volumes start empty"},
		{"node without a folder", `spec: {}`, class(), bare, "node n1 does not say where its volumes are (annotation carob.dev/local-path-folder)"},
	} {
		if _, err := provision(claimOf(t, tt.claim), tt.class, tt.node); err == nil || err.Error() != tt.want {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestDecide(t *testing.T) {
	gone := metav1.Now()
	v := func(change func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
		v, err := provision(claimOf(t, `spec: {}`), class(), nodeOf("n1"))
		if err != nil {
			t.Fatal(err)
		}
		change(v)
		return v
	}
	for _, tt := range []struct {
		name     string
		volume   *corev1.PersistentVolume
		nodeGone bool
		want     next
	}{
		{"bound", v(func(v *corev1.PersistentVolume) { v.Status.Phase = corev1.VolumeBound }), false, nothing},
		{"released", v(func(v *corev1.PersistentVolume) { v.Status.Phase = corev1.VolumeReleased }), false, remove},
		{"released and retained", v(func(v *corev1.PersistentVolume) {
			v.Status.Phase, v.Spec.PersistentVolumeReclaimPolicy = corev1.VolumeReleased, corev1.PersistentVolumeReclaimRetain
		}), false, nothing},
		{"going", v(func(v *corev1.PersistentVolume) { v.Status.Phase, v.DeletionTimestamp = corev1.VolumeReleased, &gone }), false, nothing},
		{"going, with its node", v(func(v *corev1.PersistentVolume) { v.Status.Phase, v.DeletionTimestamp = corev1.VolumeReleased, &gone }), true, abandon},
		{"somebody else's", v(func(v *corev1.PersistentVolume) { v.Annotations, v.Status.Phase = nil, corev1.VolumeReleased }), true, nothing},
	} {
		if got := decide(tt.volume, tt.nodeGone); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// start runs a Controller until the test ends.
func start(t *testing.T, client *fake.Clientset) {
	t.Helper()
	factory := informers.NewSharedInformerFactory(client, 0)
	c, err := New(Config{Client: client, Informers: factory, Recorder: &record.FakeRecorder{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	factory.Start(ctx.Done())
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		factory.Shutdown()
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

func TestClassIsMadeOnceOnly(t *testing.T) {
	client := fake.NewClientset(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system"}})
	classes := client.StorageV1().StorageClasses()
	made := func() bool {
		ns, err := client.CoreV1().Namespaces().Get(context.Background(), "kube-system", metav1.GetOptions{})
		return err == nil && ns.Annotations[classMade] == "true"
	}
	t.Run("first", func(t *testing.T) {
		start(t, client)
		eventually(t, "the class", made)
	})
	if _, err := classes.Get(t.Context(), "local-path", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := classes.Delete(t.Context(), "local-path", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Run("again", func(t *testing.T) {
		start(t, client)
		_, err := client.CoreV1().PersistentVolumeClaims("ns").Create(t.Context(), claimOf(t, `spec: {}`), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	})
	if _, err := classes.Get(t.Context(), "local-path", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the class that was deleted is back: %v", err)
	}
}

func TestProvisionsAndDeletes(t *testing.T) {
	claim := claimOf(t, `{metadata: {annotations: {volume.kubernetes.io/storage-provisioner: carob.dev/local-path, volume.kubernetes.io/selected-node: n1}},
		spec: {storageClassName: local-path, accessModes: [ReadWriteOnce]}}`)
	client := fake.NewClientset(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", Annotations: map[string]string{classMade: "true"}}},
		class(), nodeOf("n1"), claim)
	start(t, client)
	volumes := client.CoreV1().PersistentVolumes()
	get := func() *corev1.PersistentVolume {
		v, err := volumes.Get(context.Background(), "pvc-123", metav1.GetOptions{})
		if err != nil {
			return nil
		}
		return v
	}
	eventually(t, "a volume", func() bool { return get() != nil })
	v := get().DeepCopy()
	v.Status.Phase = corev1.VolumeReleased
	if _, err := volumes.UpdateStatus(t.Context(), v, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the volume", func() bool { return get() == nil })
}
