// Package accounttoken fills Secrets of the type kubernetes.io/service-account-token with a token of the service account that they name.
// The token ends with the Secret, and not before. A Secret whose service account is gone is deleted.
//
// It imports client-go and internal/controller/loop. Invariant: only Secrets of that type are watched.
package accounttoken

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/controller/loop"
)

// Name is the controller's name: of its service account and in the log.
const Name = "tokens-controller"

// forever is the longest life that a token may have, 136 years.
const forever = int64(1) << 32

// Config is what the controller needs. All fields but Clock are required.
type Config struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	// RootCA is the cluster's certificate authority in PEM.
	RootCA []byte
	Log    *slog.Logger
	Clock  clock.WithTicker
}

// Controller is the controller. Make one with New, before the informers are started.
type Controller struct {
	client   kubernetes.Interface
	rootCA   []byte
	loop     *loop.Loop[cache.ObjectName]
	accounts corelisters.ServiceAccountLister
	secrets  corelisters.SecretLister
	watch    cache.SharedIndexInformer
	synced   []cache.DoneChecker
}

// New returns a Controller that listens to the informers.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Informers == nil || cfg.Log == nil || len(cfg.RootCA) == 0 {
		return nil, errors.New("account tokens: client, informers, root ca and log are required")
	}
	accounts := cfg.Informers.Core().V1().ServiceAccounts()
	only := func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("type", string(corev1.SecretTypeServiceAccountToken)).String()
	}
	byNamespace := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
	c := &Controller{
		client: cfg.Client, rootCA: cfg.RootCA, accounts: accounts.Lister(),
		watch: coreinformers.NewFilteredSecretInformer(cfg.Client, metav1.NamespaceAll, 0, byNamespace, only),
	}
	c.secrets = corelisters.NewSecretLister(c.watch.GetIndexer())
	c.loop = loop.New(Name, cfg.Clock, cfg.Log, c.sync)
	onSecrets, err := c.watch.AddEventHandler(loop.Handlers(c.add, func(_, s *corev1.Secret) { c.add(s) }, nil))
	if err != nil {
		return nil, fmt.Errorf("account tokens: watch secrets: %w", err)
	}
	onAccounts, err := accounts.Informer().AddEventHandler(loop.Handlers(nil, nil, func(a *corev1.ServiceAccount) {
		list, _ := c.secrets.Secrets(a.Namespace).List(labels.Everything()) // out of memory
		for _, s := range list {
			if s.Annotations[corev1.ServiceAccountNameKey] == a.Name {
				c.add(s)
			}
		}
	}))
	if err != nil {
		return nil, fmt.Errorf("account tokens: watch service accounts: %w", err)
	}
	c.synced = []cache.DoneChecker{onSecrets.HasSyncedChecker(), onAccounts.HasSyncedChecker()}
	return c, nil
}

func (c *Controller) add(s *corev1.Secret) { c.loop.Add(cache.MetaObjectToName(s)) }

// Name returns the controller's name.
func (c *Controller) Name() string { return Name }

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		c.watch.RunWithContext(ctx)
	}()
	err := c.loop.Run(ctx, 1, c.synced...)
	<-watching
	return err
}

func (c *Controller) sync(ctx context.Context, key cache.ObjectName) error {
	secret, err := c.secrets.Secrets(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	account, err := c.account(ctx, secret)
	if err != nil {
		return err
	}
	api := c.client.CoreV1().Secrets(key.Namespace)
	if account == nil {
		err := api.Delete(ctx, key.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &secret.UID}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("delete secret %s, whose service account is gone: %w", key, err)
		}
		return nil
	}
	if complete(secret, account) {
		return nil
	}
	life := forever
	token, err := c.client.CoreV1().ServiceAccounts(key.Namespace).CreateToken(ctx, account.Name, &authenticationv1.TokenRequest{
		ObjectMeta: metav1.ObjectMeta{UID: account.UID},
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &life, BoundObjectRef: &authenticationv1.BoundObjectReference{
			APIVersion: "v1", Kind: "Secret", Name: secret.Name, UID: secret.UID,
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("make a token for secret %s: %w", key, err)
	}
	secret = secret.DeepCopy()
	fill(secret, account, c.rootCA, token.Status.Token)
	if _, err := api.Update(ctx, secret, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("fill secret %s: %w", key, err)
	}
	return nil
}

// account is the service account of a Secret, nil if it is gone. One that the cache does not know may have been made a moment ago.
func (c *Controller) account(ctx context.Context, s *corev1.Secret) (*corev1.ServiceAccount, error) {
	name, uid := s.Annotations[corev1.ServiceAccountNameKey], s.Annotations[corev1.ServiceAccountUIDKey]
	of := func(a *corev1.ServiceAccount) bool { return uid == "" || uid == string(a.UID) }
	a, err := c.accounts.ServiceAccounts(s.Namespace).Get(name)
	if err == nil && of(a) {
		return a, nil
	}
	a, err = c.client.CoreV1().ServiceAccounts(s.Namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err), err == nil && !of(a):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look for service account %s/%s: %w", s.Namespace, name, err)
	}
	return a, nil
}

func complete(s *corev1.Secret, a *corev1.ServiceAccount) bool {
	return len(s.Data[corev1.ServiceAccountTokenKey]) > 0 && len(s.Data[corev1.ServiceAccountRootCAKey]) > 0 &&
		len(s.Data[corev1.ServiceAccountNamespaceKey]) > 0 && s.Annotations[corev1.ServiceAccountUIDKey] == string(a.UID)
}

func fill(s *corev1.Secret, a *corev1.ServiceAccount, rootCA []byte, token string) {
	if s.Data == nil {
		s.Data = map[string][]byte{}
	}
	s.Annotations[corev1.ServiceAccountUIDKey] = string(a.UID)
	s.Data[corev1.ServiceAccountTokenKey] = []byte(token)
	s.Data[corev1.ServiceAccountRootCAKey] = rootCA
	s.Data[corev1.ServiceAccountNamespaceKey] = []byte(s.Namespace)
}
