package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	clocktesting "k8s.io/utils/clock/testing"
)

// objects has one account and one Pod.
type objects struct {
	account *corev1.ServiceAccount
	pod     *corev1.Pod
}

func (o objects) ServiceAccount(context.Context, string, string) (*corev1.ServiceAccount, error) {
	if o.account == nil {
		return nil, apierrors.NewNotFound(corev1.Resource("serviceaccounts"), "a")
	}
	return o.account, nil
}

func (o objects) Pod(context.Context, string, string) (*corev1.Pod, error) {
	if o.pod == nil {
		return nil, apierrors.NewNotFound(corev1.Resource("pods"), "p")
	}
	return o.pod, nil
}
func (objects) Secret(context.Context, string, string) (*corev1.Secret, error) {
	return nil, errors.New("none")
}
func (objects) Node(context.Context, string) (*corev1.Node, error) { return nil, errors.New("none") }

func TestTokenLife(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "a", UID: "1"}}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p", UID: "2"}}
	other := account.DeepCopy()
	other.UID = "9"
	ended := pod.DeepCopy()
	ended.DeletionTimestamp = &metav1.Time{Time: now.Add(-time.Hour)}
	ending := pod.DeepCopy()
	ending.DeletionTimestamp = &metav1.Time{Time: now}
	for _, tt := range []struct {
		name string
		at   time.Duration
		have objects
		want string
	}{
		{"fresh", 0, objects{account, pod}, ""},
		{"a moment after its end", time.Hour + 30*time.Second, objects{account, pod}, ""},
		{"after its end", time.Hour + 2*time.Minute, objects{account, pod}, "service account token has expired"},
		{"before its time", -2 * time.Minute, objects{account, pod}, "not valid yet"},
		{"no account", 0, objects{nil, pod}, "not found"},
		{"account of the same name", 0, objects{other, pod}, "service account UID (9) does not match claim (1)"},
		{"no Pod", 0, objects{account, nil}, "service account token has been invalidated"},
		{"Pod is ending", 0, objects{account, ending}, ""},
		{"Pod should be gone", 0, objects{account, ended}, "service account token has been invalidated"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			clock := clocktesting.NewFakePassiveClock(now)
			tokens, err := NewTokens(key, tt.have, clock)
			if err != nil {
				t.Fatal(err)
			}
			token, err := tokens.Issue(account, Binding{Pod: &Ref{Name: "p", UID: "2"}}, []string{Issuer}, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			clock.SetTime(now.Add(tt.at))
			resp, ok, err := tokens.AuthenticateToken(t.Context(), token)
			if tt.want != "" {
				if ok || err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v %v", ok, err)
				}
				return
			}
			if err != nil || !ok || resp.User.GetName() != "system:serviceaccount:n:a" {
				t.Errorf("%v %v", resp, err)
			}
		})
	}
}

func TestForeignAndForgedTokens(t *testing.T) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "a", UID: "1"}}
	tokens, err := NewTokens(key, objects{account: account}, clocktesting.NewFakePassiveClock(time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	token, err := tokens.Issue(account, Binding{}, []string{"vault"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := tokens.AuthenticateToken(t.Context(), token); ok || err == nil {
		t.Errorf("for another audience: %v %v", ok, err)
	}
	if _, ok, err := tokens.AuthenticateToken(authenticator.WithAudiences(t.Context(), authenticator.Audiences{"vault"}), token); !ok || err != nil {
		t.Errorf("for its own audience: %v %v", ok, err)
	}
	parts := strings.Split(token, ".")
	for name, forged := range map[string]string{
		"claims changed":  parts[0] + "." + b64.EncodeToString([]byte(`{"iss":"`+Issuer+`"}`)) + "." + parts[2],
		"no signature":    parts[0] + "." + parts[1] + ".",
		"signature zero":  parts[0] + "." + parts[1] + "." + b64.EncodeToString(make([]byte, 64)),
		"none algorithm":  b64.EncodeToString([]byte(`{"alg":"none","kid":"`+tokens.id+`"}`)) + "." + parts[1] + ".",
		"not a JWT":       "abc",
		"other key":       b64.EncodeToString([]byte(`{"alg":"ES256","kid":"x"}`)) + "." + parts[1] + "." + parts[2],
		"empty":           "",
		"header no JSON":  b64.EncodeToString([]byte(`x`)) + "." + parts[1] + "." + parts[2],
		"header no base":  "%." + parts[1] + "." + parts[2],
		"signature short": parts[0] + "." + parts[1] + ".AAAA",
	} {
		if _, ok, _ := tokens.AuthenticateToken(t.Context(), forged); ok {
			t.Errorf("%s: taken", name)
		}
	}
}

func FuzzVerify(f *testing.F) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	id, _ := keyID(&key.PublicKey)
	good, _ := sign(key, id, claims{Issuer: Issuer})
	f.Add(good)
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, token string) {
		var c claims
		if verify(&key.PublicKey, id, token, &c) == nil && token != good {
			// base64 ignores nothing here, and a signature fits one body only: the body must be the same.
			if strings.HasPrefix(token, good[:strings.LastIndex(good, ".")]) {
				return // another signature of the same body
			}
			t.Errorf("forged: %q", token)
		}
	})
}
