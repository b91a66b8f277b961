package tree

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"carob.dev/carob/internal/agent/processes"
)

var born = metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))

func object(kind, name string, owner types.UID) Object {
	o := Object{APIVersion: "apps/v1", Kind: kind, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name), CreationTimestamp: born}}
	if owner != "" {
		yes := true
		o.OwnerReferences = []metav1.OwnerReference{{UID: owner, Controller: &yes}}
	}
	return o
}

func pod(name string, owner types.UID, phase corev1.PodPhase) Object {
	o := object("Pod", name, owner)
	o.APIVersion = "v1"
	o.Labels = map[string]string{"app": "nginx"}
	o.Ready = "True"
	o.Pod = &corev1.Pod{ObjectMeta: o.ObjectMeta, Status: corev1.PodStatus{Phase: phase, PodIP: "10.42.0.5"}}
	o.Pod.Spec.NodeName = "n1"
	o.Pod.Spec.Volumes = []corev1.Volume{{Name: "shared", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp"}}},
		{Name: "kube-api-access-x", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{}}}}
	o.Pod.Spec.Containers = []corev1.Container{{Name: "nginx", Image: "nginx:1.8", VolumeMounts: []corev1.VolumeMount{{Name: "shared", MountPath: "/html"},
		{Name: "kube-api-access-x", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}}}}
	o.Pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "nginx", Ready: true, RestartCount: 2, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	return o
}

func input() Input {
	in := Input{Objects: []Object{
		object("Deployment", "nginx", ""),
		object("ReplicaSet", "nginx-old", "nginx"),
		object("ReplicaSet", "nginx-new", "nginx"),
		pod("nginx-new-b", "nginx-new", corev1.PodRunning),
		pod("nginx-new-a", "nginx-new", corev1.PodRunning),
		object("ConfigMap", "lonely", ""),
		pod("bare", "", corev1.PodSucceeded),
		object("EndpointSlice", "svc-1", "svc"),
		object("Service", "svc", ""),
	}}
	in.Objects[0].Replicas = "2/2"
	in.Objects[6].Labels = nil
	in.Reports = []processes.Report{{Node: "n1", Pods: []processes.Pod{{
		UID: "nginx-new-a", Pause: &processes.Process{PID: 10, Comm: "pause", RSSBytes: 4096, Shares: []string{"ipc", "net", "uts"}},
		Containers: []processes.Container{{Name: "nginx", ID: "c1", Processes: []processes.Process{{
			PID: 11, Comm: "nginx", Command: []string{"nginx", "-g", "daemon off;\n"}, RSSBytes: 3 << 20, Shares: []string{"ipc", "net", "user", "uts"},
			Children: []processes.Process{{PID: 12, Comm: "nginx", Command: []string{"nginx: worker process"}, RSSBytes: 2 << 20}},
		}}}},
	}}}}
	return in
}

func TestPrint(t *testing.T) {
	nginx, err := labels.Parse("app=nginx")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		f    Filter
	}{
		{"cluster", Filter{}},
		{"deployment", Filter{Kind: "deployment", Name: "nginx"}},
		{"selector", Filter{Selector: nginx}},
		{"service", Filter{Kind: "Service"}},
		{"elsewhere", Filter{Namespace: "other"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			if err := Print(&out, Build(input(), c.f), PrintOptions{Now: born.Add(90 * time.Minute), Namespaced: true}); err != nil {
				t.Fatal(err)
			}
			golden := "testdata/" + c.name + ".txt"
			if os.Getenv("UPDATE_GOLDEN") != "" {
				os.WriteFile(golden, out.Bytes(), 0o644)
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), out.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestMirror: the processes of a static Pod hang below the object that shows it, which has another UID.
func TestMirror(t *testing.T) {
	in := input()
	mirror := pod("web-n1", "", corev1.PodRunning)
	mirror.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "hash"}
	in.Objects = append(in.Objects, mirror)
	in.Reports[0].Pods[0].UID = "hash"
	kinds := map[string]bool{}
	var look func(n *Node, below bool)
	look = func(n *Node, below bool) {
		below = below || n.Name == "web-n1"
		if below {
			kinds[n.Type] = true
		}
		for _, c := range n.Children {
			look(c, below)
		}
	}
	for _, r := range Build(in, Filter{}).Roots {
		look(r, false)
	}
	if diff := cmp.Diff(map[string]bool{"object": true, "pause": true, "container": true, "process": true}, kinds); diff != "" {
		t.Error(diff)
	}
}
