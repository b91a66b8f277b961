package auth

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/utils/clock"
)

// Issuer is who signs service account tokens, as their iss claim says, and the audience of the API server itself.
const Issuer = "https://kubernetes.default.svc.cluster.local"

// leeway is how much clocks may differ.
const leeway = time.Minute

// Ref names one object, and which of the name it is.
type Ref struct {
	Name string `json:"name,omitempty"`
	UID  string `json:"uid,omitempty"`
}

type claims struct {
	Audience   audience        `json:"aud,omitempty"`
	Expiry     int64           `json:"exp"`
	IssuedAt   int64           `json:"iat"`
	Issuer     string          `json:"iss"`
	ID         string          `json:"jti"`
	Kubernetes kubernetesClaim `json:"kubernetes.io"`
	NotBefore  int64           `json:"nbf"`
	Subject    string          `json:"sub"`
}

type kubernetesClaim struct {
	Namespace      string `json:"namespace,omitempty"`
	Node           *Ref   `json:"node,omitempty"`
	Pod            *Ref   `json:"pod,omitempty"`
	Secret         *Ref   `json:"secret,omitempty"`
	ServiceAccount Ref    `json:"serviceaccount"`
}

type audience []string

// Binding is what a token dies with. At most one of Pod and Secret is set; Node stands beside a Pod, or alone.
type Binding struct{ Pod, Secret, Node *Ref }

// Objects gives the objects that tokens are bound to. They may be a moment old.
type Objects interface {
	ServiceAccount(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error)
	Pod(ctx context.Context, namespace, name string) (*corev1.Pod, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	Node(ctx context.Context, name string) (*corev1.Node, error)
}

// Tokens issues and checks service account tokens.
type Tokens struct {
	key     *ecdsa.PrivateKey
	id      string
	objects Objects
	clock   clock.PassiveClock
}

// NewTokens makes Tokens that sign with key.
func NewTokens(key *ecdsa.PrivateKey, objects Objects, clock clock.PassiveClock) (*Tokens, error) {
	id, err := keyID(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	return &Tokens{key: key, id: id, objects: objects, clock: clock}, nil
}

// Issue signs a token for a service account that lives for the given time.
func (t *Tokens) Issue(account *corev1.ServiceAccount, to Binding, audiences []string, life time.Duration) (token string, err error) {
	now := t.clock.Now()
	return sign(t.key, t.id, &claims{
		Audience: audiences, Expiry: now.Add(life).Unix(), IssuedAt: now.Unix(), NotBefore: now.Unix(), Issuer: Issuer,
		ID: uuid.NewString(), Subject: serviceaccount.MakeUsername(account.Namespace, account.Name),
		Kubernetes: kubernetesClaim{
			Namespace: account.Namespace, ServiceAccount: Ref{Name: account.Name, UID: string(account.UID)},
			Pod: to.Pod, Secret: to.Secret, Node: to.Node,
		},
	})
}

// AuthenticateToken implements authenticator.Token. A token whose service account or bound object is gone is an error.
func (t *Tokens) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	var c claims
	if err := verify(&t.key.PublicKey, t.id, token, &c); errors.Is(err, errForeign) {
		return nil, false, nil
	} else if err != nil {
		return nil, false, err
	}
	if c.Issuer != Issuer {
		return nil, false, nil
	}
	wanted, ok := authenticator.AudiencesFrom(ctx)
	if !ok || len(wanted) == 0 {
		wanted = authenticator.Audiences{Issuer}
	}
	common := wanted.Intersect(authenticator.Audiences(c.Audience))
	if len(common) == 0 {
		return nil, false, fmt.Errorf("token audiences %q is invalid for the target audiences %q", []string(c.Audience), []string(wanted))
	}
	now := t.clock.Now()
	switch {
	case now.After(time.Unix(c.Expiry, 0).Add(leeway)):
		return nil, false, errors.New("service account token has expired")
	case now.Before(time.Unix(c.NotBefore, 0).Add(-leeway)):
		return nil, false, errors.New("service account token is not valid yet")
	}
	if err := t.alive(ctx, c.Kubernetes, now); err != nil {
		return nil, false, err
	}
	info := serviceaccount.ServiceAccountInfo{
		Namespace: c.Kubernetes.Namespace, Name: c.Kubernetes.ServiceAccount.Name, UID: c.Kubernetes.ServiceAccount.UID,
		CredentialID: "JTI=" + c.ID,
	}
	if p := c.Kubernetes.Pod; p != nil {
		info.PodName, info.PodUID = p.Name, p.UID
	}
	if n := c.Kubernetes.Node; n != nil {
		info.NodeName, info.NodeUID = n.Name, n.UID
	}
	return &authenticator.Response{User: info.UserInfo(), Audiences: slices.Clone(common)}, true, nil
}

// alive checks that the objects that the token belongs to are still the same.
func (t *Tokens) alive(ctx context.Context, c kubernetesClaim, now time.Time) error {
	account, err := t.objects.ServiceAccount(ctx, c.Namespace, c.ServiceAccount.Name)
	if err != nil {
		return err
	}
	if err := same("service account", account, c.ServiceAccount, now); err != nil {
		return err
	}
	invalidated := errors.New("service account token has been invalidated")
	switch {
	case c.Pod != nil:
		pod, err := t.objects.Pod(ctx, c.Namespace, c.Pod.Name)
		if err != nil {
			return invalidated
		}
		return same("pod", pod, *c.Pod, now)
	case c.Secret != nil:
		secret, err := t.objects.Secret(ctx, c.Namespace, c.Secret.Name)
		if err != nil {
			return invalidated
		}
		return same("secret", secret, *c.Secret, now)
	case c.Node != nil:
		node, err := t.objects.Node(ctx, c.Node.Name)
		if err != nil {
			return invalidated
		}
		return same("node", node, *c.Node, now)
	}
	return nil
}

func same(kind string, obj metav1.Object, want Ref, now time.Time) error {
	if string(obj.GetUID()) != want.UID {
		return fmt.Errorf("%s UID (%s) does not match claim (%s)", kind, obj.GetUID(), want.UID)
	}
	if d := obj.GetDeletionTimestamp(); d != nil && d.Time.Before(now.Add(-leeway)) {
		return errors.New("service account token has been invalidated")
	}
	return nil
}
