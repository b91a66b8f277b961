package pods

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
)

// Writer makes and deletes the Pods of owners and tells each owner's events about it.
type Writer struct {
	Client   kubernetes.Interface
	Recorder record.EventRecorder
}

// FromTemplate returns the Pod that owner makes from a template: its name starts with the owner's, and ref is its controller.
func FromTemplate(template *corev1.PodTemplateSpec, owner metav1.Object, ref *metav1.OwnerReference) *corev1.Pod {
	prefix := owner.GetName() + "-"
	if len(apivalidation.NameIsDNSSubdomain(prefix, true)) != 0 {
		prefix = owner.GetName()
	}
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       owner.GetNamespace(),
			GenerateName:    prefix,
			Labels:          maps.Clone(template.Labels),
			Annotations:     maps.Clone(template.Annotations),
			Finalizers:      slices.Clone(template.Finalizers),
			OwnerReferences: []metav1.OwnerReference{*ref},
		},
	}
	template.Spec.DeepCopyInto(&p.Spec)
	return p
}

// Create makes one Pod from the template. owner is the object that gets the event; it and ref are the same object.
func (w *Writer) Create(ctx context.Context, template *corev1.PodTemplateSpec, owner runtime.Object, ref *metav1.OwnerReference) error {
	o, err := meta.Accessor(owner)
	if err != nil {
		return fmt.Errorf("owner of new pods: %w", err)
	}
	pod := FromTemplate(template, o, ref)
	if len(pod.Labels) == 0 {
		return errors.New("unable to create pods, no labels")
	}
	made, err := w.Client.CoreV1().Pods(o.GetNamespace()).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			w.Recorder.Eventf(owner, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
		}
		return err
	}
	w.Recorder.Eventf(owner, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %v", made.Name)
	return nil
}

// Delete deletes one Pod of owner, if it is still the one with this uid. A Pod that is gone already is no event, and its NotFound
// is returned.
func (w *Writer) Delete(ctx context.Context, p *corev1.Pod, owner runtime.Object) error {
	err := w.Client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(p.UID))})
	switch {
	case apierrors.IsNotFound(err):
		return err
	case err != nil:
		w.Recorder.Eventf(owner, corev1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
		return fmt.Errorf("unable to delete pods: %w", err)
	}
	w.Recorder.Eventf(owner, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %v", p.Name)
	return nil
}

// Patch applies a strategic merge patch to a Pod.
func (w *Writer) Patch(ctx context.Context, p *corev1.Pod, patch []byte) error {
	_, err := w.Client.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	return err
}

// SlowStart calls fn n times, in batches of 1, 2, 4, … that run at once, and stops after the first batch with an error: many
// calls that must fail for one reason fail only a few times. It returns how many calls succeeded and the first error.
func SlowStart(n int, fn func() error) (int, error) {
	done := 0
	for batch := min(n, 1); batch > 0; batch = min(2*batch, n-done) {
		errs := make([]error, batch)
		var wg sync.WaitGroup
		for i := range batch {
			wg.Go(func() { errs[i] = fn() })
		}
		wg.Wait()
		var first error
		failed := 0
		for _, err := range errs {
			if err != nil {
				failed++
				if first == nil {
					first = err
				}
			}
		}
		done += batch - failed
		if first != nil {
			return done, first
		}
	}
	return done, nil
}
