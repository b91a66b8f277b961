package server

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authentication/request/websocket"
	certificate "k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
)

// For how long answers of the API server hold: kubelet's times. remembered is how many are kept.
const (
	tokenHolds   = 2 * time.Minute
	allowedHolds = 5 * time.Minute
	deniedHolds  = 30 * time.Second
	remembered   = 1024
)

// Guard lets those through to a handler whom the API server knows and allows to. Make it with NewGuard.
type Guard struct {
	node   string
	client kubernetes.Interface
	who    authenticator.Request
	// tokens and decisions are answers of the API server.
	tokens, decisions *cache.LRUExpireCache
	log               *slog.Logger
}

// NewGuard returns the Guard of the named node's server. Clients are known by certificates that the authorities of pool signed, or by tokens
// that client reviews. Nobody is anonymous.
func NewGuard(node string, client kubernetes.Interface, pool func() *x509.CertPool, log *slog.Logger) *Guard {
	g := &Guard{node: node, client: client, tokens: cache.NewLRUExpireCache(remembered), decisions: cache.NewLRUExpireCache(remembered), log: log}
	certificates := certificate.NewDynamic(func() (x509.VerifyOptions, bool) {
		opts := certificate.DefaultVerifyOptions()
		opts.Roots = pool()
		return opts, opts.Roots != nil
	}, certificate.CommonNameUserConversion)
	tokens := authenticator.TokenFunc(g.review)
	g.who = group.NewAuthenticatedGroupAdder(union.New(certificates, bearertoken.New(tokens), websocket.NewProtocolAuthenticator(tokens)))
	return g
}

// Wrap puts the Guard before h.
func (g *Guard) Wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, ok, err := g.who.AuthenticateRequest(r)
		if err != nil {
			g.log.Info("a request to the node's server is not authenticated", "path", r.URL.Path, "from", r.RemoteAddr, "error", err)
		}
		if err != nil || !ok {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		may, err := g.may(r.Context(), who.User, verb(r.Method), subresources(r.URL.Path))
		switch {
		case err != nil:
			g.log.Warn("ask whether a request to the node's server is allowed", "user", who.User.GetName(), "error", err)
			http.Error(w, fmt.Sprintf("Authorization error (user=%s, verb=%s, resource=nodes, subresource(s)=%v)", who.User.GetName(), verb(r.Method),
				subresources(r.URL.Path)), http.StatusInternalServerError)
		case !may:
			http.Error(w, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource(s)=%v)", who.User.GetName(), verb(r.Method),
				subresources(r.URL.Path)), http.StatusForbidden)
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// review asks the API server whose token it is.
func (g *Guard) review(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	key := sha256.Sum256([]byte(token))
	if known, ok := g.tokens.Get(key); ok {
		return &authenticator.Response{User: known.(user.Info)}, true, nil
	}
	r, err := g.client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}},
		metav1.CreateOptions{})
	if err != nil {
		return nil, false, err
	}
	if !r.Status.Authenticated {
		if r.Status.Error != "" {
			return nil, false, errors.New(r.Status.Error)
		}
		return nil, false, nil
	}
	u := &user.DefaultInfo{Name: r.Status.User.Username, UID: r.Status.User.UID, Groups: r.Status.User.Groups, Extra: map[string][]string{}}
	for k, v := range r.Status.User.Extra {
		u.Extra[k] = v
	}
	g.tokens.Add(key, user.Info(u), tokenHolds)
	return &authenticator.Response{User: u}, true, nil
}

// may says whether the user is allowed any of the subresources of this node. system:masters are allowed everything, also while the API server
// is away.
func (g *Guard) may(ctx context.Context, u user.Info, verb string, subresources []string) (bool, error) {
	if slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup) {
		return true, nil
	}
	for _, sub := range subresources {
		spec := authorizationv1.SubjectAccessReviewSpec{User: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups(), Extra: map[string]authorizationv1.ExtraValue{},
			ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Version: "v1", Resource: "nodes", Subresource: sub, Name: g.node}}
		for k, v := range u.GetExtra() {
			spec.Extra[k] = v
		}
		raw, err := json.Marshal(spec)
		if err != nil {
			return false, fmt.Errorf("make an access review: %w", err)
		}
		key := string(raw)
		if known, ok := g.decisions.Get(key); ok {
			if known.(bool) {
				return true, nil
			}
			continue
		}
		r, err := g.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: spec}, metav1.CreateOptions{})
		if err != nil {
			return false, err
		}
		holds := deniedHolds
		if r.Status.Allowed {
			holds = allowedHolds
		}
		g.decisions.Add(key, r.Status.Allowed, holds)
		if r.Status.Allowed {
			return true, nil
		}
	}
	return false, nil
}

// verb is the API's for an HTTP method.
func verb(method string) string {
	switch method {
	case http.MethodPost:
		return "create"
	case http.MethodGet:
		return "get"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		return "delete"
	}
	return ""
}

// subresources are those of nodes of which a path needs one.
func subresources(path string) []string {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch first {
	case "stats", "metrics", "checkpoint":
		return []string{first}
	case "logs":
		return []string{"log"}
	case "pods", "runningpods":
		return []string{"pods", "proxy"}
	case "healthz", "configz":
		return []string{first, "proxy"}
	}
	return []string{"proxy"}
}
