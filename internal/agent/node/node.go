// Package node tells the API of the machine: the Node object with its labels, status and conditions, and the lease that says that it lives.
//
// It may import sys, client-go and cri-api. It writes the status when it has changed, or every five minutes, and the lease every ten seconds.
package node

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"
)

const (
	statusEvery = 5 * time.Minute
	lookEvery   = 10 * time.Second // at most, when something has called for it
	readyEvery  = time.Second      // while the node is not ready, as before a runtime of others has its network
)

// Config is what a Node needs. All must be set but PodCIDR and Port.
type Config struct {
	Name    string
	Client  kubernetes.Interface
	Images  cri.ImageManagerService
	Runtime cri.RuntimeService
	MaxPods int
	PodCIDR netip.Prefix
	// IPs are its addresses now, the main one first.
	IPs     func() []netip.Addr
	Port    uint16
	Machine Machine
	// Reserved is what Pods never get.
	Reserved Reserved
	// Pressure are the conditions that tell of it; Urgent is to be called when they change. Nil: there never are any.
	Pressure func() []corev1.NodeConditionType
	// ShuttingDown says that the node puts its Pods to rest. Nil: it never does.
	ShuttingDown      func() bool
	KubernetesVersion string
	// RuntimeVersion is the runtime's name and version, as containerd://v2.4.2.
	RuntimeVersion string
	Recorder       record.EventRecorder
	Log            *slog.Logger
	Clock          clock.Clock
	// VolumesInUse are the attached volumes that the node may have mounted. Poke when they change. May be nil.
	VolumesInUse func() []corev1.UniqueVolumeName
}

// Node is this node's object in the API. What it last wrote belongs to Run's goroutine.
type Node struct {
	cfg    Config
	up     chan struct{}
	poke   chan struct{}
	urgent chan struct{}
	sent   *corev1.NodeStatus
	// images are those that were listed last.
	images []*runtimeapi.Image
}

// New returns a Node that does nothing before Run.
func New(cfg Config) *Node {
	return &Node{cfg: cfg, up: make(chan struct{}, 1), poke: make(chan struct{}, 1), urgent: make(chan struct{}, 1)}
}

// Allocatable is what the node can give to Pods.
func (n *Node) Allocatable() corev1.ResourceList { return allocatable(n.facts()) }

// Up says that the agent follows its Pods now: from here on the node is there and ready.
func (n *Node) Up() {
	select {
	case n.up <- struct{}{}:
	default:
	}
}

// Poke says that the list of images may have changed.
func (n *Node) Poke() {
	select {
	case n.poke <- struct{}{}:
	default:
	}
}

// Urgent says that what others decide by has changed: it is told at once.
func (n *Node) Urgent() {
	select {
	case n.urgent <- struct{}{}:
	default:
	}
}

func (n *Node) facts() facts {
	return facts{machine: n.cfg.Machine, reserved: n.cfg.Reserved, maxPods: n.cfg.MaxPods, ips: n.cfg.IPs(), port: n.cfg.Port, kubernetesVersion: n.cfg.KubernetesVersion, runtimeVersion: n.cfg.RuntimeVersion}
}

// Run registers the node once it is Up and keeps it current until ctx ends.
func (n *Node) Run(ctx context.Context) {
	select {
	case <-n.up:
	case <-ctx.Done():
		return
	}
	wait := 100 * time.Millisecond
	for {
		err := n.register(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return
		}
		n.cfg.Log.Warn("register the node", "error", err)
		if !n.sleep(ctx, wait) {
			return
		}
		wait = min(2*wait, 7*time.Second)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.renew(ctx)
	}()
	defer func() { <-done }()
	next := n.cfg.Clock.Now().Add(statusEvery)
	for {
		wait, pause := max(next.Sub(n.cfg.Clock.Now()), 0), lookEvery
		if !isReady(n.sent) {
			wait, pause = min(wait, readyEvery), readyEvery
		}
		timer := n.cfg.Clock.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-n.poke:
			timer.Stop()
			timer = n.cfg.Clock.NewTimer(pause)
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case <-n.urgent:
				timer.Stop()
			case <-timer.C():
			}
		case <-n.urgent:
			timer.Stop()
		case <-timer.C():
		}
		due := !n.cfg.Clock.Now().Before(next)
		if err := n.report(ctx, due); err != nil {
			n.cfg.Log.Warn("report the node's status", "error", err)
			next = n.cfg.Clock.Now().Add(lookEvery)
		} else if due {
			next = n.cfg.Clock.Now().Add(statusEvery)
		}
	}
}

func (n *Node) sleep(ctx context.Context, d time.Duration) bool {
	timer := n.cfg.Clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C():
		return true
	case <-ctx.Done():
		return false
	}
}

// look reads what may change.
func (n *Node) look(ctx context.Context) facts {
	f := n.facts()
	st, err := n.cfg.Runtime.Status(ctx, false)
	if err != nil {
		f.notReady = "container runtime is down: " + err.Error()
	} else if list, err := n.cfg.Images.ListImages(ctx, nil); err != nil {
		n.cfg.Log.Warn("list images", "error", err)
	} else {
		n.images = list
	}
	if n.cfg.Pressure != nil {
		f.pressure = n.cfg.Pressure()
	}
	f.images = n.images
	if n.cfg.ShuttingDown != nil && n.cfg.ShuttingDown() && f.notReady == "" {
		f.notReady = "node is shutting down"
	}
	f.handlers, f.features = st.GetRuntimeHandlers(), st.GetFeatures()
	for _, c := range st.GetStatus().GetConditions() {
		if !c.GetStatus() && (c.GetType() == runtimeapi.RuntimeReady || c.GetType() == runtimeapi.NetworkReady) { // others are a runtime's own
			f.notReady = fmt.Sprintf("container runtime not ready: %s=false reason:%s message:%s", c.GetType(), c.GetReason(), c.GetMessage())
		}
	}
	return f
}

// register makes the Node object, or brings the one that is there up to date.
func (n *Node) register(ctx context.Context) error {
	f, now := n.look(ctx), n.cfg.Clock.Now()
	want := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.cfg.Name, Labels: labels(n.cfg.Name, n.cfg.Machine)}, Status: status(f, &corev1.NodeStatus{}, now)}
	if n.cfg.PodCIDR.IsValid() {
		want.Spec.PodCIDR = n.cfg.PodCIDR.String()
		want.Spec.PodCIDRs = []string{want.Spec.PodCIDR}
	}
	nodes := n.cfg.Client.CoreV1().Nodes()
	have, err := nodes.Create(ctx, want, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		if have, err = nodes.Get(ctx, n.cfg.Name, metav1.GetOptions{}); err == nil {
			have, err = n.relabel(ctx, have, want)
		}
	}
	if err != nil {
		return err
	}
	was := isReady(&have.Status)
	n.sent = &have.Status
	if err := n.write(ctx, status(f, &have.Status, now)); err != nil {
		return err
	}
	if !was || have.Status.NodeInfo.BootID != n.cfg.Machine.BootID {
		n.event("Starting", "Starting kubelet.")
	}
	if isReady(n.sent) {
		n.event("NodeReady", fmt.Sprintf("Node %s status is now: NodeReady", n.cfg.Name))
	}
	return nil
}

func isReady(s *corev1.NodeStatus) bool {
	for _, c := range s.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func (n *Node) event(reason, message string) {
	ref := &corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: n.cfg.Name, UID: types.UID(n.cfg.Name)}
	n.cfg.Recorder.Event(ref, corev1.EventTypeNormal, reason, message)
}

// relabel puts the node's own labels, and its range of addresses if it has none, on an object that is there.
func (n *Node) relabel(ctx context.Context, have, want *corev1.Node) (*corev1.Node, error) {
	fresh := have.DeepCopy()
	if fresh.Labels == nil {
		fresh.Labels = map[string]string{}
	}
	for k, v := range want.Labels {
		fresh.Labels[k] = v
	}
	if fresh.Spec.PodCIDR == "" {
		fresh.Spec.PodCIDR, fresh.Spec.PodCIDRs = want.Spec.PodCIDR, want.Spec.PodCIDRs
	}
	if apiequality.Semantic.DeepEqual(fresh, have) {
		return have, nil
	}
	return n.cfg.Client.CoreV1().Nodes().Update(ctx, fresh, metav1.UpdateOptions{})
}

// report writes the status if it has changed, or anyway when it is due.
func (n *Node) report(ctx context.Context, due bool) error {
	s := status(n.look(ctx), n.sent, n.cfg.Clock.Now())
	s.VolumesInUse = n.volumesInUse()
	if !due && apiequality.Semantic.DeepEqual(withoutHeartbeats(s), withoutHeartbeats(*n.sent)) {
		return nil
	}
	told := changes(n.sent.Conditions, s.Conditions)
	if err := n.write(ctx, s); err != nil {
		return err
	}
	for _, reason := range told {
		n.event(reason, fmt.Sprintf("Node %s status is now: %s", n.cfg.Name, reason))
	}
	return nil
}

func (n *Node) volumesInUse() []corev1.UniqueVolumeName {
	if n.cfg.VolumesInUse == nil {
		return nil
	}
	return n.cfg.VolumesInUse()
}

func withoutHeartbeats(s corev1.NodeStatus) corev1.NodeStatus {
	s.Conditions = append([]corev1.NodeCondition{}, s.Conditions...)
	for i := range s.Conditions {
		s.Conditions[i].LastHeartbeatTime = metav1.Time{}
	}
	return s
}

// write turns the status that the API has into s; conditions and fields that are not the agent's stay.
func (n *Node) write(ctx context.Context, s corev1.NodeStatus) error {
	before := n.sent.DeepCopy()
	kept := before.Conditions[:0]
	for _, c := range before.Conditions {
		for _, own := range s.Conditions {
			if c.Type == own.Type {
				kept = append(kept, c)
			}
		}
	}
	before.Conditions = kept
	s.VolumesAttached, s.Config, s.Phase = before.VolumesAttached, before.Config, before.Phase
	old, err := json.Marshal(corev1.Node{Status: *before})
	if err != nil {
		return err
	}
	fresh, err := json.Marshal(corev1.Node{Status: s})
	if err != nil {
		return err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(old, fresh, corev1.Node{})
	if err != nil {
		return fmt.Errorf("node status: %w", err)
	}
	if string(patch) == "{}" {
		n.sent = &s
		return nil
	}
	if _, err := n.cfg.Client.CoreV1().Nodes().Patch(ctx, n.cfg.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		return err
	}
	n.sent = &s
	return nil
}
