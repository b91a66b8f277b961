package admission

import (
	"context"
	"errors"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/admission"
)

// runtimeClass gives a new Pod what its class says: the overhead of the sandbox, and which nodes it may run on.
type runtimeClass struct {
	*admission.Handler
	objects Lookup
}

func newRuntimeClass(objects Lookup) *runtimeClass {
	return &runtimeClass{Handler: admission.NewHandler(admission.Create), objects: objects}
}

var errOverhead = errors.New("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")

// Admit implements admission.MutationInterface.
func (p *runtimeClass) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod, class, err := p.classOf(ctx, a)
	if err != nil || class == nil {
		return err
	}
	if o := class.Overhead; o != nil {
		if len(pod.Spec.Overhead) > 0 && !equality.Semantic.DeepEqual(o.PodFixed, pod.Spec.Overhead) {
			return admission.NewForbidden(a, errOverhead)
		}
		pod.Spec.Overhead = o.PodFixed.DeepCopy()
	}
	if class.Scheduling == nil {
		return nil
	}
	selector := maps.Clone(pod.Spec.NodeSelector)
	if selector == nil && len(class.Scheduling.NodeSelector) > 0 {
		selector = map[string]string{}
	}
	for key, value := range class.Scheduling.NodeSelector {
		if own, ok := selector[key]; ok && own != value {
			return admission.NewForbidden(a, fmt.Errorf("conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; pod.spec.nodeSelector[%s] = %s",
				key, value, key, own))
		}
		selector[key] = value
	}
	pod.Spec.NodeSelector = selector
	pod.Spec.Tolerations = mergeTolerations(pod.Spec.Tolerations, class.Scheduling.Tolerations)
	return nil
}

// Validate implements admission.ValidationInterface: nothing after Admit may have changed the overhead.
func (p *runtimeClass) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod, class, err := p.classOf(ctx, a)
	switch {
	case err != nil || pod == nil:
		return err
	case class != nil && class.Overhead != nil:
		if !equality.Semantic.DeepEqual(class.Overhead.PodFixed, pod.Spec.Overhead) {
			return admission.NewForbidden(a, errOverhead)
		}
	case pod.Spec.Overhead != nil:
		return admission.NewForbidden(a, errors.New("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"))
	}
	return nil
}

// classOf gives the new Pod of a request and its class; nil for what is not there.
func (p *runtimeClass) classOf(ctx context.Context, a admission.Attributes) (*corev1.Pod, *nodev1.RuntimeClass, error) {
	pod, ok := newPod(a)
	if !ok || pod.Spec.RuntimeClassName == nil {
		return pod, nil, nil
	}
	class, err := p.objects.RuntimeClass(ctx, *pod.Spec.RuntimeClassName)
	if apierrors.IsNotFound(err) {
		err = admission.NewForbidden(a, fmt.Errorf("pod rejected: RuntimeClass %q not found", *pod.Spec.RuntimeClassName))
	}
	if err != nil {
		return pod, nil, err
	}
	return pod, class, nil
}

// mergeTolerations joins two lists and leaves out each toleration that another one covers.
func mergeTolerations(a, b []corev1.Toleration) []corev1.Toleration {
	var merged []corev1.Toleration
	all := append(append([]corev1.Toleration{}, a...), b...)
next:
	for i, t := range all {
		for _, other := range merged {
			if covers(other, t) {
				continue next
			}
		}
		for _, other := range all[i+1:] {
			if covers(other, t) {
				continue next
			}
		}
		merged = append(merged, t)
	}
	return merged
}

// covers says whether whatever t tolerates, wide tolerates for as long.
func covers(wide, t corev1.Toleration) bool {
	anyKey := wide.Key == "" && wide.Operator == corev1.TolerationOpExists
	switch {
	case equality.Semantic.DeepEqual(wide, t):
		return true
	case wide.Key != t.Key && !anyKey:
		return false
	case wide.Effect != t.Effect && wide.Effect != "":
		return false
	case wide.Effect == corev1.TaintEffectNoExecute && wide.TolerationSeconds != nil &&
		(t.TolerationSeconds == nil || *t.TolerationSeconds > *wide.TolerationSeconds):
		return false
	case wide.Operator == corev1.TolerationOpExists:
		return true
	}
	return t.Operator != corev1.TolerationOpExists && wide.Value == t.Value
}
