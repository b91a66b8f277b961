package node

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

func contains(list []string, s string) bool { return slices.Contains(list, s) }

// containers calls f with what env of each container, of whatever kind, takes from elsewhere, until f returns true.
func containers(p *corev1.Pod, f func([]corev1.EnvFromSource, []corev1.EnvVar) bool) bool {
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			if f(list[i].EnvFrom, list[i].Env) {
				return true
			}
		}
	}
	for i := range p.Spec.EphemeralContainers {
		if f(p.Spec.EphemeralContainers[i].EnvFrom, p.Spec.EphemeralContainers[i].Env) {
			return true
		}
	}
	return false
}

// is is the match of one name, and every that of all.
func is(name string) func(string) bool { return func(s string) bool { return s == name } }

func every(string) bool { return true }

// secretOf says whether a Pod refers to a secret of its namespace whose name matches. Of the volumes that hold one, those that an agent mounts
// count.
func secretOf(matches func(name string) bool) func(*corev1.Pod) bool {
	local := func(r *corev1.LocalObjectReference) bool { return r != nil && matches(r.Name) }
	return func(p *corev1.Pod) bool {
		if slices.ContainsFunc(p.Spec.ImagePullSecrets, func(r corev1.LocalObjectReference) bool { return matches(r.Name) }) {
			return true
		}
		if containers(p, func(from []corev1.EnvFromSource, env []corev1.EnvVar) bool {
			return slices.ContainsFunc(from, func(e corev1.EnvFromSource) bool { return e.SecretRef != nil && matches(e.SecretRef.Name) }) ||
				slices.ContainsFunc(env, func(e corev1.EnvVar) bool {
					return e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil && matches(e.ValueFrom.SecretKeyRef.Name)
				})
		}) {
			return true
		}
		return slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
			switch {
			case v.Secret != nil:
				return matches(v.Secret.SecretName)
			case v.Projected != nil:
				return slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool { return s.Secret != nil && matches(s.Secret.Name) })
			case v.CSI != nil:
				return local(v.CSI.NodePublishSecretRef)
			case v.ISCSI != nil:
				return local(v.ISCSI.SecretRef)
			}
			return false
		})
	}
}

// configMapOf says whether a Pod refers to a config map of its namespace whose name matches.
func configMapOf(matches func(name string) bool) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool {
		return containers(p, func(from []corev1.EnvFromSource, env []corev1.EnvVar) bool {
			return slices.ContainsFunc(from, func(e corev1.EnvFromSource) bool { return e.ConfigMapRef != nil && matches(e.ConfigMapRef.Name) }) ||
				slices.ContainsFunc(env, func(e corev1.EnvVar) bool {
					return e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil && matches(e.ValueFrom.ConfigMapKeyRef.Name)
				})
		}) || slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
			switch {
			case v.ConfigMap != nil:
				return matches(v.ConfigMap.Name)
			case v.Projected != nil:
				return slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool { return s.ConfigMap != nil && matches(s.ConfigMap.Name) })
			}
			return false
		})
	}
}

// RefersTo names a kind of object that the Pod would give its node a right to; empty if there is none.
func RefersTo(p *corev1.Pod) string {
	switch {
	case p.Spec.ServiceAccountName != "":
		return "serviceaccounts"
	case secretOf(every)(p):
		return "secrets"
	case configMapOf(every)(p):
		return "configmaps"
	case len(claims(p)) > 0:
		return "persistentvolumeclaims"
	case len(p.Spec.ResourceClaims) > 0:
		return "resourceclaims"
	}
	for _, v := range p.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			switch {
			case s.ServiceAccountToken != nil:
				return "serviceaccounts"
			case s.ClusterTrustBundle != nil:
				return "clustertrustbundles"
			case s.PodCertificate != nil:
				return "podcertificates"
			}
		}
	}
	return ""
}

// claims are the names of the persistent volume claims of a Pod. That of an ephemeral volume has the Pod's name and the volume's.
func claims(p *corev1.Pod) []string {
	var out []string
	for _, v := range p.Spec.Volumes {
		switch {
		case v.PersistentVolumeClaim != nil:
			out = append(out, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			out = append(out, p.Name+"-"+v.Name)
		}
	}
	return out
}

// resourceClaims are the names of the resource claims that a Pod names or that were made for it.
func resourceClaims(p *corev1.Pod) []string {
	var out []string
	for _, c := range p.Spec.ResourceClaims {
		if c.ResourceClaimName != nil {
			out = append(out, *c.ResourceClaimName)
		}
	}
	for _, c := range p.Status.ResourceClaimStatuses {
		if c.ResourceClaimName != nil {
			out = append(out, *c.ResourceClaimName)
		}
	}
	if e := p.Status.ExtendedResourceClaimStatus; e != nil {
		out = append(out, e.ResourceClaimName)
	}
	return out
}

// volumeSecrets are the secrets of a volume that its node reads.
func volumeSecrets(pv *corev1.PersistentVolume) []corev1.SecretReference {
	var out []corev1.SecretReference
	add := func(r *corev1.SecretReference) {
		if r == nil {
			return
		}
		s := *r
		if s.Namespace == "" && pv.Spec.ClaimRef != nil {
			s.Namespace = pv.Spec.ClaimRef.Namespace
		}
		out = append(out, s)
	}
	switch src := pv.Spec.PersistentVolumeSource; {
	case src.CSI != nil:
		add(src.CSI.NodePublishSecretRef)
		add(src.CSI.NodeStageSecretRef)
		add(src.CSI.NodeExpandSecretRef)
	case src.ISCSI != nil:
		add(src.ISCSI.SecretRef)
	}
	return out
}
