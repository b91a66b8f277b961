package localpath

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// larger is a bound claim that asks for 2Gi, and its volume.
func larger(t *testing.T, told, has string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) {
	t.Helper()
	c := claimOf(t, `{spec: {volumeName: pvc-123, storageClassName: local-path, accessModes: [ReadWriteOnce], resources: {requests: {storage: 2Gi}}},
		status: {phase: Bound, capacity: {storage: `+told+`}, conditions: [{type: Resizing, status: "True"}]}}`)
	v, err := provision(c, class(), nodeOf("n1"))
	if err != nil {
		t.Fatal(err)
	}
	v.Spec.Capacity[corev1.ResourceStorage] = resource.MustParse(has)
	return c, v
}

func TestGrow(t *testing.T) {
	same := func(*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) {}
	for _, tt := range []struct {
		name, told, has string
		change          func(*corev1.PersistentVolumeClaim, *corev1.PersistentVolume)
		volume, claim   string // the new sizes, empty where nothing is written
	}{
		{"grows", "1Gi", "1Gi", same, "2Gi", "2Gi"},
		{"has grown, its claim is to be told", "1Gi", "2Gi", same, "", "2Gi"},
		{"was larger from the start", "1Gi", "3Gi", same, "", "3Gi"},
		{"told", "2Gi", "2Gi", same, "", ""},
		{"going", "1Gi", "1Gi", func(c *corev1.PersistentVolumeClaim, _ *corev1.PersistentVolume) {
			now := metav1.Now()
			c.DeletionTimestamp = &now
		}, "", ""},
		{"lost", "1Gi", "1Gi", func(c *corev1.PersistentVolumeClaim, _ *corev1.PersistentVolume) { c.Status.Phase = corev1.ClaimLost }, "", ""},
		{"another's volume", "1Gi", "1Gi", func(_ *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) { v.Spec.ClaimRef.UID = "other" }, "", ""},
		{"made by hand", "1Gi", "1Gi", func(_ *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) { v.Annotations = nil }, "", ""},
	} {
		c, v := larger(t, tt.told, tt.has)
		tt.change(c, v)
		grown, told := grow(c, v)
		var volume, claim string
		if grown != nil {
			q := grown.Spec.Capacity[corev1.ResourceStorage]
			volume = q.String()
		}
		if told != nil {
			q := told.Status.Capacity[corev1.ResourceStorage]
			if claim = q.String(); len(told.Status.Conditions) > 0 {
				t.Errorf("%s: %v", tt.name, told.Status.Conditions)
			}
		}
		if volume != tt.volume || claim != tt.claim {
			t.Errorf("%s: volume %q, claim %q", tt.name, volume, claim)
		}
	}
}

func TestGrows(t *testing.T) {
	claim, v := larger(t, "1Gi", "1Gi")
	client := fake.NewClientset(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", Annotations: map[string]string{classMade: "true"}}},
		class(), nodeOf("n1"), claim, v)
	start(t, client)
	two := resource.MustParse("2Gi")
	eventually(t, "a larger claim", func() bool {
		c, err := client.CoreV1().PersistentVolumeClaims("ns").Get(t.Context(), "c", metav1.GetOptions{})
		return err == nil && c.Status.Capacity[corev1.ResourceStorage].Equal(two)
	})
	if v, err := client.CoreV1().PersistentVolumes().Get(t.Context(), "pvc-123", metav1.GetOptions{}); err != nil || !v.Spec.Capacity[corev1.ResourceStorage].Equal(two) {
		t.Errorf("the volume: %v, %v", v.Spec.Capacity, err)
	}
}
