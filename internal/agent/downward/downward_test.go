package downward

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func testPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web", Namespace: "prod", UID: "u1",
			Labels: map[string]string{"b": "2", "a": `say "hi"`}, Annotations: map[string]string{"Example.com/Key": "v"},
		},
		Spec: corev1.PodSpec{NodeName: "n1", ServiceAccountName: "default", Containers: []corev1.Container{
			{Name: "c", Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{"cpu": resource.MustParse("1500m"), "memory": resource.MustParse("64Mi")},
				Limits:   corev1.ResourceList{"memory": resource.MustParse("100M"), "hugepages-2Mi": resource.MustParse("4Mi")},
			}},
			{Name: "d"},
		}},
	}
}

func TestEnv(t *testing.T) {
	facts := Facts{HostIPs: []string{"192.0.2.1", "fd00::1"}, PodIPs: []string{"10.0.0.2", "fd01::2"}}
	for path, want := range map[string]string{
		"metadata.name": "web", "metadata.namespace": "prod", "metadata.uid": "u1",
		"metadata.labels": "a=\"say \\\"hi\\\"\"\nb=\"2\"", "metadata.labels['b']": "2", "metadata.labels['none']": "",
		"metadata.annotations['Example.com/Key']": "v",
		"spec.nodeName": "n1", "spec.serviceAccountName": "default",
		"status.hostIP": "192.0.2.1", "status.hostIPs": "192.0.2.1,fd00::1", "status.podIP": "10.0.0.2", "status.podIPs": "10.0.0.2,fd01::2",
	} {
		if got, err := Env(testPod(), path, facts); err != nil || got != want {
			t.Errorf("%s = %q, %v; want %q", path, got, err, want)
		}
	}
	for path, want := range map[string]string{
		"spec.hostname": "unsupported fieldPath: spec.hostname",
		"spec['x']":     `fieldPath "spec['x']" does not support subscript`,
	} {
		if _, err := Env(testPod(), path, facts); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
	if _, err := Metadata(testPod(), "metadata.labels['a b']"); err == nil {
		t.Error("a key that is no label key was accepted")
	}
}

func TestResource(t *testing.T) {
	node := corev1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("8Gi")}
	for _, tc := range []struct {
		resource, divisor, container, want string
	}{
		{"requests.cpu", "", "", "2"},
		{"requests.cpu", "1m", "", "1500"},
		{"requests.memory", "1Mi", "", "64"},
		{"limits.memory", "1Mi", "", "96"},
		{"limits.cpu", "", "", "4"},
		{"limits.memory", "1Gi", "d", "8"},
		{"requests.memory", "", "d", "0"},
		{"limits.hugepages-2Mi", "1Mi", "", "4"},
	} {
		sel := &corev1.ResourceFieldSelector{Resource: tc.resource, ContainerName: tc.container}
		if tc.divisor != "" {
			sel.Divisor = resource.MustParse(tc.divisor)
		}
		if got, err := Resource(sel, testPod(), "c", node); err != nil || got != tc.want {
			t.Errorf("%+v = %q, %v", tc, got, err)
		}
	}
	for _, sel := range []corev1.ResourceFieldSelector{{Resource: "limits.gpu"}, {Resource: "cpu"}, {Resource: "limits.cpu", ContainerName: "x"}} {
		if _, err := Resource(&sel, testPod(), "c", node); err == nil {
			t.Errorf("%+v was accepted", sel)
		}
	}
}
