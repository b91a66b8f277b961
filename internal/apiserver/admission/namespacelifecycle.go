package admission

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/admission"
)

// freshFor is how long a namespace whose deletion was asked for is read from the store itself, in case the cache lags.
const freshFor = 30 * time.Second

// namespaceLifecycle refuses to create things in namespaces that do not exist or are ending, and to delete the ones that always are.
type namespaceLifecycle struct {
	*admission.Handler
	objects  Lookup
	immortal sets.Set[string]
	ending   *cache.LRUExpireCache
}

func newNamespaceLifecycle(objects Lookup) *namespaceLifecycle {
	return &namespaceLifecycle{
		Handler: admission.NewHandler(admission.Create, admission.Delete), objects: objects,
		immortal: sets.New(metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic), ending: cache.NewLRUExpireCache(100),
	}
}

// Admit implements admission.MutationInterface.
func (p *namespaceLifecycle) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetKind().GroupKind() == (schema.GroupKind{Kind: "Namespace"}) {
		if a.GetOperation() != admission.Delete {
			return nil
		}
		if p.immortal.Has(a.GetName()) {
			return apierrors.NewForbidden(a.GetResource().GroupResource(), a.GetName(), errors.New("this namespace may not be deleted"))
		}
		p.ending.Add(a.GetName(), true, freshFor)
		return nil
	}
	// A review says nothing about whether its namespace exists.
	review := a.GetResource().GroupResource() == schema.GroupResource{Group: "authorization.k8s.io", Resource: "localsubjectaccessreviews"}
	if a.GetNamespace() == "" || a.GetOperation() != admission.Create || review {
		return nil
	}
	_, fresh := p.ending.Get(a.GetNamespace())
	ns, err := p.objects.Namespace(ctx, a.GetNamespace(), fresh)
	switch {
	case apierrors.IsNotFound(err):
		return err
	case err != nil:
		return apierrors.NewInternalError(err)
	case ns.Status.Phase != corev1.NamespaceTerminating:
		return nil
	}
	refused := admission.NewForbidden(a, fmt.Errorf("unable to create new content in namespace %s because it is being terminated", ns.Name))
	var status *apierrors.StatusError
	if errors.As(refused, &status) {
		status.ErrStatus.Details.Causes = append(status.ErrStatus.Details.Causes, metav1.StatusCause{
			Type: corev1.NamespaceTerminatingCause, Field: "metadata.namespace",
			Message: fmt.Sprintf("namespace %s is being terminated", ns.Name),
		})
	}
	return refused
}
