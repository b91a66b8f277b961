package review

import (
	"context"
	"slices"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// SubjectAccess serves subjectaccessreviews: may this user do that?
func SubjectAccess(z authorizer.Authorizer) *REST[*authorizationv1.SubjectAccessReview] {
	return &REST[*authorizationv1.SubjectAccessReview]{
		singular: "subjectaccessreview",
		make:     func() *authorizationv1.SubjectAccessReview { return &authorizationv1.SubjectAccessReview{} },
		answer: func(ctx context.Context, r *authorizationv1.SubjectAccessReview) (*authorizationv1.SubjectAccessReview, error) {
			errs := slices.Concat(checkMeta(r.ObjectMeta, ""), checkSubject(r.Spec),
				checkWhat(r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes))
			if len(errs) > 0 {
				return nil, invalid("SubjectAccessReview", errs)
			}
			r.Status = decide(ctx, z, subject(r.Spec), r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
			return r, nil
		},
	}
}

// LocalSubjectAccess serves localsubjectaccessreviews, which ask about one namespace.
func LocalSubjectAccess(z authorizer.Authorizer) *REST[*authorizationv1.LocalSubjectAccessReview] {
	return &REST[*authorizationv1.LocalSubjectAccessReview]{
		singular: "localsubjectaccessreview", namespaced: true,
		make: func() *authorizationv1.LocalSubjectAccessReview { return &authorizationv1.LocalSubjectAccessReview{} },
		answer: func(ctx context.Context, r *authorizationv1.LocalSubjectAccessReview) (*authorizationv1.LocalSubjectAccessReview, error) {
			namespace := request.NamespaceValue(ctx)
			errs := slices.Concat(checkMeta(r.ObjectMeta, namespace), checkSubject(r.Spec),
				checkWhat(r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes))
			if a := r.Spec.ResourceAttributes; a != nil && a.Namespace != namespace {
				errs = append(errs, field.Invalid(field.NewPath("spec.resourceAttributes.namespace"), a.Namespace, "must match metadata.namespace"))
			}
			if r.Spec.NonResourceAttributes != nil {
				errs = append(errs, field.Invalid(field.NewPath("spec.nonResourceAttributes"), r.Spec.NonResourceAttributes,
					"disallowed on this kind of request"))
			}
			if len(errs) > 0 {
				return nil, invalid("LocalSubjectAccessReview", errs)
			}
			r.Status = decide(ctx, z, subject(r.Spec), r.Spec.ResourceAttributes, nil)
			return r, nil
		},
	}
}

// SelfSubjectAccess serves selfsubjectaccessreviews: may I do that?
func SelfSubjectAccess(z authorizer.Authorizer) *REST[*authorizationv1.SelfSubjectAccessReview] {
	return &REST[*authorizationv1.SelfSubjectAccessReview]{
		singular: "selfsubjectaccessreview",
		make:     func() *authorizationv1.SelfSubjectAccessReview { return &authorizationv1.SelfSubjectAccessReview{} },
		answer: func(ctx context.Context, r *authorizationv1.SelfSubjectAccessReview) (*authorizationv1.SelfSubjectAccessReview, error) {
			errs := slices.Concat(checkMeta(r.ObjectMeta, ""), checkWhat(r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes))
			if len(errs) > 0 {
				return nil, invalid("SelfSubjectAccessReview", errs)
			}
			me, err := self(ctx)
			if err != nil {
				return nil, err
			}
			r.Status = decide(ctx, z, me, r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
			return r, nil
		},
	}
}

// SelfSubjectRules serves selfsubjectrulesreviews: what may I do in this namespace?
func SelfSubjectRules(rules authorizer.RuleResolver) *REST[*authorizationv1.SelfSubjectRulesReview] {
	return &REST[*authorizationv1.SelfSubjectRulesReview]{
		singular: "selfsubjectrulesreview",
		make:     func() *authorizationv1.SelfSubjectRulesReview { return &authorizationv1.SelfSubjectRulesReview{} },
		answer: func(ctx context.Context, r *authorizationv1.SelfSubjectRulesReview) (*authorizationv1.SelfSubjectRulesReview, error) {
			if r.Spec.Namespace == "" {
				return nil, apierrors.NewBadRequest("no namespace on request")
			}
			me, err := self(ctx)
			if err != nil {
				return nil, err
			}
			resources, paths, incomplete, err := rules.RulesFor(ctx, me, r.Spec.Namespace)
			r.Status = authorizationv1.SubjectRulesReviewStatus{
				ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{}, Incomplete: incomplete,
			}
			for _, x := range resources {
				r.Status.ResourceRules = append(r.Status.ResourceRules, authorizationv1.ResourceRule{
					Verbs: x.GetVerbs(), APIGroups: x.GetAPIGroups(), Resources: x.GetResources(), ResourceNames: x.GetResourceNames(),
				})
			}
			for _, x := range paths {
				r.Status.NonResourceRules = append(r.Status.NonResourceRules, authorizationv1.NonResourceRule{
					Verbs: x.GetVerbs(), NonResourceURLs: x.GetNonResourceURLs(),
				})
			}
			if err != nil {
				r.Status.EvaluationError = err.Error()
			}
			return r, nil
		},
	}
}

func decide(
	ctx context.Context, z authorizer.Authorizer, who user.Info, res *authorizationv1.ResourceAttributes, path *authorizationv1.NonResourceAttributes,
) authorizationv1.SubjectAccessReviewStatus {
	a := authorizer.AttributesRecord{User: who}
	if res != nil {
		// Selectors only narrow a request, and nobody is allowed a part of what they may not do as a whole.
		a = authorizer.AttributesRecord{
			User: who, Verb: res.Verb, Namespace: res.Namespace, APIGroup: res.Group, APIVersion: res.Version, Resource: res.Resource,
			Subresource: res.Subresource, Name: res.Name, ResourceRequest: true,
		}
		if a.APIVersion == "" {
			a.APIVersion = "*"
		}
	} else if path != nil {
		a.Path, a.Verb = path.Path, path.Verb
	}
	decision, reason, err := z.Authorize(ctx, a)
	status := authorizationv1.SubjectAccessReviewStatus{
		Allowed: decision == authorizer.DecisionAllow, Denied: decision == authorizer.DecisionDeny, Reason: reason,
	}
	if err != nil {
		status.EvaluationError = err.Error()
	}
	return status
}

func subject(s authorizationv1.SubjectAccessReviewSpec) user.Info {
	extra := map[string][]string{}
	for k, v := range s.Extra {
		extra[k] = v
	}
	return &user.DefaultInfo{Name: s.User, Groups: s.Groups, UID: s.UID, Extra: extra}
}

func self(ctx context.Context) (user.Info, error) {
	me, ok := request.UserFrom(ctx)
	if !ok {
		return nil, apierrors.NewBadRequest("no user present on request")
	}
	return me, nil
}

func invalid(kind string, errs field.ErrorList) error {
	return apierrors.NewInvalid(authorizationv1.SchemeGroupVersion.WithKind(kind).GroupKind(), "", errs)
}

func checkMeta(m metav1.ObjectMeta, namespace string) field.ErrorList {
	m.ManagedFields = nil
	if equality.Semantic.DeepEqual(m, metav1.ObjectMeta{Namespace: namespace}) || equality.Semantic.DeepEqual(m, metav1.ObjectMeta{}) {
		return nil
	}
	say := "must be empty"
	if namespace != "" {
		say = "must be empty except for namespace"
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata"), m, say)}
}

func checkSubject(s authorizationv1.SubjectAccessReviewSpec) field.ErrorList {
	if s.User == "" && len(s.Groups) == 0 {
		return field.ErrorList{field.Invalid(field.NewPath("spec", "user"), s.User, "at least one of user or group must be specified")}
	}
	return nil
}

func checkWhat(res *authorizationv1.ResourceAttributes, path *authorizationv1.NonResourceAttributes) field.ErrorList {
	if (res == nil) == (path == nil) {
		return field.ErrorList{field.Invalid(field.NewPath("spec"), path, "exactly one of nonResourceAttributes or resourceAttributes must be specified")}
	}
	return nil
}
