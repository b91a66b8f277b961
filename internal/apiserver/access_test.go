package apiserver_test

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"carob.dev/carob/internal/apiserver/auth"
)

func TestWhoMayDoWhat(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	for _, tt := range []struct {
		user   string
		groups []string
		ok     bool
	}{
		{"joe", nil, false},
		{"joe", []string{"system:masters"}, true},
		{"system:kube-scheduler", nil, true},
		{"system:node:n1", []string{"system:nodes"}, false}, // only its own
		{"system:node:n1", nil, false},
		{"system:serviceaccount:kube-system:replicaset-controller", nil, false}, // only in this process
	} {
		_, err := f.as(t, tt.user, tt.groups...).CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
		if tt.ok != (err == nil) {
			t.Errorf("%s %v: %v", tt.user, tt.groups, err)
		}
		want := `pods is forbidden: User "joe" cannot list resource "pods" in API group "" in the namespace "default"`
		if tt.user == "joe" && !tt.ok && err.Error() != want {
			t.Errorf("message: %v", err)
		}
	}
	if _, err := f.own.AppsV1().ReplicaSets("").List(ctx, metav1.ListOptions{}); err != nil {
		t.Errorf("a controller of this process: %v", err)
	}
	stranger := kubernetes.NewForConfigOrDie(f.ClientConfig("joe"))
	if _, err := stranger.CoreV1().Pods("default").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("somebody else in this process: %v", err)
	}
}

func TestAnonymous(t *testing.T) {
	f := start(t)
	c := rest.AnonymousClientConfig(f.admin)
	hc, err := rest.HTTPClientFor(c)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"/healthz": 200, "/livez": 200, "/readyz": 200, "/version": 200, "/api": 403, "/metrics": 403, "/api/v1/pods": 403, "/nothing": 403,
	} {
		resp, err := hc.Get("https://" + f.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
		if path == "/version" && !strings.Contains(string(body), `"gitVersion": "v1.37.2+carob"`) {
			t.Errorf("version: %s", body)
		}
	}
	req, err := http.NewRequest(http.MethodGet, "https://"+f.Addr().String()+"/api/v1/pods", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer nonsense")
	resp, err := hc.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("a bad token: %d", resp.StatusCode)
	}
}

func TestReviews(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	joe := f.as(t, "joe", "team")
	self := must[*authenticationv1.SelfSubjectReview](t)(
		joe.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{}))
	if self.Status.UserInfo.Username != "joe" || !cmp.Equal(self.Status.UserInfo.Groups, []string{"team", "system:authenticated"}) {
		t.Errorf("who am I: %+v", self.Status)
	}
	pods := &authorizationv1.ResourceAttributes{Verb: "list", Resource: "pods", Namespace: "default"}
	may := must[*authorizationv1.SelfSubjectAccessReview](t)(joe.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx,
		&authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: pods}}, metav1.CreateOptions{}))
	if may.Status.Allowed {
		t.Error("joe may list pods")
	}
	other := must[*authorizationv1.SubjectAccessReview](t)(f.kube.AuthorizationV1().SubjectAccessReviews().Create(ctx,
		&authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			ResourceAttributes: pods, User: "x", Groups: []string{"system:masters"},
		}}, metav1.CreateOptions{}))
	if !other.Status.Allowed {
		t.Error("a master may not list pods")
	}
	_, err := f.kube.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{}, metav1.CreateOptions{})
	if !apierrors.IsInvalid(err) {
		t.Errorf("an empty review: %v", err)
	}
	rules := must[*authorizationv1.SelfSubjectRulesReview](t)(joe.AuthorizationV1().SelfSubjectRulesReviews().Create(ctx,
		&authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "default"}}, metav1.CreateOptions{}))
	if len(rules.Status.ResourceRules) == 0 || len(rules.Status.NonResourceRules) == 0 || rules.Status.Incomplete {
		t.Errorf("rules: %+v", rules.Status)
	}
}

func TestTokens(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	account := f.account(t, "default")
	pod := f.pod(t, newPod("p"))
	request := func(spec authenticationv1.TokenRequestSpec) (*authenticationv1.TokenRequest, error) {
		return f.kube.CoreV1().ServiceAccounts("default").CreateToken(ctx, "default", &authenticationv1.TokenRequest{Spec: spec}, metav1.CreateOptions{})
	}
	tr := must[*authenticationv1.TokenRequest](t)(request(authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "p", UID: pod.UID},
	}))
	if tr.Status.Token == "" || tr.Status.ExpirationTimestamp.IsZero() {
		t.Fatalf("%+v", tr.Status)
	}
	c := rest.AnonymousClientConfig(f.admin)
	c.BearerToken = tr.Status.Token
	holder := kubernetes.NewForConfigOrDie(c)
	who := must[*authenticationv1.SelfSubjectReview](t)(
		holder.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})).Status.UserInfo
	if who.Username != "system:serviceaccount:default:default" || who.UID != string(account.UID) ||
		!cmp.Equal(who.Groups, []string{"system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"}) ||
		!cmp.Equal([]string(who.Extra["authentication.kubernetes.io/pod-name"]), []string{"p"}) {
		t.Errorf("holder: %+v", who)
	}
	if _, err := holder.CoreV1().Secrets("default").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a Pod may read secrets: %v", err)
	}
	review := must[*authenticationv1.TokenReview](t)(f.kube.AuthenticationV1().TokenReviews().Create(ctx,
		&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: tr.Status.Token}}, metav1.CreateOptions{}))
	if !review.Status.Authenticated || !cmp.Equal(review.Status.Audiences, []string{auth.Issuer}) ||
		!slices.Contains(review.Status.User.Groups, "system:authenticated") {
		t.Errorf("review: %+v", review.Status)
	}

	wrong := types.UID("other")
	if _, err := request(authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{
		APIVersion: "v1", Kind: "Pod", Name: "p", UID: wrong,
	}}); !apierrors.IsConflict(err) {
		t.Errorf("bound to another Pod: %v", err)
	}
	short := int64(10)
	if _, err := request(authenticationv1.TokenRequestSpec{ExpirationSeconds: &short}); !apierrors.IsInvalid(err) {
		t.Errorf("too short: %v", err)
	}
	elsewhere := must[*authenticationv1.TokenRequest](t)(request(authenticationv1.TokenRequestSpec{Audiences: []string{"vault"}}))
	c.BearerToken = elsewhere.Status.Token
	if _, err := kubernetes.NewForConfigOrDie(c).Discovery().ServerGroups(); !apierrors.IsUnauthorized(err) {
		t.Errorf("a token for somebody else: %v", err)
	}

	now := int64(0)
	if err := f.kube.CoreV1().Pods("default").Delete(ctx, "p", metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
	if _, err := holder.Discovery().ServerGroups(); !apierrors.IsUnauthorized(err) {
		t.Errorf("the Pod is gone: %v", err)
	}
}

func TestControllersNameDoesNotHelpAPod(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	accounts := f.kube.CoreV1().ServiceAccounts("kube-system")
	name := "replicaset-controller"
	must[*corev1.ServiceAccount](t)(accounts.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}))
	tr := must[*authenticationv1.TokenRequest](t)(accounts.CreateToken(ctx, name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{}))
	c := rest.AnonymousClientConfig(f.admin)
	c.BearerToken = tr.Status.Token
	if _, err := kubernetes.NewForConfigOrDie(c).CoreV1().Secrets("").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("list secrets: %v", err)
	}
}
