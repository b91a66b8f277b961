// Package serviceaccount serves serviceaccounts/token: tokens that end, and that die with what they are bound to.
//
// It imports the generic registry and auth, which signs.
package serviceaccount

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/apiserver/auth"
	"carob.dev/carob/internal/apiserver/registry"
)

// Limits of a token's life in seconds, as in Kubernetes.
const (
	defaultSeconds = 3600
	minSeconds     = 600
	maxSeconds     = 1 << 32
	// InjectedSeconds is asked for by the volumes that every Pod gets.
	InjectedSeconds = 3607
	// extendedSeconds is how long a token lives that was asked for InjectedSeconds, so that programs which read it only once go on.
	extendedSeconds = 365 * 24 * 3600
)

// Token serves serviceaccounts/token.
type Token struct {
	Accounts, Pods, Secrets, Nodes *registry.Store
	Tokens                         *auth.Tokens
	Clock                          clock.PassiveClock
}

var (
	_ rest.NamedCreater                   = &Token{}
	_ rest.GroupVersionKindProvider       = &Token{}
	_ rest.SubresourceObjectMetaPreserver = &Token{}
)

var kind = authenticationv1.SchemeGroupVersion.WithKind("TokenRequest")

// New implements rest.Storage.
func (*Token) New() runtime.Object { return &authenticationv1.TokenRequest{} }

// Destroy implements rest.Storage; the parent destroys the storage.
func (*Token) Destroy() {}

// GroupVersionKind implements rest.GroupVersionKindProvider.
func (*Token) GroupVersionKind(schema.GroupVersion) schema.GroupVersionKind { return kind }

// PreserveRequestObjectMetaSystemFieldsOnSubresourceCreate keeps the UID that the client sent: it is a precondition.
func (*Token) PreserveRequestObjectMetaSystemFieldsOnSubresourceCreate() bool { return true }

// Create implements rest.NamedCreater.
func (r *Token) Create(
	ctx context.Context, name string, obj runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions,
) (runtime.Object, error) {
	req, ok := obj.(*authenticationv1.TokenRequest)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a TokenRequest: %T", obj))
	}
	namespace := request.NamespaceValue(ctx)
	account, err := registry.Get[*corev1.ServiceAccount](ctx, r.Accounts, namespace, name)
	if err != nil {
		return nil, err
	}
	now := r.Clock.Now()
	if err := complete(req, account, now); err != nil {
		return nil, err
	}
	if validate != nil {
		if err := validate(ctx, req.DeepCopy()); err != nil {
			return nil, err
		}
	}
	binding, err := r.bind(ctx, namespace, name, req.Spec.BoundObjectRef)
	if err != nil {
		return nil, err
	}
	life := *req.Spec.ExpirationSeconds
	if binding.Pod != nil && life == InjectedSeconds && len(req.Spec.Audiences) == 1 && req.Spec.Audiences[0] == auth.Issuer {
		life = extendedSeconds
	}
	token, err := r.Tokens.Issue(account, binding, req.Spec.Audiences, time.Duration(life)*time.Second)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("failed to generate token: %w", err))
	}
	req.Status = authenticationv1.TokenRequestStatus{
		Token:               token,
		ExpirationTimestamp: metav1.NewTime(now.Add(time.Duration(*req.Spec.ExpirationSeconds) * time.Second)),
	}
	return req, nil
}

// complete fills in what the client left out, and checks the rest.
func complete(req *authenticationv1.TokenRequest, account *corev1.ServiceAccount, now time.Time) error {
	var errs field.ErrorList
	meta, spec := field.NewPath("metadata"), field.NewPath("spec")
	if req.Name != "" && req.Name != account.Name {
		errs = append(errs, field.Invalid(meta.Child("name"), req.Name, "must match the service account name if specified"))
	}
	if req.Namespace != "" && req.Namespace != account.Namespace {
		errs = append(errs, field.Invalid(meta.Child("namespace"), req.Namespace, "must match the service account namespace if specified"))
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(kind.GroupKind(), account.Name, errs)
	}
	if req.UID != "" && req.UID != account.UID {
		return apierrors.NewConflict(schema.GroupResource{Group: kind.Group, Resource: kind.Kind}, account.Name, fmt.Errorf(
			"the UID in the token request (%s) does not match the UID of the service account (%s)", req.UID, account.UID))
	}
	req.Name, req.Namespace, req.UID, req.CreationTimestamp = account.Name, account.Namespace, account.UID, metav1.NewTime(now)
	req.Status = authenticationv1.TokenRequestStatus{}
	if len(req.Spec.Audiences) == 0 {
		req.Spec.Audiences = []string{auth.Issuer}
	}
	if req.Spec.ExpirationSeconds == nil {
		s := int64(defaultSeconds)
		req.Spec.ExpirationSeconds = &s
	}
	switch s := *req.Spec.ExpirationSeconds; {
	case s < minSeconds:
		errs = append(errs, field.Invalid(spec.Child("expirationSeconds"), s, "may not specify a duration less than 10 minutes"))
	case s > maxSeconds:
		errs = append(errs, field.Invalid(spec.Child("expirationSeconds"), s, "may not specify a duration larger than 2^32 seconds"))
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(kind.GroupKind(), "", errs)
	}
	return nil
}

// bind finds what the token shall die with.
func (r *Token) bind(ctx context.Context, namespace, account string, to *authenticationv1.BoundObjectReference) (auth.Binding, error) {
	if to == nil {
		return auth.Binding{}, nil
	}
	gvk := schema.FromAPIVersionAndKind(to.APIVersion, to.Kind)
	if gvk.Group != "" {
		return auth.Binding{}, apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to object of type %s", gvk))
	}
	ref := func(obj metav1.Object) *auth.Ref { return &auth.Ref{Name: obj.GetName(), UID: string(obj.GetUID())} }
	var b auth.Binding
	var uid types.UID
	switch gvk.Kind {
	case "Pod":
		pod, err := registry.Get[*corev1.Pod](ctx, r.Pods, namespace, to.Name)
		if err != nil {
			return b, err
		}
		if pod.Spec.ServiceAccountName != account {
			return b, apierrors.NewBadRequest(fmt.Sprintf(
				"cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", account))
		}
		b.Pod, uid = ref(pod), pod.UID
		if on := pod.Spec.NodeName; on != "" {
			b.Node = &auth.Ref{Name: on}
			if node, err := registry.GetCached[*corev1.Node](ctx, r.Nodes, "", on); err == nil {
				b.Node = ref(node)
			} else if !apierrors.IsNotFound(err) {
				return b, apierrors.NewInternalError(err)
			}
		}
	case "Secret":
		secret, err := registry.Get[*corev1.Secret](ctx, r.Secrets, namespace, to.Name)
		if err != nil {
			return b, err
		}
		b.Secret, uid = ref(secret), secret.UID
	case "Node":
		node, err := registry.Get[*corev1.Node](ctx, r.Nodes, "", to.Name)
		if err != nil {
			return b, err
		}
		b.Node, uid = ref(node), node.UID
	default:
		return b, apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to object of type %s", gvk))
	}
	if to.UID != "" && to.UID != uid {
		return b, apierrors.NewConflict(schema.GroupResource{Resource: gvk.Kind}, to.Name, fmt.Errorf(
			"the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", to.UID))
	}
	return b, nil
}
