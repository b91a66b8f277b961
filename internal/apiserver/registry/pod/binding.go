package pod

import (
	"context"
	"errors"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	interpret "k8s.io/apiserver/pkg/storage/errors"
	"k8s.io/apiserver/pkg/util/dryrun"

	"carob.dev/carob/internal/api"
)

// Binding serves pods/binding: it gives a Pod its node, once.
type Binding struct{ Store *genericregistry.Store }

var (
	_ rest.NamedCreater                   = &Binding{}
	_ rest.SubresourceObjectMetaPreserver = &Binding{}
)

// NamespaceScoped implements rest.Scoper.
func (*Binding) NamespaceScoped() bool { return true }

// New implements rest.Storage.
func (*Binding) New() runtime.Object { return &corev1.Binding{} }

// Destroy implements rest.Storage; the parent destroys the storage.
func (*Binding) Destroy() {}

// PreserveRequestObjectMetaSystemFieldsOnSubresourceCreate keeps the UID and resource version that the client sent: they are preconditions.
func (*Binding) PreserveRequestObjectMetaSystemFieldsOnSubresourceCreate() bool { return true }

// Create implements rest.NamedCreater.
func (r *Binding) Create(
	ctx context.Context, name string, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions,
) (runtime.Object, error) {
	binding, ok := obj.(*corev1.Binding)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Binding object: %T", obj))
	}
	if name != binding.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Binding object")
	}
	if errs := api.ValidateBinding(binding); len(errs) > 0 {
		return nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Binding").GroupKind(), name, errs)
	}
	if validate != nil {
		if err := validate(ctx, binding.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	if err := r.assign(ctx, binding, dryrun.IsDryRun(options.DryRun)); err != nil {
		return nil, err
	}
	return &metav1.Status{Status: metav1.StatusSuccess}, nil
}

func (r *Binding) assign(ctx context.Context, b *corev1.Binding, dry bool) error {
	pods := r.Store.DefaultQualifiedResource
	key, err := r.Store.KeyFunc(ctx, b.Name)
	if err != nil {
		return err
	}
	var conditions *storage.Preconditions
	if b.UID != "" || b.ResourceVersion != "" {
		conditions = &storage.Preconditions{}
		if b.UID != "" {
			conditions.UID = &b.UID
		}
		if b.ResourceVersion != "" {
			conditions.ResourceVersion = &b.ResourceVersion
		}
	}
	err = r.Store.Storage.GuaranteedUpdate(ctx, key, &corev1.Pod{}, false, conditions,
		storage.SimpleUpdate(func(obj runtime.Object) (runtime.Object, error) {
			p, ok := obj.(*corev1.Pod)
			if !ok {
				return nil, fmt.Errorf("unexpected object: %T", obj)
			}
			return p, bind(p, b)
		}), dry, nil)
	err = interpret.InterpretUpdateError(interpret.InterpretGetError(err, pods, b.Name), pods, b.Name)
	var status *apierrors.StatusError
	if err != nil && !errors.As(err, &status) {
		pods.Resource += "/binding"
		return apierrors.NewConflict(pods, b.Name, err)
	}
	return err
}

// bind assigns p as b says, or says why not.
func bind(p *corev1.Pod, b *corev1.Binding) error {
	switch {
	case p.DeletionTimestamp != nil:
		return fmt.Errorf("pod %s is being deleted, cannot be assigned to a host", p.Name)
	case p.Spec.NodeName != "":
		return fmt.Errorf("pod %v is already assigned to node %q", p.Name, p.Spec.NodeName)
	case len(p.Spec.SchedulingGates) != 0:
		return fmt.Errorf("pod %v has non-empty .spec.schedulingGates", p.Name)
	}
	p.Spec.NodeName = b.Target.Name
	p.Status.NominatedNodeName = ""
	p.Annotations = merge(p.Annotations, b.Annotations)
	p.Labels = merge(p.Labels, b.Labels)
	setCondition(&p.Status, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue})
	return nil
}

func merge(into, from map[string]string) map[string]string {
	if into == nil && len(from) > 0 {
		into = map[string]string{}
	}
	maps.Copy(into, from)
	return into
}

// setCondition replaces the condition of the same type; the time of its last transition stays if the status did not change.
func setCondition(status *corev1.PodStatus, c corev1.PodCondition) {
	if c.LastTransitionTime.IsZero() {
		c.LastTransitionTime = metav1.Now()
	}
	for i, old := range status.Conditions {
		if old.Type != c.Type {
			continue
		}
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		status.Conditions[i] = c
		return
	}
	status.Conditions = append(status.Conditions, c)
}

// LegacyBinding serves bindings, the older way to create a Binding.
type LegacyBinding struct{ *Binding }

var _ rest.Creater = &LegacyBinding{}

// GetSingularName implements rest.SingularNameProvider.
func (*LegacyBinding) GetSingularName() string { return "binding" }

// Create implements rest.Creater.
func (r *LegacyBinding) Create(
	ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions,
) (runtime.Object, error) {
	binding, ok := obj.(*corev1.Binding)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Binding object: %T", obj))
	}
	return r.Binding.Create(ctx, binding.Name, obj, validate, options)
}
