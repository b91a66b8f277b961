// Package rootca keeps a ConfigMap named kube-root-ca.crt in every namespace: the certificate authority by which Pods know the API
// server.
//
// It imports client-go and internal/controller/loop. Invariants: the ConfigMap's data is exactly the authority; only ConfigMaps of
// that name are watched.
package rootca

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/controller/loop"
)

// Name is the controller's name: of its service account and in the log.
const Name = "root-ca-cert-publisher"

const (
	configMap = "kube-root-ca.crt"
	dataKey   = "ca.crt"
	// annotation says what the ConfigMap is for; description is Kubernetes' own text.
	annotation  = "kubernetes.io/description"
	description = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. " +
		"No other usage is guaranteed across distributions of Kubernetes clusters."
)

// Config is what the controller needs. All fields but Clock are required.
type Config struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	// RootCA is the authority's certificate in PEM.
	RootCA []byte
	Log    *slog.Logger
	Clock  clock.WithTicker
}

// Controller publishes the authority. Make one with New, before the informers are started.
type Controller struct {
	client     kubernetes.Interface
	rootCA     string
	loop       *loop.Loop[string]
	namespaces corelisters.NamespaceLister
	maps       corelisters.ConfigMapLister
	// watch is the controller's own informer: of one name in all namespaces.
	watch  cache.SharedIndexInformer
	synced []cache.DoneChecker
}

// New returns a Controller that listens to the informers.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Informers == nil || cfg.Log == nil || len(cfg.RootCA) == 0 {
		return nil, errors.New("root ca publisher: client, informers, root ca and log are required")
	}
	namespaces := cfg.Informers.Core().V1().Namespaces()
	only := func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("metadata.name", configMap).String()
	}
	byNamespace := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
	c := &Controller{
		client: cfg.Client, rootCA: string(cfg.RootCA), namespaces: namespaces.Lister(),
		watch: coreinformers.NewFilteredConfigMapInformer(cfg.Client, metav1.NamespaceAll, 0, byNamespace, only),
	}
	c.maps = corelisters.NewConfigMapLister(c.watch.GetIndexer())
	c.loop = loop.New(Name, cfg.Clock, cfg.Log, c.sync)
	onNamespaces, err := namespaces.Informer().AddEventHandler(loop.Handlers(
		func(ns *corev1.Namespace) { c.loop.Add(ns.Name) },
		func(_, ns *corev1.Namespace) { c.loop.Add(ns.Name) },
		nil,
	))
	if err != nil {
		return nil, fmt.Errorf("root ca publisher: watch namespaces: %w", err)
	}
	onMaps, err := c.watch.AddEventHandler(loop.Handlers(
		nil,
		func(_, cm *corev1.ConfigMap) { c.loop.Add(cm.Namespace) },
		func(cm *corev1.ConfigMap) { c.loop.Add(cm.Namespace) },
	))
	if err != nil {
		return nil, fmt.Errorf("root ca publisher: watch config maps: %w", err)
	}
	c.synced = []cache.DoneChecker{onNamespaces.HasSyncedChecker(), onMaps.HasSyncedChecker()}
	return c, nil
}

// Name returns the controller's name.
func (c *Controller) Name() string { return Name }

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		c.watch.RunWithContext(ctx)
	}()
	err := c.loop.Run(ctx, 2, c.synced...)
	<-watching
	return err
}

// sync makes or mends the ConfigMap of one namespace.
func (c *Controller) sync(ctx context.Context, namespace string) error {
	ns, err := c.namespaces.Get(namespace)
	if apierrors.IsNotFound(err) || err == nil && (ns.Status.Phase == corev1.NamespaceTerminating || ns.DeletionTimestamp != nil) {
		return nil
	}
	if err != nil {
		return err
	}
	have, err := c.maps.ConfigMaps(namespace).Get(configMap)
	switch {
	case apierrors.IsNotFound(err):
		cm := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: configMap, Annotations: map[string]string{annotation: description}},
			Data:       map[string]string{dataKey: c.rootCA},
		}
		_, err = c.client.CoreV1().ConfigMaps(namespace).Create(ctx, cm, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("publish the root ca in namespace %s: %w", namespace, err)
		}
		return nil
	case err != nil:
		return err
	}
	want := map[string]string{dataKey: c.rootCA}
	if maps.Equal(have.Data, want) && have.Annotations[annotation] != "" {
		return nil
	}
	cm := have.DeepCopy()
	cm.Data = want
	metav1.SetMetaDataAnnotation(&cm.ObjectMeta, annotation, description)
	if _, err := c.client.CoreV1().ConfigMaps(namespace).Update(ctx, cm, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("mend the root ca of namespace %s: %w", namespace, err)
	}
	return nil
}
