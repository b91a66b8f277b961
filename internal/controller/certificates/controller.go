// Package certificates signs what was approved of certificate signing requests for Kubernetes' own signers, and deletes requests that are
// over. Approving is for people, or for controllers of others.
//
// It imports client-go and internal/controller/loop. decide.go is pure. The key of the cluster's authority stays with who signs: Config.Sign.
package certificates

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	certificateslisters "k8s.io/client-go/listers/certificates/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/controller/loop"
)

// Name is the controller's name: of its service account and in the log.
const Name = "certificate-controller"

// Sign makes a certificate for a request whose signature was checked, with these usages only, and returns it in PEM.
type Sign func(request *x509.CertificateRequest, usages []certificatesv1.KeyUsage, life time.Duration) ([]byte, error)

// Config is what the controller needs. All fields but Clock are required.
type Config struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	Sign      Sign
	Log       *slog.Logger
	Clock     clock.WithTicker
}

// Controller is the controller. Make one with New, before the informers are started.
type Controller struct {
	client   kubernetes.Interface
	sign     Sign
	clock    clock.WithTicker
	loop     *loop.Loop[string]
	requests certificateslisters.CertificateSigningRequestLister
	synced   cache.DoneChecker
}

// New returns a Controller that listens to the informers.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Informers == nil || cfg.Sign == nil || cfg.Log == nil {
		return nil, errors.New("certificates: client, informers, signer and log are required")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	requests := cfg.Informers.Certificates().V1().CertificateSigningRequests()
	c := &Controller{client: cfg.Client, sign: cfg.Sign, clock: cfg.Clock, requests: requests.Lister()}
	c.loop = loop.New(Name, cfg.Clock, cfg.Log, c.sync)
	seen := func(r *certificatesv1.CertificateSigningRequest) { c.loop.Add(r.Name) }
	h, err := requests.Informer().AddEventHandler(loop.Handlers(seen, func(_, r *certificatesv1.CertificateSigningRequest) { seen(r) }, nil))
	if err != nil {
		return nil, fmt.Errorf("certificates: watch signing requests: %w", err)
	}
	c.synced = h.HasSyncedChecker()
	return c, nil
}

// Name returns the controller's name.
func (c *Controller) Name() string { return Name }

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx, 1, c.synced) }

func (c *Controller) sync(ctx context.Context, name string) error {
	r, err := c.requests.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	now := c.clock.Now()
	if left := over(r).Sub(now); left > 0 {
		c.loop.AddAfter(name, left)
	} else {
		err := c.client.CertificatesV1().CertificateSigningRequests().Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &r.UID}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("delete signing request %s, which is over: %w", name, err)
		}
		return nil
	}
	if !ready(r) {
		return nil
	}
	r = r.DeepCopy()
	if err := c.issue(r); err != nil {
		r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateFailed, Status: corev1.ConditionTrue, Reason: "SignerValidationFailure", Message: err.Error(),
			LastUpdateTime: metav1.NewTime(now), LastTransitionTime: metav1.NewTime(now),
		})
	}
	if _, err := c.client.CertificatesV1().CertificateSigningRequests().UpdateStatus(ctx, r, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write the certificate of signing request %s: %w", name, err)
	}
	return nil
}

func (c *Controller) issue(r *certificatesv1.CertificateSigningRequest) error {
	csr, err := parse(r.Spec.Request)
	if err != nil {
		return err
	}
	if err := check(r.Spec.SignerName, csr, r.Spec.Usages); err != nil {
		return err
	}
	cert, err := c.sign(csr, r.Spec.Usages, life(r.Spec.ExpirationSeconds))
	if err != nil {
		return err
	}
	r.Status.Certificate = cert
	return nil
}
