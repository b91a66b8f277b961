package scheduler

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// zoneLabels of a volume must be those of the node, in whichever of the two spellings.
var zoneLabels = map[string]string{
	corev1.LabelTopologyZone: corev1.LabelFailureDomainBetaZone, corev1.LabelTopologyRegion: corev1.LabelFailureDomainBetaRegion,
	corev1.LabelFailureDomainBetaZone: corev1.LabelTopologyZone, corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
}

// sameZone says whether a volume's labels let the node use it. A node without such labels is in no zone, and may.
func sameZone(v *corev1.PersistentVolume, node *corev1.Node) bool {
	if !slices.ContainsFunc([]string{corev1.LabelTopologyZone, corev1.LabelTopologyRegion, corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion},
		func(l string) bool { return node.Labels[l] != "" }) {
		return true
	}
	for label, other := range zoneLabels {
		want, ok := v.Labels[label]
		if !ok {
			continue
		}
		have := node.Labels[label]
		if have == "" {
			have = node.Labels[other]
		}
		if !slices.Contains(strings.Split(want, "__"), have) { // a volume in several zones names them all
			return false
		}
	}
	return true
}
