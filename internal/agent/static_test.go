package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// withManifests gives the bench a folder of static Pods, and its API the habit of giving objects a UID.
func withManifests(t *testing.T) (b *bench, put func(name, image string), remove func(name string)) {
	t.Helper()
	dir := t.TempDir()
	b = newBench(t, pod("other", corev1.RestartPolicyAlways, "o"))
	b.stop()
	var n atomic.Int64
	b.client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		p := a.(clienttesting.CreateAction).GetObject().(*corev1.Pod)
		p.UID, p.ResourceVersion = types.UID(fmt.Sprintf("uid-%d", n.Add(1))), ""
		return false, nil, nil
	})
	b.cfg.PodManifests = dir
	put = func(name, image string) {
		t.Helper()
		text := fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: ns}\nspec: {terminationGracePeriodSeconds: 1, containers: [{name: s, image: %s, imagePullPolicy: IfNotPresent}]}\n", name, image)
		if err := os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return b, put, func(name string) {
		t.Helper()
		if err := os.Remove(filepath.Join(dir, name+".yaml")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStaticPod follows a static Pod through its life: the API shows it, and decides nothing about it.
func TestStaticPod(t *testing.T) {
	b, put, remove := withManifests(t)
	put("web", "busybox")
	b.start()
	b.untilPod("web-n1", "is shown running", running(1))
	m := b.get("web-n1")
	hash := m.Annotations["kubernetes.io/config.hash"]
	if hash == "" || m.Annotations["kubernetes.io/config.mirror"] != hash || m.Annotations["kubernetes.io/config.source"] != "file" || m.Annotations["kubernetes.io/config.seen"] == "" ||
		len(m.OwnerReferences) != 1 || m.OwnerReferences[0].Kind != "Node" || m.OwnerReferences[0].Name != "n1" || !*m.OwnerReferences[0].Controller {
		t.Errorf("%+v", m.ObjectMeta)
	}
	id := m.Status.ContainerStatuses[0].ContainerID
	if v, ok := b.agent.View("ns", "web-n1", ""); !ok || string(v.Pod.UID) != hash {
		t.Errorf("the server does not know it: %v", ok)
	}

	t.Log("deleting the mirror changes nothing")
	b.delete("web-n1", 30)
	b.until("there is another mirror", func() bool {
		p := b.get("web-n1")
		return p != nil && p.UID != m.UID && running(1)(p)
	})
	if p := b.get("web-n1"); p.Status.ContainerStatuses[0].ContainerID != id || p.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("%+v", p.Status.ContainerStatuses)
	}

	t.Log("it is started again, and the API is told")
	b.runtime.exits("s", 3)
	b.untilPod("web-n1", "shows the restart", func(p *corev1.Pod) bool {
		return running(1)(p) && p.Status.ContainerStatuses[0].RestartCount == 1 && p.Status.ContainerStatuses[0].LastTerminationState.Terminated.ExitCode == 3
	})
	id = b.get("web-n1").Status.ContainerStatuses[0].ContainerID

	t.Log("another agent takes it up")
	b.stop()
	b.start()
	b.until("the agent knows it", func() bool { _, ok := b.agent.View("ns", "web-n1", ""); return ok })
	b.untilPod("web-n1", "still runs", running(1))
	if got := b.get("web-n1").Status.ContainerStatuses[0]; got.ContainerID != id || got.RestartCount != 1 {
		t.Errorf("it was started anew: %+v", got)
	}

	t.Log("another manifest is another Pod")
	old := b.get("web-n1").UID
	put("web", "busybox:latest")
	b.until("the other one runs", func() bool {
		p := b.get("web-n1")
		return p != nil && p.UID != old && running(1)(p) && p.Annotations["kubernetes.io/config.hash"] != hash && p.Status.ContainerStatuses[0].RestartCount == 0
	})
	b.until("one runs", func() bool { return b.runtime.count() == 2 }) // and the Pod of the API

	t.Log("without its manifest it goes")
	remove("web")
	b.until("it is gone", func() bool { return b.get("web-n1") == nil && b.runtime.count() == 1 })
	if b.get("other") == nil {
		t.Error("the Pod of the API is gone too")
	}
}

// TestStaticPodWithoutAPI: it goes on and is started again while the API does not answer, and the API is told afterwards.
func TestStaticPodWithoutAPI(t *testing.T) {
	b, put, _ := withManifests(t)
	put("web", "busybox")
	b.start()
	b.untilPod("web-n1", "is shown running", running(1))
	b.untilPod("other", "runs", running(1))
	var away atomic.Bool
	b.client.PrependReactor("*", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		return away.Load(), nil, errors.New("the API server is away")
	})
	away.Store(true)
	b.runtime.exits("s", 1)
	b.runtime.exits("o", 1)
	b.until("both are started again", func() bool { return b.runtime.started("s") == 2 && b.runtime.started("o") == 2 })
	put("late", "busybox")
	b.until("a new one is started", func() bool { return b.runtime.started("s") == 3 })
	away.Store(false)
	for _, name := range []string{"web-n1", "other"} {
		b.untilPod(name, "shows the restart", func(p *corev1.Pod) bool { return running(1)(p) && p.Status.ContainerStatuses[0].RestartCount == 1 })
	}
	b.untilPod("late-n1", "is shown", running(1))
}

// TestStandalone runs static Pods with an API that must not be asked.
func TestStandalone(t *testing.T) {
	b, put, remove := withManifests(t)
	b.client = fake.NewClientset()
	asked := atomic.Int64{}
	b.client.PrependReactor("*", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		asked.Add(1)
		return true, nil, errors.New("there is no API server")
	})
	b.cfg.Client, b.cfg.Standalone = b.client, true
	put("web", "busybox")
	b.start()
	b.until("it runs", func() bool { return b.runtime.started("s") == 1 })
	b.runtime.exits("s", 1)
	b.until("it is started again", func() bool { return b.runtime.started("s") == 2 })
	b.stop()
	b.start()
	b.until("the agent knows it", func() bool { v, ok := b.agent.View("ns", "web-n1", ""); return ok && v.Logs["s"].RunningID != "" })
	if n := b.runtime.started("s"); n != 2 {
		t.Errorf("it was started %d times", n)
	}
	remove("web")
	b.until("it is gone", func() bool { return b.runtime.count() == 0 })
	if n := asked.Load(); n != 0 {
		t.Errorf("the API was asked %d times", n)
	}
}

// TestMirrorOfNothing: a mirror that no manifest stands behind is removed.
func TestMirrorOfNothing(t *testing.T) {
	left := pod("left-n1", corev1.RestartPolicyAlways, "s")
	left.Annotations = map[string]string{"kubernetes.io/config.source": "file", "kubernetes.io/config.mirror": "x", "kubernetes.io/config.hash": "x"}
	b := newBench(t, left)
	b.until("it is gone", func() bool { return b.get("left-n1") == nil })
	if n := b.runtime.started("s"); n != 0 {
		t.Errorf("it was started %d times", n)
	}
}

// TestInvalidManifest is told by an event at the node.
func TestInvalidManifest(t *testing.T) {
	b, _, _ := withManifests(t)
	if err := os.WriteFile(filepath.Join(b.cfg.PodManifests, "bad.yaml"), []byte("kind: Pod"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.start()
	all := ""
	b.until("an event", func() bool {
		all += b.eventTexts()
		return strings.Contains(all, "Warning InvalidStaticPod The manifest ")
	})
	time.Sleep(10 * time.Millisecond)
	if n := strings.Count(all+b.eventTexts(), "InvalidStaticPod"); n != 1 {
		t.Errorf("told %d times", n)
	}
}

// started is how often a container of the name was started.
func (r *fakeRuntime) started(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.starts[name]
}

// count is how many containers run.
func (r *fakeRuntime) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, c := range r.containers {
		if c.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
			n++
		}
	}
	return n
}
