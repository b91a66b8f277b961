package node

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	critest "k8s.io/cri-api/pkg/apis/testing"
	testclock "k8s.io/utils/clock/testing"
)

func testNode(client *fake.Clientset, c *testclock.FakeClock) *Node {
	images := critest.NewFakeImageService()
	images.SetFakeImages([]string{"b:1"})
	return New(Config{Name: "n.example", Client: client, Images: images, Runtime: critest.NewFakeRuntimeService(), MaxPods: 7,
		PodCIDR: netip.MustParsePrefix("10.42.0.0/24"), IPs: func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.0.2.1")} },
		Machine:           Machine{CPUs: 2, Memory: 4 << 30, Storage: 100 << 30, HugePages: map[int64]int64{2 << 20: 4 << 20}, Arch: "amd64", BootID: "boot", Hostname: "h"},
		Reserved:          Reserved{MilliCPU: 500, Memory: 100 << 20, Storage: 10 << 30},
		KubernetesVersion: "v1.37.2", Recorder: record.NewFakeRecorder(100), Log: slog.New(slog.DiscardHandler), Clock: c})
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 5000 {
		if ok() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal(what)
}

func TestNodeRegistersAndRenews(t *testing.T) {
	client, c := fake.NewClientset(), testclock.NewFakeClock(time.Unix(1_700_000_000, 0))
	n := testNode(client, c)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); n.Run(ctx) }()
	n.Up()
	var node *corev1.Node
	until(t, "the node is not there", func() bool {
		node, _ = client.CoreV1().Nodes().Get(t.Context(), "n.example", metav1.GetOptions{})
		return node != nil && isReady(&node.Status)
	})
	if node.Labels[corev1.LabelHostname] != "n.example" || node.Spec.PodCIDR != "10.42.0.0/24" || node.Status.NodeInfo.KubeletVersion != "v1.37.2" || len(node.Status.Images) != 1 {
		t.Errorf("%+v", node)
	}
	for name, want := range map[corev1.ResourceName]string{"cpu": "2", "memory": "4Gi", "pods": "7", "ephemeral-storage": "100Gi", "hugepages-2Mi": "4Mi"} {
		if q := node.Status.Capacity[name]; q.String() != want {
			t.Errorf("capacity of %s is %s, want %s", name, q.String(), want)
		}
	}
	for name, want := range map[corev1.ResourceName]string{"cpu": "1500m", "memory": "3992Mi", "pods": "7", "ephemeral-storage": "90Gi", "hugepages-2Mi": "4Mi"} {
		if q := node.Status.Allocatable[name]; q.Cmp(resource.MustParse(want)) != 0 {
			t.Errorf("allocatable %s is %s, want %s", name, q.String(), want)
		}
	}
	renewed := func() time.Time {
		l, err := client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(t.Context(), "n.example", metav1.GetOptions{})
		if err != nil {
			return time.Time{}
		}
		return l.Spec.RenewTime.Time
	}
	until(t, "no lease", func() bool { return renewed().Equal(c.Now()) })
	for range 3 {
		until(t, "not both wait", func() bool { return c.Waiters() == 2 }) // the status and the lease
		c.Step(10 * time.Second)
		until(t, "the lease is not renewed", func() bool { return renewed().Equal(c.Now()) })
	}
	lease, err := client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(t.Context(), "n.example", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "n.example", UID: node.UID}}, lease.OwnerReferences); diff != "" {
		t.Errorf("the lease's owner (-want +got):\n%s", diff)
	}
	for _, a := range client.Actions() {
		if a.GetVerb() == "patch" && a.GetResource().Resource == "nodes" && c.Since(time.Unix(1_700_000_000, 0)) > time.Minute {
			t.Errorf("the status was written although nothing changed: %v", a)
		}
	}
	cancel()
	<-done
}

func TestNodeThatIsThere(t *testing.T) {
	client, c := fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n.example", Labels: map[string]string{"mine": "1"}},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: "Foreign", Status: corev1.ConditionTrue}, {Type: corev1.NodeReady, Status: corev1.ConditionUnknown}}}}),
		testclock.NewFakeClock(time.Unix(1_700_000_000, 0))
	if err := testNode(client, c).register(t.Context()); err != nil {
		t.Fatal(err)
	}
	node, err := client.CoreV1().Nodes().Get(t.Context(), "n.example", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if node.Labels["mine"] != "1" || node.Labels[corev1.LabelOSStable] != "linux" || !isReady(&node.Status) || len(node.Status.Conditions) != 5 {
		t.Errorf("%+v", node)
	}
}

// TestNodeIsAsReadyAsItsRuntime: only what the CRI itself knows counts, and a node that is not ready looks again soon.
func TestNodeIsAsReadyAsItsRuntime(t *testing.T) {
	client, c := fake.NewClientset(), testclock.NewFakeClock(time.Unix(1_700_000_000, 0))
	n := testNode(client, c)
	r := critest.NewFakeRuntimeService()
	n.cfg.Runtime = r
	set := func(runtime, network, other bool) {
		r.Lock()
		defer r.Unlock()
		r.FakeStatus = &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{{Type: "RuntimeReady", Status: runtime},
			{Type: "NetworkReady", Status: network, Reason: "NetworkPluginNotReady"}, {Type: "ContainerdHasNoDeprecationWarnings", Status: other}}}
	}
	set(true, false, false)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); n.Run(ctx) }()
	defer func() { cancel(); <-done }()
	n.Up()
	ready := func() string {
		node, err := client.CoreV1().Nodes().Get(t.Context(), "n.example", metav1.GetOptions{})
		if err != nil {
			return ""
		}
		for _, cond := range node.Status.Conditions {
			if cond.Type == corev1.NodeReady {
				return cond.Reason + ": " + cond.Message
			}
		}
		return ""
	}
	const down = "KubeletNotReady: container runtime not ready: NetworkReady=false reason:NetworkPluginNotReady message:"
	until(t, "the network is not told to be missing", func() bool { return ready() == down })
	set(true, true, false)
	until(t, "the node is not ready", func() bool {
		c.Step(200 * time.Millisecond)
		return ready() == "KubeletReady: kubelet is posting ready status"
	})
}

func TestReadMachine(t *testing.T) {
	m, err := ReadMachine("/nonexistent/folder")
	if err != nil || m.Memory == 0 || m.CPUs == 0 || m.Storage == 0 || m.BootID == "" || m.Kernel == "" {
		t.Errorf("%+v %v", m, err)
	}
}
