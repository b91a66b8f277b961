package admission

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/component-helpers/resource"
)

// podResize refuses that a Pod asks for more than its node has for Pods in all.
type podResize struct {
	*admission.Handler
	objects Lookup
}

func newPodResize(objects Lookup) *podResize {
	return &podResize{Handler: admission.NewHandler(admission.Update), objects: objects}
}

// Validate implements admission.ValidationInterface.
func (p *podResize) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetResource().GroupResource() != corev1.Resource("pods") || a.GetSubresource() != "resize" {
		return nil
	}
	pod, ok := a.GetObject().(*corev1.Pod)
	old, wasPod := a.GetOldObject().(*corev1.Pod)
	if !ok || !wasPod || pod.Spec.NodeName == "" || pod.Generation == old.Generation {
		return nil
	}
	node, err := p.objects.Node(ctx, pod.Spec.NodeName)
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("failed to get node %q: %w", pod.Spec.NodeName, err))
	}
	requests := resource.PodRequests(pod, resource.PodResourcesOptions{})
	var short []string
	if want, have := requests.Cpu(), node.Status.Allocatable.Cpu(); want.Cmp(*have) > 0 {
		short = append(short, fmt.Sprintf("cpu, requested: %d, allocatable: %d", want.MilliValue(), have.MilliValue()))
	}
	if want, have := requests.Memory(), node.Status.Allocatable.Memory(); want.Cmp(*have) > 0 {
		short = append(short, fmt.Sprintf("memory, requested: %d, allocatable: %d", want.Value(), have.Value()))
	}
	if len(short) == 0 {
		return nil
	}
	err = admission.NewForbidden(a, fmt.Errorf("node didn't have enough allocatable resources: %s", strings.Join(short, "; ")))
	var refusal *apierrors.StatusError
	if errors.As(err, &refusal) {
		refusal.ErrStatus.Details.Causes = append(refusal.ErrStatus.Details.Causes, metav1.StatusCause{Type: "NodeCapacity"})
	}
	return err
}
