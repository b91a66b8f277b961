// Package serviceaccount keeps a ServiceAccount named default in every namespace that is not going away.
//
// It imports client-go and internal/controller/loop. Invariant: it never changes a ServiceAccount that exists.
package serviceaccount

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/controller/loop"
)

// Name is the controller's name: of its service account and in the log.
const Name = "service-account-controller"

// account is the ServiceAccount that every namespace has.
const account = "default"

// Config is what the controller needs. All fields but Clock are required.
type Config struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	Log       *slog.Logger
	Clock     clock.WithTicker
}

// Controller is the ServiceAccount controller. Make one with New, before the informers are started.
type Controller struct {
	client     kubernetes.Interface
	loop       *loop.Loop[string]
	namespaces corelisters.NamespaceLister
	accounts   corelisters.ServiceAccountLister
	synced     []cache.DoneChecker
}

// New returns a Controller that listens to the informers.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Informers == nil || cfg.Log == nil {
		return nil, errors.New("service account controller: client, informers and log are required")
	}
	namespaces := cfg.Informers.Core().V1().Namespaces()
	accounts := cfg.Informers.Core().V1().ServiceAccounts()
	c := &Controller{client: cfg.Client, namespaces: namespaces.Lister(), accounts: accounts.Lister()}
	c.loop = loop.New(Name, cfg.Clock, cfg.Log, c.sync)
	onNamespaces, err := namespaces.Informer().AddEventHandler(loop.Handlers(
		func(ns *corev1.Namespace) { c.loop.Add(ns.Name) },
		func(_, ns *corev1.Namespace) { c.loop.Add(ns.Name) },
		nil,
	))
	if err != nil {
		return nil, fmt.Errorf("service account controller: watch namespaces: %w", err)
	}
	onAccounts, err := accounts.Informer().AddEventHandler(loop.Handlers(nil, nil, func(sa *corev1.ServiceAccount) {
		if sa.Name == account {
			c.loop.Add(sa.Namespace)
		}
	}))
	if err != nil {
		return nil, fmt.Errorf("service account controller: watch service accounts: %w", err)
	}
	c.synced = []cache.DoneChecker{onNamespaces.HasSyncedChecker(), onAccounts.HasSyncedChecker()}
	return c, nil
}

// Name returns the controller's name.
func (c *Controller) Name() string { return Name }

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx, 2, c.synced...) }

// sync makes the account of one namespace, if it is missing.
func (c *Controller) sync(ctx context.Context, namespace string) error {
	ns, err := c.namespaces.Get(namespace)
	if apierrors.IsNotFound(err) || err == nil && ns.Status.Phase == corev1.NamespaceTerminating || err == nil && ns.DeletionTimestamp != nil {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := c.accounts.ServiceAccounts(namespace).Get(account); !apierrors.IsNotFound(err) {
		return err
	}
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: account}}
	_, err = c.client.CoreV1().ServiceAccounts(namespace).Create(ctx, sa, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create the default service account of namespace %s: %w", namespace, err)
	}
	return nil
}
