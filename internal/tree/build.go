package tree

import (
	"fmt"
	"sort"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"carob.dev/carob/internal/agent/processes"
)

// Object is one API object as the tree needs it: its metadata, what its status says, and the Pod itself if it is one.
type Object struct {
	APIVersion, Kind string
	metav1.ObjectMeta
	Ready, Reason, Replicas string
	Pod                     *corev1.Pod
}

// Filter says which part of the cluster to draw.
type Filter struct {
	// Namespace is empty for all.
	Namespace string
	// Selector picks Pods by their labels; with it only trees that hold such a Pod are drawn, and only those Pods in them.
	Selector labels.Selector
	// Kind and Name pick the root; Name may be empty for all of the Kind.
	Kind, Name string
}

// Build links owners and owned, hangs containers and processes below Pods, and leaves out what the filter does not ask for. Without a
// Kind, objects that own nothing and are no Pods are left out too.
func Build(in Input, f Filter) *Tree {
	nodes := map[types.UID]*Node{}
	objects := map[types.UID]Object{}
	running := map[string]processes.Pod{}
	for _, r := range in.Reports {
		for _, p := range r.Pods {
			running[p.UID] = p
		}
	}
	for _, o := range in.Objects {
		objects[o.UID] = o
		uid := string(o.UID)
		if own, ok := o.Annotations[corev1.MirrorPodAnnotationKey]; ok { // what it shows runs under the UID of the static Pod
			uid = own
		}
		nodes[o.UID] = toNode(o, running[uid])
	}
	var roots []*Node
	for uid, o := range objects {
		if parent := parentOf(o, nodes); parent != nil {
			parent.Children = append(parent.Children, nodes[uid])
		} else {
			roots = append(roots, nodes[uid])
		}
	}
	if f.Kind != "" {
		roots = nil
		for uid, o := range objects {
			if sameKind(o, f.Kind) && (f.Name == "" || o.Name == f.Name) {
				roots = append(roots, nodes[uid])
			}
		}
	}
	t := &Tree{Roots: []*Node{}}
	for _, r := range roots {
		if f.Namespace != "" && r.Namespace != f.Namespace {
			continue
		}
		if f.Kind == "" && r.Pod == nil && !holdsPod(r) {
			continue
		}
		if f.Selector != nil && !f.Selector.Empty() && !prune(r, objects, f.Selector) {
			continue
		}
		t.Roots = append(t.Roots, r)
	}
	sortNodes(t.Roots)
	return t
}

func sameKind(o Object, kind string) bool { return strings.EqualFold(o.Kind, kind) }

// parentOf is the owner that is the controller, else the first that exists.
func parentOf(o Object, nodes map[types.UID]*Node) *Node {
	if c := metav1.GetControllerOf(&o.ObjectMeta); c != nil && nodes[c.UID] != nil {
		return nodes[c.UID]
	}
	for _, r := range o.OwnerReferences {
		if n := nodes[r.UID]; n != nil {
			return n
		}
	}
	return nil
}

func holdsPod(n *Node) bool {
	for _, c := range n.Children {
		if c.Pod != nil || c.Kind == "ReplicaSet" || holdsPod(c) {
			return true
		}
	}
	return false
}

// prune drops the Pods that the selector does not pick and the branches left empty; false if nothing is left.
func prune(n *Node, objects map[types.UID]Object, s labels.Selector) bool {
	if n.Pod != nil {
		return s.Matches(labels.Set(objects[types.UID(n.UID)].Labels))
	}
	var kept []*Node
	for _, c := range n.Children {
		if prune(c, objects, s) {
			kept = append(kept, c)
		}
	}
	n.Children = kept
	return len(kept) > 0
}

// sortNodes orders by namespace, kind and name, all the way down; pause and containers keep the Pod's own order.
func sortNodes(list []*Node) {
	sort.SliceStable(list, func(i, j int) bool {
		a, b := list[i], list[j]
		if a.Type != "object" || b.Type != "object" {
			return false
		}
		return a.Namespace+"\x00"+a.Kind+"\x00"+a.Name < b.Namespace+"\x00"+b.Kind+"\x00"+b.Name
	})
	for _, n := range list {
		sortNodes(n.Children)
	}
}

func toNode(o Object, running processes.Pod) *Node {
	n := &Node{
		Type: "object", APIVersion: o.APIVersion, Kind: o.Kind, Namespace: o.Namespace, Name: o.Name, UID: string(o.UID),
		Ready: o.Ready, Reason: o.Reason, Replicas: o.Replicas,
	}
	if !o.CreationTimestamp.IsZero() {
		at := o.CreationTimestamp.Time.UTC().Truncate(time.Second)
		n.Created = &at
	}
	if o.Pod == nil {
		return n
	}
	n.Pod = &Pod{Phase: string(o.Pod.Status.Phase), IP: o.Pod.Status.PodIP, Node: o.Pod.Spec.NodeName}
	if o.Pod.DeletionTimestamp != nil {
		n.Pod.Phase = "Terminating"
	}
	for _, v := range o.Pod.Spec.Volumes {
		n.Pod.Volumes = append(n.Pod.Volumes, Volume{Name: v.Name, Source: volumeSource(v)})
	}
	if p := running.Pause; p != nil {
		n.Children = append(n.Children, &Node{Type: "pause", Name: "pause", Process: toProcess(*p)})
	}
	n.Children = append(n.Children, containers(o.Pod, running)...)
	return n
}

func containers(pod *corev1.Pod, running processes.Pod) []*Node {
	live := map[string]processes.Container{}
	for _, c := range running.Containers {
		live[c.Name] = c
	}
	var out []*Node
	add := func(role string, list []corev1.Container, statuses []corev1.ContainerStatus) {
		for _, c := range list {
			r := role
			if role == "init" && c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
				r = "sidecar"
			}
			out = append(out, container(r, c, statuses, live[c.Name]))
		}
	}
	add("init", pod.Spec.InitContainers, pod.Status.InitContainerStatuses)
	add("container", pod.Spec.Containers, pod.Status.ContainerStatuses)
	var ephemeral []corev1.Container
	for _, e := range pod.Spec.EphemeralContainers {
		ephemeral = append(ephemeral, corev1.Container(e.EphemeralContainerCommon))
	}
	add("ephemeral", ephemeral, pod.Status.EphemeralContainerStatuses)
	return out
}

func container(role string, c corev1.Container, statuses []corev1.ContainerStatus, live processes.Container) *Node {
	info := &Container{Image: c.Image, Role: role, State: "waiting"}
	for _, m := range c.VolumeMounts {
		s := m.Name + ":" + m.MountPath
		if m.ReadOnly {
			s += ":ro"
		}
		info.Mounts = append(info.Mounts, s)
	}
	for _, s := range statuses {
		if s.Name != c.Name {
			continue
		}
		info.ID, info.Ready, info.Restarts = s.ContainerID, s.Ready, s.RestartCount
		info.State, info.Detail = state(s.State)
	}
	n := &Node{Type: "container", Name: c.Name, Container: info}
	for _, p := range live.Processes {
		if info.Shares == nil {
			info.Shares = p.Shares
		}
		n.Children = append(n.Children, processNode(p))
	}
	return n
}

func state(s corev1.ContainerState) (state, detail string) {
	switch {
	case s.Running != nil:
		return "running", ""
	case s.Terminated != nil:
		return "terminated", fmt.Sprintf("%s, exit code %d", s.Terminated.Reason, s.Terminated.ExitCode)
	case s.Waiting != nil:
		return "waiting", s.Waiting.Reason
	}
	return "waiting", ""
}

func processNode(p processes.Process) *Node {
	n := &Node{Type: "process", Process: toProcess(p)}
	for _, c := range p.Children {
		n.Children = append(n.Children, processNode(c))
	}
	return n
}

func toProcess(p processes.Process) *Process {
	return &Process{PID: p.PID, Comm: p.Comm, Command: p.Command, RSSBytes: p.RSSBytes, Shares: p.Shares}
}

func volumeSource(v corev1.Volume) string {
	switch {
	case v.HostPath != nil:
		return "hostPath " + v.HostPath.Path
	case v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumMemory:
		return "emptyDir in memory"
	case v.EmptyDir != nil:
		return "emptyDir"
	case v.ConfigMap != nil:
		return "configMap " + v.ConfigMap.Name
	case v.Secret != nil:
		return "secret " + v.Secret.SecretName
	case v.DownwardAPI != nil:
		return "downwardAPI"
	case v.Projected != nil:
		return "projected"
	case v.PersistentVolumeClaim != nil:
		return "persistentVolumeClaim " + v.PersistentVolumeClaim.ClaimName
	}
	return "other"
}
