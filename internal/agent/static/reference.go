package static

import corev1 "k8s.io/api/core/v1"

// reference names, in kubelet's words, the first kind of objects of the API that the Pod needs; empty if it needs none.
func reference(pod *corev1.Pod) string {
	if pod.Spec.ServiceAccountName != "" || pod.Spec.DeprecatedServiceAccount != "" {
		return "serviceaccounts"
	}
	if len(pod.Spec.ImagePullSecrets) > 0 {
		return "secrets"
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range list {
			if what := environment(c.EnvFrom, c.Env); what != "" {
				return what
			}
		}
	}
	if len(pod.Spec.ResourceClaims) > 0 {
		return "resourceclaims"
	}
	for _, v := range pod.Spec.Volumes {
		if what := volume(v.VolumeSource); what != "" {
			return what
		}
	}
	return ""
}

func environment(from []corev1.EnvFromSource, env []corev1.EnvVar) string {
	for _, f := range from {
		switch {
		case f.SecretRef != nil:
			return "secrets"
		case f.ConfigMapRef != nil:
			return "configmaps"
		}
	}
	for _, e := range env {
		switch v := e.ValueFrom; {
		case v == nil:
		case v.SecretKeyRef != nil:
			return "secrets"
		case v.ConfigMapKeyRef != nil:
			return "configmaps"
		}
	}
	return ""
}

func volume(v corev1.VolumeSource) string {
	switch {
	case v.ConfigMap != nil:
		return "configmaps (via configmap volumes)"
	case v.Secret != nil:
		return "secrets (via secret volumes)"
	case v.CSI != nil:
		return "csidrivers (via CSI volumes)"
	case v.Glusterfs != nil:
		return "endpoints (via glusterFS volumes)"
	case v.PersistentVolumeClaim != nil:
		return "persistentvolumeclaims"
	case v.Ephemeral != nil:
		return "persistentvolumeclaims (via ephemeral volumes)"
	case v.AzureFile != nil:
		return "secrets (via azureFile volumes)"
	case v.Projected == nil:
		return ""
	}
	for _, s := range v.Projected.Sources {
		switch {
		case s.ConfigMap != nil:
			return "configmaps (via projected volumes)"
		case s.Secret != nil:
			return "secrets (via projected volumes)"
		case s.ServiceAccountToken != nil:
			return "serviceaccounts (via projected volumes)"
		case s.ClusterTrustBundle != nil:
			return "clustertrustbundles"
		case s.PodCertificate != nil:
			return "podcertificates"
		}
	}
	return ""
}
