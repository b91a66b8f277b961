package review

import (
	"context"
	"errors"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
)

// SelfSubject serves selfsubjectreviews: who am I?
func SelfSubject() *REST[*authenticationv1.SelfSubjectReview] {
	return &REST[*authenticationv1.SelfSubjectReview]{
		singular: "selfsubjectreview",
		make:     func() *authenticationv1.SelfSubjectReview { return &authenticationv1.SelfSubjectReview{} },
		answer: func(ctx context.Context, r *authenticationv1.SelfSubjectReview) (*authenticationv1.SelfSubjectReview, error) {
			me, err := self(ctx)
			if err != nil {
				return nil, err
			}
			r.Status.UserInfo = info(me)
			return r, nil
		},
	}
}

// Token serves tokenreviews: whose token is this, and is it good for one of these audiences? audiences are the server's own.
func Token(tokens authenticator.Token, audiences authenticator.Audiences) *REST[*authenticationv1.TokenReview] {
	return &REST[*authenticationv1.TokenReview]{
		singular: "tokenreview",
		make:     func() *authenticationv1.TokenReview { return &authenticationv1.TokenReview{} },
		answer: func(ctx context.Context, r *authenticationv1.TokenReview) (*authenticationv1.TokenReview, error) {
			if r.Spec.Token == "" {
				return nil, apierrors.NewBadRequest("token is required for TokenReview in authentication")
			}
			wanted := authenticator.Audiences(r.Spec.Audiences)
			if len(wanted) == 0 {
				wanted = audiences
			}
			resp, ok, err := tokens.AuthenticateToken(authenticator.WithAudiences(ctx, wanted), r.Spec.Token)
			r.Status = authenticationv1.TokenReviewStatus{Authenticated: ok}
			if err != nil {
				r.Status.Error = err.Error()
			}
			if ok {
				if resp.User == nil {
					return nil, apierrors.NewInternalError(errors.New("a known token without a user"))
				}
				r.Status.User, r.Status.Audiences = info(resp.User), resp.Audiences
			}
			return r, nil
		},
	}
}

func info(u user.Info) authenticationv1.UserInfo {
	out := authenticationv1.UserInfo{Username: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups()}
	for k, v := range u.GetExtra() {
		if out.Extra == nil {
			out.Extra = map[string]authenticationv1.ExtraValue{}
		}
		out.Extra[k] = v
	}
	return out
}
