package pod

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// notYet is the detail of every refusal in this file.
const notYet = "not supported by Carob yet"

func unsupported(path *field.Path) *field.Error { return field.Forbidden(path, notYet) }

// refusals collects the unsupported fields that are set.
type refusals struct{ errs field.ErrorList }

func (r *refusals) add(path *field.Path, set bool) {
	if set {
		r.errs = append(r.errs, unsupported(path))
	}
}

// unsupportedSpec refuses every field of a spec that Carob does not act on. This file is the whole list; support for a field starts with
// its line here going away.
func unsupportedSpec(path *field.Path, s *corev1.PodSpec) field.ErrorList {
	var r refusals
	r.add(path.Child("resourceClaims"), len(s.ResourceClaims) > 0)
	r.add(path.Child("schedulingGroup"), s.SchedulingGroup != nil)
	r.add(path.Child("evictionResponders"), len(s.EvictionResponders) > 0)
	if sc := s.SecurityContext; sc != nil {
		at := path.Child("securityContext")
		r.add(at.Child("seLinuxChangePolicy"), sc.SELinuxChangePolicy != nil)
	}
	for i := range s.Volumes {
		r.volume(path.Child("volumes").Index(i), &s.Volumes[i].VolumeSource)
	}
	eachContainer(s, path, r.container)
	return r.errs
}

func (r *refusals) container(c *corev1.Container, at *field.Path) {
	r.add(at.Child("resources", "claims"), len(c.Resources.Claims) > 0)
	for i, m := range c.VolumeMounts {
		r.add(at.Child("volumeMounts").Index(i).Child("bindMountOptions"), len(m.BindMountOptions) > 0)
	}
	if l := c.Lifecycle; l != nil {
		for name, h := range map[string]*corev1.LifecycleHandler{"postStart": l.PostStart, "preStop": l.PreStop} {
			if h != nil {
				r.httpGet(at.Child("lifecycle", name), h.HTTPGet)
			}
		}
	}
	for name, p := range map[string]*corev1.Probe{
		"livenessProbe": c.LivenessProbe, "readinessProbe": c.ReadinessProbe, "startupProbe": c.StartupProbe,
	} {
		if p != nil {
			r.httpGet(at.Child(name), p.HTTPGet)
			r.add(at.Child(name, "grpc", "mode"), p.GRPC != nil && p.GRPC.Mode != nil)
		}
	}
}

func (r *refusals) httpGet(at *field.Path, a *corev1.HTTPGetAction) {
	r.add(at.Child("httpGet", "protocol"), a != nil && a.Protocol != nil && *a.Protocol != corev1.HTTPProtocolHTTP1)
}

func (r *refusals) volume(at *field.Path, v *corev1.VolumeSource) {
	for _, name := range otherVolumes(v) {
		r.errs = append(r.errs, field.Forbidden(at.Child(name), insteadOf(name)))
	}
}

// insteadOf says why a kind of volume is refused, and what to use for it.
func insteadOf(name string) string {
	switch name {
	case "iscsi":
		return "not supported by Carob: use a CSI driver, or log in to the target on the node and use a local volume"
	case "fc":
		return "not supported by Carob: use a CSI driver, or a local volume of the node's disk"
	case "gitRepo":
		return "not supported by Carob: use an emptyDir and clone in an init container"
	case "flexVolume":
		return "not supported by Carob: its drivers are programs of the node; use a CSI driver"
	}
	return "not served by Kubernetes' nodes any more: use a CSI driver"
}

// otherVolumes names the sources of a volume that Carob does not serve.
func otherVolumes(v *corev1.VolumeSource) []string {
	var names []string
	for _, s := range []struct {
		name string
		set  bool
	}{
		{"gcePersistentDisk", v.GCEPersistentDisk != nil},
		{"awsElasticBlockStore", v.AWSElasticBlockStore != nil},
		{"gitRepo", v.GitRepo != nil},
		{"iscsi", v.ISCSI != nil},
		{"glusterfs", v.Glusterfs != nil},
		{"rbd", v.RBD != nil},
		{"flexVolume", v.FlexVolume != nil},
		{"cinder", v.Cinder != nil},
		{"cephfs", v.CephFS != nil},
		{"flocker", v.Flocker != nil},
		{"fc", v.FC != nil},
		{"azureFile", v.AzureFile != nil},
		{"vsphereVolume", v.VsphereVolume != nil},
		{"quobyte", v.Quobyte != nil},
		{"azureDisk", v.AzureDisk != nil},
		{"photonPersistentDisk", v.PhotonPersistentDisk != nil},
		{"portworxVolume", v.PortworxVolume != nil},
		{"scaleIO", v.ScaleIO != nil},
		{"storageos", v.StorageOS != nil},
	} {
		if s.set {
			names = append(names, s.name)
		}
	}
	return names
}
