package volume

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

const (
	notPositive  = "must be greater than zero"
	useClassName = `deprecated since v1.8; use "storageClassName" attribute instead`
)

// Default fills in what a volume leaves out.
func Default(v *corev1.PersistentVolume) {
	if v.Status.Phase == "" {
		v.Status.Phase = corev1.VolumePending
	}
	DefaultSpec(&v.Spec)
	if v.Spec.PersistentVolumeReclaimPolicy == "" {
		v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	}
	fillPointer(&v.Spec.VolumeMode, corev1.PersistentVolumeFilesystem)
}

// milliScale rounds quantities up to thousandths, the finest that the API keeps.
func milliScale(list corev1.ResourceList) {
	for name, q := range list {
		q.RoundUp(resource.Milli)
		list[name] = q
	}
}

func required(at *field.Path, value string) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	return nil
}

func amount(at *field.Path, q resource.Quantity) field.ErrorList {
	if q.Value() < 0 {
		return field.ErrorList{field.Invalid(at, q.Value(), "must be a valid resource quantity")}
	}
	return nil
}

func amounts(at *field.Path, list corev1.ResourceList) field.ErrorList {
	var errs field.ErrorList
	for name, q := range list {
		errs = append(errs, amount(at.Key(string(name)), q)...)
	}
	return errs
}

func volumeMode(at *field.Path, mode *corev1.PersistentVolumeMode) field.ErrorList {
	if mode == nil {
		return nil
	}
	return rule.Known(at, *mode, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)
}

// accessModes wants known modes, and ReadWriteOncePod alone.
func accessModes(at *field.Path, modes []corev1.PersistentVolumeAccessMode) field.ErrorList {
	var errs field.ErrorList
	pod, other := false, false
	for _, m := range modes {
		wrong := rule.Known(at, m, corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod)
		errs = append(errs, wrong...)
		pod = pod || m == corev1.ReadWriteOncePod
		other = other || m != corev1.ReadWriteOncePod && len(wrong) == 0
	}
	if pod && other {
		errs = append(errs, field.Forbidden(at, "may not use ReadWriteOncePod with other access modes"))
	}
	return errs
}

// Spec checks the spec of a volume, but for its node affinity, which the caller checks. name is the volume's.
func Spec(at *field.Path, s *corev1.PersistentVolumeSpec, name string) field.ErrorList {
	var errs field.ErrorList
	if len(s.AccessModes) == 0 {
		errs = append(errs, field.Required(at.Child("accessModes"), ""))
	}
	errs = append(errs, accessModes(at.Child("accessModes"), s.AccessModes)...)
	capacity := at.Child("capacity")
	if len(s.Capacity) == 0 {
		errs = append(errs, field.Required(capacity, ""))
	}
	if _, ok := s.Capacity[corev1.ResourceStorage]; !ok || len(s.Capacity) > 1 {
		errs = append(errs, field.NotSupported(capacity, s.Capacity, []corev1.ResourceName{corev1.ResourceStorage}))
	}
	for r, q := range s.Capacity {
		errs = append(errs, amount(capacity.Key(string(r)), q)...)
		if q.Sign() <= 0 {
			errs = append(errs, field.Invalid(capacity.Key(string(r)), q.String(), notPositive))
		}
	}
	policy := at.Child("persistentVolumeReclaimPolicy")
	if p := s.PersistentVolumeReclaimPolicy; p != "" {
		errs = append(errs, rule.Known(policy, p, corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRecycle,
			corev1.PersistentVolumeReclaimRetain)...)
	}
	if s.NodeAffinity != nil && s.NodeAffinity.Required == nil {
		errs = append(errs, field.Required(at.Child("nodeAffinity", "required"), "must specify required node constraints"))
	}
	errs = append(errs, source(at, s, name)...)
	if s.HostPath != nil && path.Clean(s.HostPath.Path) == "/" && s.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		errs = append(errs, field.Forbidden(policy, "may not be 'recycle' for a hostPath mount of '/'"))
	}
	if s.StorageClassName != "" {
		errs = append(errs, rule.ClassName(at.Child("storageClassName"), s.StorageClassName)...)
	}
	errs = append(errs, volumeMode(at.Child("volumeMode"), s.VolumeMode)...)
	return append(errs, attributesClass(at, s)...)
}

func attributesClass(at *field.Path, s *corev1.PersistentVolumeSpec) field.ErrorList {
	class := s.VolumeAttributesClassName
	if class == nil {
		return nil
	}
	var errs field.ErrorList
	if *class == "" {
		errs = append(errs, field.Required(at.Child("volumeAttributesClassName"), "an empty string is disallowed"))
	} else {
		errs = append(errs, rule.ClassName(at.Child("volumeAttributesClassName"), *class)...)
	}
	if s.CSI == nil {
		errs = append(errs, field.Required(at.Child("csi"), "has to be specified when using volumeAttributesClassName"))
	}
	return errs
}

// InlineSpec checks the spec of a volume that stands in an attachment: one of a CSI driver that belongs to nobody.
func InlineSpec(at *field.Path, s *corev1.PersistentVolumeSpec) field.ErrorList {
	var errs field.ErrorList
	const context = " in the context of inline volumes"
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"claimRef", s.ClaimRef != nil}, {"capacity", len(s.Capacity) != 0}, {"nodeAffinity", s.NodeAffinity != nil},
		{"storageClassName", s.StorageClassName != ""},
	} {
		if f.set {
			errs = append(errs, field.Forbidden(at.Child(f.name), "may not be specified"+context))
		}
	}
	if s.CSI == nil {
		errs = append(errs, field.Required(at.Child("csi"), "has to be specified"+context))
	}
	if len(s.AccessModes) == 0 {
		errs = append(errs, field.Required(at.Child("accessModes"), ""))
	}
	errs = append(errs, accessModes(at.Child("accessModes"), s.AccessModes)...)
	if p := s.PersistentVolumeReclaimPolicy; p != "" && p != corev1.PersistentVolumeReclaimRetain {
		errs = append(errs, field.Forbidden(at.Child("persistentVolumeReclaimPolicy"), "may only be Retain"+context))
	}
	if m := s.VolumeMode; m != nil && *m != corev1.PersistentVolumeFilesystem {
		errs = append(errs, field.Forbidden(at.Child("volumeMode"), "may not specify volumeMode other than Filesystem"+context))
	}
	errs = append(errs, source(at, s, "")...)
	return append(errs, attributesClass(at, s)...)
}

// MountOptions refuses the annotation of old for sources that know no mount options.
func MountOptions(v *corev1.PersistentVolume) field.ErrorList {
	s := &v.Spec
	if s.GCEPersistentDisk != nil || s.AWSElasticBlockStore != nil || s.Glusterfs != nil || s.NFS != nil || s.RBD != nil || s.Quobyte != nil ||
		s.ISCSI != nil || s.Cinder != nil || s.CephFS != nil || s.AzureFile != nil || s.VsphereVolume != nil || s.AzureDisk != nil ||
		s.PhotonPersistentDisk != nil {
		return nil
	}
	if _, ok := v.Annotations[corev1.MountOptionAnnotation]; !ok {
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath("metadata", "annotations", corev1.MountOptionAnnotation),
		"may not specify mount options for this volume type")}
}

// betaLabels are labels of nodes in a volume's affinity that may be changed to their newer names.
var betaLabels = map[string]string{
	corev1.LabelFailureDomainBetaZone: corev1.LabelTopologyZone, corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
	corev1.LabelInstanceType: corev1.LabelInstanceTypeStable, "beta.kubernetes.io/os": corev1.LabelOSStable,
	"beta.kubernetes.io/arch": corev1.LabelArchStable,
}

// Update checks what of a volume may not change: its source, its mode, the nodes that reach it.
func Update(v, old *corev1.PersistentVolume) field.ErrorList {
	var errs field.ErrorList
	now := v.Spec.PersistentVolumeSource.DeepCopy()
	if was := old.Spec.CSI; was != nil && was.ControllerExpandSecretRef == nil && now.CSI != nil {
		now.CSI.ControllerExpandSecretRef = nil // may be given later
	}
	if !equality.Semantic.DeepEqual(*now, old.Spec.PersistentVolumeSource) {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "persistentvolumesource"), fmt.Sprintf(
			"spec.persistentvolumesource is immutable after creation\n%v", diff.Diff(old.Spec.PersistentVolumeSource, *now))))
	}
	errs = append(errs, rule.Immutable(field.NewPath("volumeMode"), v.Spec.VolumeMode, old.Spec.VolumeMode)...)
	if was := old.Spec.NodeAffinity; was != nil && !equality.Semantic.DeepEqual(v.Spec.NodeAffinity, was) &&
		!equality.Semantic.DeepEqual(v.Spec.NodeAffinity, modern(was, v.Spec.NodeAffinity)) {
		errs = append(errs, field.Invalid(field.NewPath("nodeAffinity"), v.Spec.NodeAffinity, "field is immutable, except for updating from beta label to GA"))
	}
	if old.Spec.VolumeAttributesClassName != nil && v.Spec.VolumeAttributesClassName == nil {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "volumeAttributesClassName"), "update from non-nil value to nil is forbidden"))
	}
	return errs
}

// modern is old with those keys in their newer form that are so in now.
func modern(old, now *corev1.VolumeNodeAffinity) *corev1.VolumeNodeAffinity {
	out := old.DeepCopy()
	if now == nil || now.Required == nil || out.Required == nil || len(now.Required.NodeSelectorTerms) != len(out.Required.NodeSelectorTerms) {
		return out
	}
	for i := range out.Required.NodeSelectorTerms {
		have, want := out.Required.NodeSelectorTerms[i].MatchExpressions, now.Required.NodeSelectorTerms[i].MatchExpressions
		for j := range have {
			if j < len(want) && betaLabels[have[j].Key] == want[j].Key && want[j].Key != "" {
				have[j].Key = want[j].Key
			}
		}
	}
	return out
}

// DefaultSpec fills in what a volume's source leaves out; inline volumes have such too.
func DefaultSpec(s *corev1.PersistentVolumeSpec) {
	milliScale(s.Capacity)
	defaultSource(&s.PersistentVolumeSource)
}

// Modes prints access modes as kubectl does: "RWO,ROX".
func Modes(modes []corev1.PersistentVolumeAccessMode) string {
	var out []string
	for _, m := range []struct {
		mode  corev1.PersistentVolumeAccessMode
		short string
	}{{corev1.ReadWriteOnce, "RWO"}, {corev1.ReadOnlyMany, "ROX"}, {corev1.ReadWriteMany, "RWX"}, {corev1.ReadWriteOncePod, "RWOP"}} {
		if slices.Contains(modes, m.mode) {
			out = append(out, m.short)
		}
	}
	return strings.Join(out, ",")
}
