package deployment

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/dump"
)

// templateHash is the value of the label pod-template-hash: FNV-1a over the template's whole content and the collision count, in
// characters that spell no words.
func templateHash(template *corev1.PodTemplateSpec, collisions *int32) string {
	h := fnv.New32a()
	fmt.Fprintf(h, "%v", dump.ForHash(*template))
	if collisions != nil {
		var b [8]byte
		binary.LittleEndian.PutUint32(b[:], uint32(*collisions))
		h.Write(b[:])
	}
	return rand.SafeEncodeString(fmt.Sprint(h.Sum32()))
}

// sameTemplate says whether two templates are equal but for the label pod-template-hash. The value of that label changes when the
// API gains a field, so it says nothing about equality.
func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	if !sameLabels(a.Labels, b.Labels) {
		return false
	}
	x, y := *a, *b
	x.Labels, y.Labels = nil, nil
	return equality.Semantic.DeepEqual(&x, &y)
}

func sameLabels(a, b map[string]string) bool {
	without := func(m map[string]string) map[string]string {
		c := maps.Clone(m)
		delete(c, appsv1.DefaultDeploymentUniqueLabelKey)
		return c
	}
	return maps.Equal(without(a), without(b))
}

// replicaSetName is the Deployment's name and the hash, the name cut where the whole would be too long for a name.
func replicaSetName(deployment, hash string) string {
	if most := validation.DNS1123SubdomainMaxLength - 1 - len(hash); len(deployment) > most && most > 0 {
		deployment = deployment[:most]
	}
	return deployment + "-" + hash
}

// split finds among the Deployment's ReplicaSets the new one, which has its template (the oldest, should there be several), and
// returns it, or nil, and all others. Both are in order of creation.
func split(d *appsv1.Deployment, sets []*appsv1.ReplicaSet) (current *appsv1.ReplicaSet, old []*appsv1.ReplicaSet) {
	sorted := slices.Clone(sets)
	slices.SortStableFunc(sorted, byCreation)
	for _, rs := range sorted {
		if current == nil && sameTemplate(&rs.Spec.Template, &d.Spec.Template) {
			current = rs
			continue
		}
		old = append(old, rs)
	}
	return current, old
}

// newReplicaSet returns the ReplicaSet of the Deployment's present template, without replicas and annotations.
func newReplicaSet(d *appsv1.Deployment) *appsv1.ReplicaSet {
	hash := templateHash(&d.Spec.Template, d.Status.CollisionCount)
	with := func(m map[string]string) map[string]string {
		c := maps.Clone(m)
		if c == nil {
			c = map[string]string{}
		}
		c[appsv1.DefaultDeploymentUniqueLabelKey] = hash
		return c
	}
	template := d.Spec.Template.DeepCopy()
	template.Labels = with(template.Labels)
	selector := d.Spec.Selector.DeepCopy()
	selector.MatchLabels = with(selector.MatchLabels)
	none := int32(0)
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Name:            replicaSetName(d.Name, hash),
			Namespace:       d.Namespace,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, kind)},
			Labels:          maps.Clone(template.Labels),
		},
		Spec: appsv1.ReplicaSetSpec{
			Replicas:        &none,
			MinReadySeconds: d.Spec.MinReadySeconds,
			Selector:        selector,
			Template:        *template,
		},
	}
}
