package pod

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/dryrun"

	"carob.dev/carob/internal/apiserver/registry"
)

// evictTries is how often an eviction is tried when the Pod keeps changing.
const evictTries = 20

// Eviction serves pods/eviction: a delete that says why. Disruption budgets are not served, so none can forbid it.
type Eviction struct {
	Pods *registry.Store
	// Status writes the status of a Pod.
	Status *registry.Subresource
}

var (
	_ rest.NamedCreater             = &Eviction{}
	_ rest.GroupVersionKindProvider = &Eviction{}
	_ rest.GroupVersionAcceptor     = &Eviction{}
)

// New implements rest.Storage.
func (*Eviction) New() runtime.Object { return &policyv1.Eviction{} }

// Destroy implements rest.Storage; the parent destroys the storage.
func (*Eviction) Destroy() {}

// GroupVersionKind implements rest.GroupVersionKindProvider.
func (*Eviction) GroupVersionKind(schema.GroupVersion) schema.GroupVersionKind {
	return policyv1.SchemeGroupVersion.WithKind("Eviction")
}

// AcceptsGroupVersion implements rest.GroupVersionAcceptor.
func (*Eviction) AcceptsGroupVersion(gv schema.GroupVersion) bool {
	return gv == policyv1.SchemeGroupVersion
}

// Create implements rest.NamedCreater.
func (r *Eviction) Create(
	ctx context.Context, name string, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions,
) (runtime.Object, error) {
	eviction, ok := obj.(*policyv1.Eviction)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Eviction object: %T", obj))
	}
	if name != eviction.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Eviction object")
	}
	del, err := deleteOptions(eviction, options)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if validate != nil {
		if err := validate(ctx, eviction.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	pinned := del.Preconditions != nil && del.Preconditions.ResourceVersion != nil
	for range evictTries {
		if err = r.evict(ctx, name, del); err == nil || !apierrors.IsConflict(err) || pinned {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return &metav1.Status{Status: metav1.StatusSuccess}, nil
}

// deleteOptions are those of the eviction, dry if the request is.
func deleteOptions(e *policyv1.Eviction, options *metav1.CreateOptions) (*metav1.DeleteOptions, error) {
	del := &metav1.DeleteOptions{}
	if e.DeleteOptions != nil {
		del = e.DeleteOptions.DeepCopy()
	}
	switch {
	case len(del.DryRun) == 0:
		del.DryRun = options.DryRun
	case len(options.DryRun) > 0 && !slices.Equal(del.DryRun, options.DryRun):
		return nil, fmt.Errorf("Non-matching dry-run options in request and content: %v and %v", options.DryRun, del.DryRun)
	}
	return del, nil
}

// evict notes the reason in the Pod's status, then deletes it.
func (r *Eviction) evict(ctx context.Context, name string, del *metav1.DeleteOptions) error {
	if !dryrun.IsDryRun(del.DryRun) {
		note := func(_ context.Context, _, old runtime.Object) (runtime.Object, error) {
			p, ok := old.DeepCopyObject().(*corev1.Pod)
			if !ok {
				return nil, fmt.Errorf("unexpected object: %T", old)
			}
			if p.ResourceVersion == "" {
				return nil, apierrors.NewNotFound(r.Pods.DefaultQualifiedResource, name)
			}
			if err := meets(p, del.Preconditions); err != nil {
				return nil, err
			}
			setCondition(&p.Status, corev1.PodCondition{
				Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue,
				Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting",
			})
			return p, nil
		}
		noted, _, err := r.Status.Update(ctx, name, rest.DefaultUpdatedObjectInfo(nil, note),
			rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
		if err != nil {
			return err
		}
		if p, ok := noted.(*corev1.Pod); ok && del.Preconditions != nil && del.Preconditions.ResourceVersion != nil {
			del = del.DeepCopy()
			del.Preconditions.ResourceVersion = &p.ResourceVersion
		}
	}
	_, _, err := r.Pods.Delete(ctx, name, rest.ValidateAllObjectFunc, del)
	return err
}

func meets(p *corev1.Pod, c *metav1.Preconditions) error {
	switch {
	case c == nil:
		return nil
	case c.UID != nil && *c.UID != p.UID:
		return apierrors.NewConflict(corev1.Resource("pods"), p.Name, errors.New("the UID in the precondition does not match the UID in record"))
	case c.ResourceVersion != nil && *c.ResourceVersion != p.ResourceVersion:
		return apierrors.NewConflict(corev1.Resource("pods"), p.Name,
			errors.New("the ResourceVersion in the precondition does not match the ResourceVersion in record"))
	}
	return nil
}
