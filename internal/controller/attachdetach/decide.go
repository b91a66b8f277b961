package attachdetach

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/storage/ephemeral"
)

// forceAfter is how long a node that is not ready may say that it uses a volume which no Pod of it needs, before the volume is detached all the
// same.
const forceAfter = 6 * time.Minute

// view is all that a decision depends on.
type view struct {
	pods        []*corev1.Pod
	claim       func(namespace, name string) *corev1.PersistentVolumeClaim
	volume      func(name string) *corev1.PersistentVolume
	driver      func(name string) *storagev1.CSIDriver
	nodes       map[string]*corev1.Node
	attachments []*storagev1.VolumeAttachment
	// unwanted says since when an attachment has been needed by no Pod.
	unwanted map[string]time.Time
	now      time.Time
}

// attachment is one volume at one node.
type attachment struct {
	pv   *corev1.PersistentVolume
	node string
	// pods are those that need it there.
	pods []*corev1.Pod
}

func (a attachment) name() string {
	c := a.pv.Spec.CSI
	return attachmentName(c.VolumeHandle, c.Driver, a.node)
}

// attachmentName is the name that Kubernetes gives to the VolumeAttachment of a volume to a node.
func attachmentName(handle, driver, node string) string {
	sum := sha256.Sum256([]byte(handle + driver + node))
	return namePrefix + hex.EncodeToString(sum[:])
}

const namePrefix = "csi-"

// ours says whether an attachment may have been made by this controller: others are nobody's business.
func ours(a *storagev1.VolumeAttachment) bool {
	raw, ok := strings.CutPrefix(a.Name, namePrefix)
	if !ok || len(raw) != 2*sha256.Size || a.Spec.Source.PersistentVolumeName == nil {
		return false
	}
	_, err := hex.DecodeString(raw)
	return err == nil
}

// decision is what is to be done.
type decision struct {
	attach []attachment
	detach []string
	// blocked cannot be attached, for another node has the volume; the message says so.
	blocked []attachment
	// present are those that an attachment exists for.
	present []attachment
	// unwanted is for the next view; again is when time alone may change something, zero for never.
	unwanted map[string]time.Time
	again    time.Time
	// attached are the volumes that are attached, by node, as the node's status tells them.
	attached map[string][]corev1.AttachedVolume
}

// decide compares what Pods need with what is attached.
func decide(v view) decision {
	want := wanted(v)
	d := decision{unwanted: map[string]time.Time{}, attached: map[string][]corev1.AttachedVolume{}}
	have := map[string]*storagev1.VolumeAttachment{}
	// elsewhere are the nodes that have a volume.
	elsewhere := map[string][]string{}
	for _, a := range v.attachments {
		if a.Spec.Source.PersistentVolumeName == nil {
			continue
		}
		have[a.Name] = a
		pv := v.volume(*a.Spec.Source.PersistentVolumeName)
		elsewhere[*a.Spec.Source.PersistentVolumeName] = append(elsewhere[*a.Spec.Source.PersistentVolumeName], a.Spec.NodeName)
		if a.Status.Attached && pv != nil && pv.Spec.CSI != nil {
			d.attached[a.Spec.NodeName] = append(d.attached[a.Spec.NodeName], corev1.AttachedVolume{Name: uniqueName(pv)})
		}
		if _, ok := want[a.Name]; ok || !ours(a) || a.DeletionTimestamp != nil {
			continue
		}
		d.unwant(v, a, pv)
	}
	for _, list := range d.attached {
		slices.SortFunc(list, func(a, b corev1.AttachedVolume) int { return cmp.Compare(a.Name, b.Name) })
	}
	for _, name := range sorted(want) {
		w := want[name]
		others := slices.DeleteFunc(slices.Clone(elsewhere[w.pv.Name]), func(n string) bool { return n == w.node })
		switch {
		case have[name] != nil:
			d.present = append(d.present, w)
		case v.nodes[w.node] == nil:
		case len(others) > 0 && !sharable(w.pv):
			d.blocked = append(d.blocked, w)
		default:
			elsewhere[w.pv.Name] = append(elsewhere[w.pv.Name], w.node)
			d.attach = append(d.attach, w)
		}
	}
	return d
}

// unwant detaches what no Pod needs, once the node does not use it any more or cannot be asked.
func (d *decision) unwant(v view, a *storagev1.VolumeAttachment, pv *corev1.PersistentVolume) {
	since, ok := v.unwanted[a.Name]
	if !ok {
		since = v.now
	}
	node := v.nodes[a.Spec.NodeName]
	using := node != nil && pv != nil && pv.Spec.CSI != nil && slices.Contains(node.Status.VolumesInUse, uniqueName(pv))
	switch due := since.Add(forceAfter); {
	case !using, outOfService(node), !ready(node) && !v.now.Before(due):
		d.detach = append(d.detach, a.Name)
		return
	case !ready(node) && (d.again.IsZero() || due.Before(d.again)):
		d.again = due
	}
	d.unwanted[a.Name] = since
}

// wanted are the attachments that Pods on nodes need, by name.
func wanted(v view) map[string]attachment {
	want := map[string]attachment{}
	for _, p := range v.pods {
		if p.Spec.NodeName == "" || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		for i := range p.Spec.Volumes {
			pv := volumeOf(v, p, &p.Spec.Volumes[i])
			if pv == nil || pv.Spec.CSI == nil {
				continue
			}
			if o := v.driver(pv.Spec.CSI.Driver); o != nil && o.Spec.AttachRequired != nil && !*o.Spec.AttachRequired {
				continue
			}
			a := attachment{pv: pv, node: p.Spec.NodeName}
			if have, ok := want[a.name()]; ok {
				a = have
			}
			a.pods = append(a.pods, p)
			want[a.name()] = a
		}
	}
	return want
}

// volumeOf is the volume that the claim of one of the Pod's volumes is bound to; nil if there is none yet.
func volumeOf(v view, p *corev1.Pod, vol *corev1.Volume) *corev1.PersistentVolume {
	name := ""
	switch {
	case vol.PersistentVolumeClaim != nil:
		name = vol.PersistentVolumeClaim.ClaimName
	case vol.Ephemeral != nil:
		name = ephemeral.VolumeClaimName(p, vol)
	default:
		return nil
	}
	c := v.claim(p.Namespace, name)
	if c == nil || c.Status.Phase != corev1.ClaimBound || c.Spec.VolumeName == "" || vol.Ephemeral != nil && !metav1.IsControlledBy(c, p) {
		return nil
	}
	pv := v.volume(c.Spec.VolumeName)
	if pv == nil || pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != c.UID {
		return nil
	}
	return pv
}

// sharable says whether several nodes may have the volume at once.
func sharable(pv *corev1.PersistentVolume) bool {
	return slices.Contains(pv.Spec.AccessModes, corev1.ReadWriteMany) || slices.Contains(pv.Spec.AccessModes, corev1.ReadOnlyMany)
}

func uniqueName(pv *corev1.PersistentVolume) corev1.UniqueVolumeName {
	return corev1.UniqueVolumeName("kubernetes.io/csi/" + pv.Spec.CSI.Driver + "^" + pv.Spec.CSI.VolumeHandle)
}

func ready(n *corev1.Node) bool {
	return n != nil && slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// outOfService says that somebody vouches for the node's not running any more.
func outOfService(n *corev1.Node) bool {
	return n != nil && slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
}

func sorted(m map[string]attachment) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
