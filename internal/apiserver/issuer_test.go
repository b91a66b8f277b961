package apiserver_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// TestOthersCanCheckTokens reads the documents about the issuer with a token of any service account, and checks that token by them alone.
func TestOthersCanCheckTokens(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	f.account(t, "default")
	token := must[*authenticationv1.TokenRequest](t)(f.kube.CoreV1().ServiceAccounts("default").CreateToken(ctx, "default",
		&authenticationv1.TokenRequest{}, metav1.CreateOptions{})).Status.Token
	c := rest.AnonymousClientConfig(f.admin)
	if _, err := kubernetes.NewForConfigOrDie(c).RESTClient().Get().AbsPath("/openid/v1/jwks").DoRaw(ctx); err == nil {
		t.Error("anybody reads the keys")
	}
	c.BearerToken = token
	pod := kubernetes.NewForConfigOrDie(c).RESTClient()
	var about struct {
		Issuer string
		Keys   string   `json:"jwks_uri"`
		Algs   []string `json:"id_token_signing_alg_values_supported"`
	}
	var keys struct {
		Keys []struct{ Kty, Kid, Crv, Alg, X, Y string }
	}
	for path, into := range map[string]any{"/.well-known/openid-configuration": &about, "/openid/v1/jwks": &keys} {
		raw, err := pod.Get().AbsPath(path).DoRaw(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, into); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
	}
	if about.Issuer != "https://kubernetes.default.svc.cluster.local" || !strings.HasPrefix(about.Keys, "https://192.0.2.1:") ||
		!strings.HasSuffix(about.Keys, "/openid/v1/jwks") {
		t.Errorf("%+v", about)
	}
	k, parts := keys.Keys[0], strings.Split(token, ".")
	number := func(s string) *big.Int {
		raw, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return new(big.Int).SetBytes(raw)
	}
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	public := &ecdsa.PublicKey{Curve: elliptic.P256(), X: number(k.X), Y: number(k.Y)}
	if k.Kty != "EC" || k.Crv != "P-256" || k.Alg != about.Algs[0] ||
		!ecdsa.Verify(public, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		t.Errorf("the token does not fit the keys: %+v", k)
	}
	header, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil || !strings.Contains(string(header), k.Kid) {
		t.Errorf("the token names another key: %s %v", header, err)
	}
}
