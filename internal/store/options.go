package store

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher"
	"k8s.io/apiserver/pkg/storage/etcd3"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
	flowcontrolrequest "k8s.io/apiserver/pkg/util/flowcontrol/request"
	"k8s.io/client-go/tools/cache"
)

// RESTOptionsGetter gives registries their storage: the etcd3 store of this Store's client, with the watch cache on top except for events.
// codec gives the codec that a resource is stored with. The codec is read again when the storage is built, so a getter that wraps this one
// may replace it, as that of custom resources does.
func (s *Store) RESTOptionsGetter(codec func(schema.GroupResource) (runtime.Codec, error)) generic.RESTOptionsGetter {
	return &getter{store: s, codec: codec, counts: flowcontrolrequest.NewStorageObjectCountTracker()}
}

type getter struct {
	store  *Store
	codec  func(schema.GroupResource) (runtime.Codec, error)
	counts flowcontrolrequest.StorageObjectCountTracker
}

// GetRESTOptions implements generic.RESTOptionsGetter.
func (g *getter) GetRESTOptions(gr schema.GroupResource, _ runtime.Object) (generic.RESTOptions, error) {
	codec, err := g.codec(gr)
	if err != nil {
		return generic.RESTOptions{}, err
	}
	cfg := storagebackend.NewDefaultConfig(Prefix, codec)
	cfg.Transformer = identity.NewEncryptCheckTransformer()
	cfg.StorageObjectCountTracker = g.counts
	prefix := gr.Resource
	if gr.Group != "" && !builtin(gr.Group) {
		prefix = gr.Group + "/" + gr.Resource
	}
	return generic.RESTOptions{
		StorageConfig:             cfg.ForResource(gr),
		Decorator:                 g.store.decorate,
		EnableGarbageCollection:   true,
		DeleteCollectionWorkers:   1,
		ResourcePrefix:            prefix,
		CountMetricPollPeriod:     0, // idle cost
		StorageObjectCountTracker: g.counts,
	}, nil
}

// builtin says whether a group's resources are stored under their bare names, as kube-apiserver stores those of its own groups.
func builtin(group string) bool {
	switch group {
	case "apps", "autoscaling", "batch", "policy", "coordination.k8s.io", "discovery.k8s.io", "events.k8s.io", "networking.k8s.io",
		"node.k8s.io", "rbac.authorization.k8s.io", "scheduling.k8s.io", "storage.k8s.io", "certificates.k8s.io",
		"admissionregistration.k8s.io", "resource.k8s.io":
		return true
	}
	return false
}

// decorate builds the storage of one resource.
func (s *Store) decorate(
	cfg *storagebackend.ConfigForResource, resourcePrefix string, keyFunc func(obj runtime.Object) (string, error),
	newFunc, newListFunc func() runtime.Object, attrs storage.AttrFunc, triggers storage.IndexerFuncs, indexers *cache.Indexers,
) (storage.Interface, factory.DestroyFunc, error) {
	raw, err := s.raw(cfg, resourcePrefix, newFunc, newListFunc)
	if err != nil {
		return nil, nil, err
	}
	if cfg.GroupResource.Resource == "events" && (cfg.GroupResource.Group == "" || cfg.GroupResource.Group == "events.k8s.io") {
		return raw, raw.Close, nil
	}
	c, err := cacher.NewCacherFromConfig(cacher.Config{
		Storage: raw, Versioner: storage.APIObjectVersioner{}, GroupResource: cfg.GroupResource,
		EventsHistoryWindow: historyWindow(cfg.EventsHistoryWindow), ResourcePrefix: resourcePrefix, KeyFunc: keyFunc,
		NewFunc: newFunc, NewListFunc: newListFunc, GetAttrsFunc: attrs, IndexerFuncs: triggers, Indexers: indexers, Codec: cfg.Codec,
	})
	if err != nil {
		raw.Close()
		return nil, nil, err
	}
	d := cacher.NewCacheDelegator(c, raw)
	var once sync.Once
	return d, func() {
		once.Do(func() {
			d.Stop()
			c.Stop()
			raw.Close()
		})
	}, nil
}

func historyWindow(d time.Duration) time.Duration { return max(d, cacher.DefaultEventFreshDuration) }

// closable is the etcd3 store with the deletion of undecodable objects.
type closable struct {
	storage.Interface
	close func()
}

func (c closable) Close() { c.close() }

func (s *Store) raw(
	cfg *storagebackend.ConfigForResource, resourcePrefix string, newFunc, newListFunc func() runtime.Object,
) (closable, error) {
	versioner := storage.APIObjectVersioner{}
	var transformer value.Transformer = etcd3.WithCorruptObjErrorHandlingTransformer(cfg.Transformer)
	decoder := etcd3.WithCorruptObjErrorHandlingDecoder(etcd3.NewDefaultDecoder(cfg.Codec, versioner))
	if resourcePrefix != "" && resourcePrefix[0] != '/' {
		resourcePrefix = "/" + resourcePrefix
	}
	st, err := etcd3.New(s.client, s.compactor, cfg.Codec, newFunc, newListFunc, cfg.Prefix, resourcePrefix, cfg.GroupResource,
		transformer, cfg.LeaseManagerConfig, decoder, versioner)
	if err != nil {
		return closable{}, err
	}
	return closable{etcd3.NewStoreWithUnsafeCorruptObjectDeletion(st, cfg.GroupResource), st.Close}, nil
}
