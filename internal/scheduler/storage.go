package scheduler

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/storage/ephemeral"
	storagehelpers "k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/api/volume"
)

// The reasons of volumes, in Kubernetes' words.
const (
	reasonNoVolume      = "node(s) didn't find available persistent volumes to bind"
	reasonVolumeNode    = "node(s) didn't match PersistentVolume's node affinity"
	reasonNoSpace       = "node(s) did not have enough free storage"
	reasonVolumeGone    = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
	reasonVolumeZone    = "node(s) had no available volume zone"
	reasonOnePod        = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"
	reasonVolumeLimit   = "node(s) exceed max volume count"
	reasonUnboundClaims = "pod has unbound immediate PersistentVolumeClaims"
)

// Storage is what scheduling looks at for Pods with claims. It is not changed after it was made.
type Storage struct {
	Claims  map[types.NamespacedName]*corev1.PersistentVolumeClaim
	Volumes map[string]*corev1.PersistentVolume
	Classes map[string]*storagev1.StorageClass
	// Nodes and Drivers are what nodes and the cluster know of CSI drivers, by name.
	Nodes      map[string]*storagev1.CSINode
	Drivers    map[string]*storagev1.CSIDriver
	Capacities []*storagev1.CSIStorageCapacity
	Attached   []*storagev1.VolumeAttachment
	// Taken are volumes that are about to be bound, by name, with the uid of the claim; Selected are claims for which a volume is about to
	// be made, by uid, with the node. Both are known here before the API shows them.
	Taken    map[string]types.UID
	Selected map[types.UID]string
}

// claimsOf are the names of the claims that a Pod uses, in the order of its volumes.
func claimsOf(p *corev1.Pod) []string {
	var out []string
	for i := range p.Spec.Volumes {
		switch v := &p.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			out = append(out, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			out = append(out, ephemeral.VolumeClaimName(p, v))
		}
	}
	return out
}

func usesClaims(p *corev1.Pod) bool { return len(claimsOf(p)) > 0 }

// podVolumes are the claims of a Pod, worked out once and looked at for each node.
type podVolumes struct {
	s       *Storage
	pod     *corev1.Pod
	bound   []*corev1.PersistentVolumeClaim
	delayed []*corev1.PersistentVolumeClaim
	// busy says that a claim that one Pod alone may use is in use.
	busy bool
}

// newPodVolumes sorts the claims. A reason says why no node at all can take the Pod for now.
func newPodVolumes(pod *corev1.Pod, s *Snapshot) (pv podVolumes, reason string) {
	pv = podVolumes{s: s.Storage, pod: pod}
	if s.Storage == nil {
		return pv, ""
	}
	for i := range pod.Spec.Volumes {
		claim, why := s.Storage.claim(pod, &pod.Spec.Volumes[i])
		if why != "" {
			return pv, why
		}
		if claim == nil {
			continue
		}
		if slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteOncePod) && s.used(claim) {
			pv.busy = true
		}
		class := s.Storage.class(claim)
		switch delayed := class != nil && ptr.Deref(class.VolumeBindingMode, "") == storagev1.VolumeBindingWaitForFirstConsumer; {
		case claim.Spec.VolumeName != "" && metav1.HasAnnotation(claim.ObjectMeta, storagehelpers.AnnBindCompleted):
			pv.bound = append(pv.bound, claim)
		case delayed && claim.Spec.VolumeName == "":
			pv.delayed = append(pv.delayed, claim)
		default:
			return pv, reasonUnboundClaims
		}
	}
	return pv, ""
}

// claim finds the claim of a volume; nil for a volume without one. A reason says why the Pod cannot use it now.
func (s *Storage) claim(pod *corev1.Pod, v *corev1.Volume) (claim *corev1.PersistentVolumeClaim, reason string) {
	name := ""
	switch {
	case v.PersistentVolumeClaim != nil:
		name = v.PersistentVolumeClaim.ClaimName
	case v.Ephemeral != nil:
		name = ephemeral.VolumeClaimName(pod, v)
	default:
		return nil, ""
	}
	claim = s.Claims[types.NamespacedName{Namespace: pod.Namespace, Name: name}]
	switch {
	case claim == nil && v.Ephemeral != nil:
		return nil, fmt.Sprintf("waiting for ephemeral volume controller to create the persistentvolumeclaim %q", name)
	case claim == nil:
		return nil, fmt.Sprintf("persistentvolumeclaim %q not found", name)
	case claim.Status.Phase == corev1.ClaimLost:
		return nil, fmt.Sprintf("persistentvolumeclaim %q bound to non-existent persistentvolume %q", name, claim.Spec.VolumeName)
	case claim.DeletionTimestamp != nil:
		return nil, fmt.Sprintf("persistentvolumeclaim %q is being deleted", name)
	}
	if v.Ephemeral != nil {
		if err := ephemeral.VolumeIsForPod(pod, claim); err != nil {
			return nil, err.Error()
		}
	}
	return claim, ""
}

func (s *Storage) class(claim *corev1.PersistentVolumeClaim) *storagev1.StorageClass {
	name, _ := volume.ClassOf(claim)
	return s.Classes[name]
}

// used says whether a Pod on some node uses the claim.
func (s *Snapshot) used(claim *corev1.PersistentVolumeClaim) bool {
	for _, n := range s.Nodes {
		for _, p := range n.Pods {
			if p.Namespace == claim.Namespace && slices.Contains(claimsOf(p), claim.Name) {
				return true
			}
		}
	}
	return false
}

// restricted says why the node may not have the Pod's volumes beside those that it has. That may change when Pods go.
func (pv *podVolumes) restricted(n *NodeInfo) *rejection {
	if pv.s == nil {
		return nil
	}
	if pv.busy {
		return &rejection{reasons: []string{reasonOnePod}}
	}
	added := pv.s.handles(pv.pod)
	if len(added) == 0 {
		return nil
	}
	node := pv.s.Nodes[n.Node.Name]
	limits := map[string]int32{}
	if node != nil {
		for _, d := range node.Spec.Drivers {
			if a := d.Allocatable; a != nil && a.Count != nil {
				limits[d.Name] = *a.Count
			}
		}
	}
	for h := range added {
		driver := pv.s.Drivers[h.driver]
		if driver == nil || !ptr.Deref(driver.Spec.PreventPodSchedulingIfMissing, false) {
			continue
		}
		if node == nil || !slices.ContainsFunc(node.Spec.Drivers, func(d storagev1.CSINodeDriver) bool { return d.Name == h.driver }) {
			return &rejection{reasons: []string{h.driver + " CSI driver is not installed on the node"}}
		}
	}
	if len(limits) == 0 {
		return nil
	}
	there := map[handle]bool{}
	for _, p := range n.Pods {
		for h := range pv.s.handles(p) {
			there[h] = true
		}
	}
	for _, a := range pv.s.Attached {
		if v := pv.s.Volumes[ptr.Deref(a.Spec.Source.PersistentVolumeName, "")]; a.Spec.NodeName == n.Node.Name && v != nil && v.Spec.CSI != nil {
			there[handle{v.Spec.CSI.Driver, v.Spec.CSI.VolumeHandle}] = true
		}
	}
	count := map[string]int32{}
	for h := range added {
		there[h] = true
	}
	for h := range there {
		count[h.driver]++
	}
	for h := range added {
		if limit, ok := limits[h.driver]; ok && count[h.driver] > limit {
			return &rejection{reasons: []string{reasonVolumeLimit}}
		}
	}
	return nil
}

// handle is a volume as its CSI driver knows it; of one that is not made yet, the name is the claim's.
type handle struct{ driver, name string }

// handles are the volumes of CSI drivers that a Pod uses or will use.
func (s *Storage) handles(p *corev1.Pod) map[handle]bool {
	out := map[handle]bool{}
	for _, name := range claimsOf(p) {
		claim := s.Claims[types.NamespacedName{Namespace: p.Namespace, Name: name}]
		if claim == nil {
			continue
		}
		if v := s.Volumes[claim.Spec.VolumeName]; v != nil {
			if c := v.Spec.CSI; c != nil {
				out[handle{c.Driver, c.VolumeHandle}] = true
			}
			continue
		}
		if class := s.class(claim); class != nil && s.Drivers[class.Provisioner] != nil {
			out[handle{class.Provisioner, p.Namespace + "/" + name}] = true
		}
	}
	return out
}

// bindings is what must be done before a Pod can be bound to a node: volumes given to claims, and volumes asked for.
type bindings struct {
	static  []binding
	dynamic []*corev1.PersistentVolumeClaim
}

type binding struct {
	claim  *corev1.PersistentVolumeClaim
	volume *corev1.PersistentVolume
}

// place finds volumes for the Pod's claims on a node, or says why there are none.
func (pv *podVolumes) place(node *corev1.Node) (b bindings, r *rejection) {
	if pv.s == nil {
		return b, nil
	}
	reject := func(reasons ...string) (bindings, *rejection) {
		return bindings{}, &rejection{reasons: reasons, hopeless: true}
	}
	for _, claim := range pv.bound {
		v := pv.s.Volumes[claim.Spec.VolumeName]
		switch {
		case v == nil:
			return reject(reasonVolumeGone)
		case storagehelpers.CheckNodeAffinity(v, node.Labels) != nil:
			return reject(reasonVolumeNode)
		case !sameZone(v, node):
			return reject(reasonVolumeZone)
		}
	}
	chosen := map[string]*corev1.PersistentVolume{}
	for name, uid := range pv.s.Taken {
		if v := pv.s.Volumes[name]; v != nil && !slices.ContainsFunc(pv.delayed, func(c *corev1.PersistentVolumeClaim) bool { return c.UID == uid }) {
			chosen[name] = v
		}
	}
	for _, claim := range pv.delayed {
		selected, ok := claim.Annotations[storagehelpers.AnnSelectedNode]
		if about, soon := pv.s.Selected[claim.UID]; soon {
			selected, ok = about, true
		}
		if ok && selected != node.Name {
			return reject(reasonNoVolume)
		}
		if !ok {
			v, err := storagehelpers.FindMatchingVolume(claim, pv.s.sorted(), node, chosen, true, true)
			if err != nil {
				return reject(err.Error())
			}
			if v != nil {
				chosen[v.Name] = v
				b.static = append(b.static, binding{claim, v})
				continue
			}
		}
		if reason := pv.s.provisionable(claim, node); reason != "" {
			return reject(reason)
		}
		b.dynamic = append(b.dynamic, claim)
	}
	return b, nil
}

func (s *Storage) sorted() []*corev1.PersistentVolume {
	out := make([]*corev1.PersistentVolume, 0, len(s.Volumes))
	for _, v := range s.Volumes {
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b *corev1.PersistentVolume) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out
}

// provisionable says why no volume can be made for a claim on a node.
func (s *Storage) provisionable(claim *corev1.PersistentVolumeClaim, node *corev1.Node) string {
	class := s.class(claim)
	if class == nil || class.Provisioner == "" || class.Provisioner == storagehelpers.NotSupportedProvisioner || !allowed(class.AllowedTopologies, node) {
		return reasonNoVolume
	}
	driver := s.Drivers[class.Provisioner]
	if driver == nil || !ptr.Deref(driver.Spec.StorageCapacity, false) {
		return ""
	}
	want := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	for _, c := range s.Capacities {
		room := c.Capacity
		if c.MaximumVolumeSize != nil {
			room = c.MaximumVolumeSize
		}
		if c.StorageClassName != class.Name || room == nil || room.Value() < want.Value() || c.NodeTopology == nil {
			continue
		}
		if reach, err := metav1.LabelSelectorAsSelector(c.NodeTopology); err == nil && reach.Matches(labels.Set(node.Labels)) {
			return ""
		}
	}
	return reasonNoSpace
}

// allowed says whether a node is where volumes of a class may be made; no terms allow every node.
func allowed(terms []corev1.TopologySelectorTerm, node *corev1.Node) bool {
	return len(terms) == 0 || slices.ContainsFunc(terms, func(t corev1.TopologySelectorTerm) bool {
		return !slices.ContainsFunc(t.MatchLabelExpressions, func(e corev1.TopologySelectorLabelRequirement) bool {
			value, ok := node.Labels[e.Key]
			return !ok || !slices.Contains(e.Values, value)
		})
	})
}
