package attachdetach

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
)

// world is a volume with its claim, two nodes, and Pods that may want it.
type world struct {
	pv      *corev1.PersistentVolume
	claim   *corev1.PersistentVolumeClaim
	driver  *storagev1.CSIDriver
	one     *corev1.Node
	two     *corev1.Node
	pods    []*corev1.Pod
	have    []*storagev1.VolumeAttachment
	unwant  map[string]time.Time
	elapsed time.Duration
}

var start = time.Unix(1000, 0)

func newWorld() *world {
	node := func(name string) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{nodeIDAnnotation: "{}"}},
			Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}}
	}
	return &world{one: node("one"), two: node("two"),
		pv: &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{ClaimRef: &corev1.ObjectReference{UID: "u"},
			AccessModes:            []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "d", VolumeHandle: "h"}}}},
		claim: &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "ns", UID: "u"}, Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "pv"},
			Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound}}}
}

func (w *world) pod(node string, phase corev1.PodPhase) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p" + node, Namespace: "ns", UID: types.UID("p" + node)}, Spec: corev1.PodSpec{NodeName: node, Volumes: []corev1.Volume{
		{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}}}, Status: corev1.PodStatus{Phase: phase}}
	w.pods = append(w.pods, p)
	return p
}

func (w *world) attach(node string) {
	w.have = append(w.have, &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: attachmentName("h", "d", node)},
		Spec: storagev1.VolumeAttachmentSpec{Attacher: "d", NodeName: node, Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: ptr.To("pv")}}})
}

func (w *world) view() view {
	return view{pods: w.pods, attachments: w.have, unwanted: w.unwant, now: start.Add(w.elapsed), nodes: map[string]*corev1.Node{"one": w.one, "two": w.two},
		claim: func(_, name string) *corev1.PersistentVolumeClaim {
			if name != w.claim.Name {
				return nil
			}
			return w.claim
		},
		volume: func(string) *corev1.PersistentVolume { return w.pv },
		driver: func(string) *storagev1.CSIDriver { return w.driver }}
}

func TestDecide(t *testing.T) {
	long := map[string]time.Time{attachmentName("h", "d", "one"): start.Add(-forceAfter)}
	inUse := []corev1.UniqueVolumeName{"kubernetes.io/csi/d^h"}
	for _, tc := range []struct {
		name                    string
		change                  func(w *world)
		attach, detach, blocked string
		again                   bool
	}{
		{"a Pod needs it", func(w *world) { w.pod("one", "") }, "one", "", "", false},
		{"not on a node yet", func(w *world) { w.pod("", "") }, "", "", "", false},
		{"on no node that there is", func(w *world) { w.pod("three", "") }, "", "", "", false},
		{"two Pods on a node", func(w *world) { w.pod("one", ""); w.pod("one", corev1.PodRunning) }, "one", "", "", false},
		{"the Pod has ended", func(w *world) { w.pod("one", corev1.PodFailed) }, "", "", "", false},
		{"the driver attaches nothing", func(w *world) {
			w.pod("one", "")
			w.driver = &storagev1.CSIDriver{Spec: storagev1.CSIDriverSpec{AttachRequired: ptr.To(false)}}
		}, "", "", "", false},
		{"the claim is pending", func(w *world) { w.pod("one", ""); w.claim.Status.Phase = corev1.ClaimPending }, "", "", "", false},
		{"the volume is another's", func(w *world) { w.pod("one", ""); w.pv.Spec.ClaimRef.UID = "x" }, "", "", "", false},
		{"somebody else's claim for an ephemeral volume", func(w *world) {
			w.pod("one", "").Spec.Volumes[0].VolumeSource = corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}
			w.claim.Name = "pone-v"
		}, "", "", "", false},
		{"attached already", func(w *world) { w.pod("one", ""); w.attach("one") }, "", "", "", false},
		{"attached elsewhere", func(w *world) { w.pod("one", ""); w.pod("two", ""); w.attach("one") }, "", "", "two", false},
		{"two nodes at once", func(w *world) { w.pod("one", ""); w.pod("two", "") }, "one", "", "two", false},
		{"for many nodes", func(w *world) {
			w.pod("one", "")
			w.pod("two", "")
			w.attach("one")
			w.pv.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
		}, "two", "", "", false},
		{"nobody needs it", func(w *world) { w.attach("one") }, "", "one", "", false},
		{"nobody needs it but it is mounted", func(w *world) { w.attach("one"); w.one.Status.VolumesInUse = inUse }, "", "", "", false},
		{"mounted for long on a node that is well", func(w *world) { w.attach("one"); w.one.Status.VolumesInUse, w.unwant = inUse, long }, "", "", "", false},
		{"mounted on a lost node", func(w *world) { w.attach("one"); w.one.Status = corev1.NodeStatus{VolumesInUse: inUse} }, "", "", "", true},
		{"mounted for long on a lost node", func(w *world) {
			w.attach("one")
			w.one.Status, w.unwant = corev1.NodeStatus{VolumesInUse: inUse}, long
		}, "", "one", "", false},
		{"mounted on a node that is out of service", func(w *world) {
			w.attach("one")
			w.one.Status.VolumesInUse, w.one.Spec.Taints = inUse, []corev1.Taint{{Key: corev1.TaintNodeOutOfService}}
		}, "", "one", "", false},
		{"the node is gone", func(w *world) { w.attach("gone") }, "", "gone", "", false},
		{"somebody else's attachment", func(w *world) { w.attach("one"); w.have[0].Name = "mine" }, "", "", "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld()
			tc.change(w)
			d := decide(w.view())
			nodes := func(list []attachment) string {
				var names []string
				for _, a := range list {
					names = append(names, a.node)
				}
				return strings.Join(names, " ")
			}
			var detached []string
			for _, name := range d.detach {
				for _, a := range w.have {
					if a.Name == name {
						detached = append(detached, a.Spec.NodeName)
					}
				}
			}
			got := []string{nodes(d.attach), strings.Join(detached, " "), nodes(d.blocked)}
			if diff := cmp.Diff([]string{tc.attach, tc.detach, tc.blocked}, got); diff != "" || !d.again.IsZero() != tc.again {
				t.Errorf("again %v, %s", d.again, diff)
			}
		})
	}
}

// TestController has a volume attached for a Pod, told of, and detached after it.
func TestController(t *testing.T) {
	w := newWorld()
	client := fake.NewClientset(w.pv, w.claim, w.pod("one", ""))
	recorder := record.NewFakeRecorder(100)
	factory := informers.NewSharedInformerFactory(client, 0)
	c, err := New(Config{Client: client, Informers: factory, Recorder: recorder, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	factory.StartWithContext(ctx)
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		factory.Shutdown()
	}()
	client.CoreV1().Nodes().Create(ctx, w.one, metav1.CreateOptions{}) // with the first driver
	name := attachmentName("h", "d", "one")
	api := client.StorageV1().VolumeAttachments()
	var a *storagev1.VolumeAttachment
	eventually(t, "the attachment", func() bool { a, err = api.Get(ctx, name, metav1.GetOptions{}); return err == nil })
	a.Status.AttachError = &storagev1.VolumeError{Message: "no such disk"}
	api.Update(ctx, a, metav1.UpdateOptions{})
	if got := <-recorder.Events; got != `Warning FailedAttachVolume AttachVolume.Attach failed for volume "pv" : no such disk` {
		t.Error(got)
	}
	a.Status = storagev1.VolumeAttachmentStatus{Attached: true}
	api.Update(ctx, a, metav1.UpdateOptions{})
	if got := <-recorder.Events; got != `Normal SuccessfulAttachVolume AttachVolume.Attach succeeded for volume "pv" ` {
		t.Error(got)
	}
	eventually(t, "the node's status", func() bool {
		n, err := client.CoreV1().Nodes().Get(ctx, "one", metav1.GetOptions{})
		return err == nil && len(n.Status.VolumesAttached) == 1 && n.Status.VolumesAttached[0].Name == "kubernetes.io/csi/d^h"
	})
	client.CoreV1().Pods("ns").Delete(ctx, "pone", metav1.DeleteOptions{})
	eventually(t, "the end of the attachment", func() bool {
		_, err := api.Get(ctx, name, metav1.GetOptions{})
		n, _ := client.CoreV1().Nodes().Get(ctx, "one", metav1.GetOptions{})
		return err != nil && len(n.Status.VolumesAttached) == 0
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("%s: not within ten seconds", what)
}
