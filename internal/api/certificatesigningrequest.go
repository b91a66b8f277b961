package api

import (
	"context"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apiserver/pkg/endpoints/request"
)

func certificateSigningRequestKind() *Kind {
	doc := certificatesv1.CertificateSigningRequestSpec{}.SwaggerDoc()
	return &Kind{
		GroupVersionKind: certificatesv1.SchemeGroupVersion.WithKind("CertificateSigningRequest"),
		Resource:         "certificatesigningrequests", Singular: "certificatesigningrequest", ShortNames: []string{"csr"},
		New:     func() runtime.Object { return &certificatesv1.CertificateSigningRequest{} },
		NewList: func() runtime.Object { return &certificatesv1.CertificateSigningRequestList{} },

		// Who asks is not for the client to say, and what is asked for does not change.
		PrepareForCreate: func(ctx context.Context, obj runtime.Object) {
			r := obj.(*certificatesv1.CertificateSigningRequest)
			signRequester(ctx, &r.Spec)
			r.Status = certificatesv1.CertificateSigningRequestStatus{Conditions: []certificatesv1.CertificateSigningRequestCondition{}}
		},
		PrepareForUpdate: onUpdate(func(r, old *certificatesv1.CertificateSigningRequest) { r.Spec, r.Status = old.Spec, old.Status }),
		Validate:         check(validateSigningRequest),
		ValidateUpdate:   checkUpdate(validateSigningRequestUpdate(neither)),
		Status: &Subresource{
			PrepareForUpdate: onUpdate(func(r, old *certificatesv1.CertificateSigningRequest) {
				r.Spec = old.Spec
				keepDecisions(&r.Status, &old.Status)
				stampConditions(&r.Status, &old.Status, metav1.Now())
			}),
			ValidateUpdate: checkUpdate(validateSigningRequestUpdate(certificate)),
			ResetFields:    []string{"spec", "status.conditions"},
		},
		Approval: &Subresource{
			PrepareForUpdate: onUpdate(func(r, old *certificatesv1.CertificateSigningRequest) {
				stampConditions(&r.Status, &old.Status, metav1.Now())
				conditions := r.Status.Conditions
				r.Spec, r.Status = old.Spec, old.Status
				r.Status.Conditions = conditions
			}),
			ValidateUpdate: checkUpdate(validateSigningRequestUpdate(decision)),
			ResetFields:    []string{"spec", "status.certificate"},
		},
		AllowUnconditionalUpdate: true,

		Columns: []metav1.TableColumnDefinition{
			nameColumn(), ageColumn(), column("SignerName", "string", doc["signerName"]), column("Requestor", "string", doc["request"]),
			column("RequestedDuration", "string", doc["expirationSeconds"]),
			column("Condition", "string", certificatesv1.CertificateSigningRequestStatus{}.SwaggerDoc()["conditions"]),
		},
		Row: row(func(r *certificatesv1.CertificateSigningRequest, now time.Time) []any {
			life := "<none>"
			if n := r.Spec.ExpirationSeconds; n != nil {
				life = duration.HumanDuration(time.Duration(*n) * time.Second)
			}
			return []any{r.Name, age(r.CreationTimestamp, now), or(r.Spec.SignerName, "<none>"), r.Spec.Username, life, signingState(&r.Status)}
		}),
		Fields: selectable(func(r *certificatesv1.CertificateSigningRequest) fields.Set {
			return fields.Set{"spec.signerName": r.Spec.SignerName}
		}),
	}
}

// signRequester notes who makes the request.
func signRequester(ctx context.Context, spec *certificatesv1.CertificateSigningRequestSpec) {
	spec.Username, spec.UID, spec.Groups, spec.Extra = "", "", nil, nil
	u, ok := request.UserFrom(ctx)
	if !ok {
		return
	}
	spec.Username, spec.UID, spec.Groups = u.GetName(), u.GetUID(), u.GetGroups()
	for key, values := range u.GetExtra() {
		if spec.Extra == nil {
			spec.Extra = map[string]certificatesv1.ExtraValue{}
		}
		spec.Extra[key] = values
	}
}

func hasCondition(s *certificatesv1.CertificateSigningRequestStatus, t certificatesv1.RequestConditionType) bool {
	return slices.ContainsFunc(s.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool { return c.Type == t })
}

func signingState(s *certificatesv1.CertificateSigningRequestStatus) string {
	state := []string{"Pending"}
	switch {
	case hasCondition(s, certificatesv1.CertificateDenied):
		state[0] = "Denied"
	case hasCondition(s, certificatesv1.CertificateApproved):
		state[0] = "Approved"
	}
	if hasCondition(s, certificatesv1.CertificateFailed) {
		state = append(state, "Failed")
	}
	if len(s.Certificate) > 0 {
		state = append(state, "Issued")
	}
	return strings.Join(state, ",")
}

// keepDecisions keeps the conditions that say whether the request is granted as they were, where they are as many.
func keepDecisions(s, old *certificatesv1.CertificateSigningRequestStatus) {
	for _, t := range []certificatesv1.RequestConditionType{certificatesv1.CertificateApproved, certificatesv1.CertificateDenied} {
		was := conditionsOf(old, t)
		if len(was) != len(conditionsOf(s, t)) {
			continue // validation refuses it
		}
		for i := range s.Conditions {
			if s.Conditions[i].Type == t {
				s.Conditions[i], was = was[0], was[1:]
			}
		}
	}
}

func conditionsOf(
	s *certificatesv1.CertificateSigningRequestStatus, t certificatesv1.RequestConditionType,
) (out []certificatesv1.CertificateSigningRequestCondition) {
	for _, c := range s.Conditions {
		if c.Type == t {
			out = append(out, c)
		}
	}
	return out
}

// stampConditions gives conditions the times that they lack.
func stampConditions(s, old *certificatesv1.CertificateSigningRequestStatus, now metav1.Time) {
	for i := range s.Conditions {
		c := &s.Conditions[i]
		if c.LastUpdateTime.IsZero() {
			c.LastUpdateTime = now
		}
		if !c.LastTransitionTime.IsZero() {
			continue
		}
		c.LastTransitionTime = now
		for _, o := range old.Conditions {
			if o.Type == c.Type && o.Status == c.Status && !o.LastTransitionTime.IsZero() {
				c.LastTransitionTime = o.LastTransitionTime
				break
			}
		}
	}
}
