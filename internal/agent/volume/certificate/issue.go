package certificate

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/certificates/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
)

const (
	// abandonAfter is when a request that is not there any more is made anew.
	abandonAfter = 10 * time.Minute
	// jitter spreads renewals.
	jitter = 5 * time.Minute
	// retryRefresh is how soon a renewal is looked at again that has been asked for.
	retryRefresh = time.Minute
)

// Config is what an Issuer needs. All must be set.
type Config struct {
	Client   kubernetes.Interface
	NodeName string
	// Changed is called, from any goroutine, when a request of the Pod has changed.
	Changed func(pod types.UID)
	// Event writes a warning about a Pod.
	Event func(pod *corev1.Pod, reason, message string)
	Clock clock.PassiveClock
}

// Issuer gets certificates for Pods: it makes a key, asks a signer for a certificate for it, and asks anew before that ends. What it has is
// kept in memory: after a restart all are asked for anew.
type Issuer struct {
	cfg  Config
	ctx  context.Context
	once sync.Once

	lister listers.PodCertificateRequestLister

	mu    sync.Mutex // guards creds and what is in them
	creds map[types.UID]map[Source]*credential
}

// Source is one certificate of a Pod: the index of a source in a projected volume.
type Source struct {
	Volume string
	Index  int
}

// credential is how far one certificate is.
type credential struct {
	// request is the one under way, with its key; empty for none.
	request   string
	newKey    []byte
	abandonAt time.Time
	// key and chain are what the Pod has, in PEM.
	key, chain []byte
	refreshAt  time.Time
	// failed is why there will be none.
	failed error
}

// NewIssuer returns an Issuer whose watch ends with ctx.
func NewIssuer(ctx context.Context, cfg Config) *Issuer {
	return &Issuer{cfg: cfg, ctx: ctx, creds: map[types.UID]map[Source]*credential{}}
}

func (i *Issuer) start() {
	mine := fields.OneTermEqualSelector("spec.nodeName", i.cfg.NodeName).String()
	factory := informers.NewSharedInformerFactoryWithOptions(i.cfg.Client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.FieldSelector = mine }))
	requests := factory.Certificates().V1().PodCertificateRequests()
	changed := func(obj any) {
		if r, ok := obj.(*certificatesv1.PodCertificateRequest); ok {
			i.cfg.Changed(r.Spec.PodUID)
		}
	}
	i.lister = requests.Lister()
	requests.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: changed, UpdateFunc: func(_, obj any) { changed(obj) }})
	factory.StartWithContext(i.ctx)
}

// Get returns the key and the chain of certificates, in PEM, of one source of a Pod. Until there are some it fails; Changed says when to ask again.
func (i *Issuer) Get(ctx context.Context, pod *corev1.Pod, at Source, src *corev1.PodCertificateProjection) (key, chain []byte, err error) {
	i.once.Do(i.start)
	i.mu.Lock()
	defer i.mu.Unlock()
	c := i.creds[pod.UID][at]
	if c == nil {
		if i.creds[pod.UID] == nil {
			i.creds[pod.UID] = map[Source]*credential{}
		}
		c = &credential{}
		i.creds[pod.UID][at] = c
	}
	now := i.cfg.Clock.Now()
	if c.failed == nil && c.request != "" {
		i.look(pod, c, now)
	}
	if c.failed == nil && c.request == "" && (c.key == nil || !now.Before(c.refreshAt)) {
		if err := i.ask(ctx, pod, src, c); err != nil && c.key == nil {
			return nil, nil, err
		}
		c.refreshAt = now.Add(retryRefresh)
	}
	switch {
	case c.failed != nil:
		return nil, nil, c.failed
	case c.key == nil:
		return nil, nil, fmt.Errorf("PodCertificateRequest %s/%s has not been answered by signer %s yet", pod.Namespace, c.request, src.SignerName)
	}
	return c.key, c.chain, nil
}

// look takes over what has become of the request under way.
func (i *Issuer) look(pod *corev1.Pod, c *credential, now time.Time) {
	r, err := i.lister.PodCertificateRequests(pod.Namespace).Get(c.request)
	if err != nil {
		if apierrors.IsNotFound(err) && now.After(c.abandonAt) {
			c.request, c.refreshAt = "", time.Time{}
		}
		return
	}
	for _, cond := range r.Status.Conditions {
		name := r.Namespace + "/" + r.Name
		switch cond.Type {
		case certificatesv1.PodCertificateRequestConditionTypeDenied:
			c.failed = fmt.Errorf("PodCertificateRequest %s was denied, reason=%q, message=%q", name, cond.Reason, cond.Message)
		case certificatesv1.PodCertificateRequestConditionTypeFailed:
			c.failed = fmt.Errorf("PodCertificateRequest %s failed, reason=%q, message=%q", name, cond.Reason, cond.Message)
		case certificatesv1.PodCertificateRequestConditionTypeIssued:
			c.key, c.chain, c.request, c.newKey = c.newKey, clean([]byte(r.Status.CertificateChain)), "", nil
			c.refreshAt = r.Status.BeginRefreshAt.Add(mathrand.N(jitter))
			continue
		default:
			continue
		}
		i.cfg.Event(pod, cond.Type, c.failed.Error())
	}
}

// ask makes a key and a request for it.
func (i *Issuer) ask(ctx context.Context, pod *corev1.Pod, src *corev1.PodCertificateProjection, c *credential) error {
	account, err := i.cfg.Client.CoreV1().ServiceAccounts(pod.Namespace).Get(ctx, pod.Spec.ServiceAccountName, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("while fetching service account: %w", err)
	}
	node, err := i.cfg.Client.CoreV1().Nodes().Get(ctx, i.cfg.NodeName, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("while getting node: %w", err)
	}
	key, proof, err := newKey(src.KeyType)
	if err != nil {
		return err
	}
	r, err := i.cfg.Client.CertificatesV1().PodCertificateRequests(pod.Namespace).Create(ctx, &certificatesv1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, GenerateName: "req-",
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}}},
		Spec: certificatesv1.PodCertificateRequestSpec{SignerName: src.SignerName, PodName: pod.Name, PodUID: pod.UID, ServiceAccountName: account.Name,
			ServiceAccountUID: account.UID, NodeName: types.NodeName(node.Name), NodeUID: node.UID, MaxExpirationSeconds: src.MaxExpirationSeconds,
			StubPKCS10Request: proof, UnverifiedUserAnnotations: src.UserAnnotations},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("while creating PodCertificateRequest: %w", err)
	}
	c.request, c.newKey, c.abandonAt = r.Name, key, i.cfg.Clock.Now().Add(abandonAfter)
	return nil
}

// RefreshAt is when Get wants to be called for the Pod because of time alone; false for never.
func (i *Issuer) RefreshAt(pod types.UID) (at time.Time, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, c := range i.creds[pod] {
		if c.failed == nil && !c.refreshAt.IsZero() && (!ok || c.refreshAt.Before(at)) {
			at, ok = c.refreshAt, true
		}
	}
	return at, ok
}

// Forget drops the Pod's keys.
func (i *Issuer) Forget(pod types.UID) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.creds, pod)
}

// newKey makes a private key, in PEM, and what proves that one has it.
func newKey(kind string) (key, proof []byte, err error) {
	var private crypto.Signer
	switch kind {
	case "RSA3072":
		private, err = rsa.GenerateKey(rand.Reader, 3072)
	case "RSA4096":
		private, err = rsa.GenerateKey(rand.Reader, 4096)
	case "ECDSAP256":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ECDSAP384":
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ECDSAP521":
		private, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "ED25519":
		_, private, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = fmt.Errorf("unknown key type %q", kind)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("while generating keypair: %w", err)
	}
	if proof, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, private); err != nil {
		return nil, nil, fmt.Errorf("while generating stub PKCS#10 request: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), proof, nil
}

// clean drops what is in a chain besides its certificates.
func clean(chain []byte) []byte {
	var out []byte
	eachBlock(chain, func(der []byte) {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	})
	return out
}
