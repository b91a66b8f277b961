package storetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/apis/example"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/tools/cache"
	featuregatetesting "k8s.io/component-base/featuregate/testing"
)

// cached is a fixture with the watch cache on top.
type cached struct {
	*cacher.CacheDelegator
	f *fixture
}

type cacheSetup struct {
	clusterScoped bool
	indexed       bool
}

func newCached(t testing.TB, open Open, set cacheSetup) *cached {
	t.Helper()
	f := newFixture(t, open, setup{transformer: plain(), codec: protoCodec()})
	cfg := cacher.Config{
		Storage: f.Interface, Versioner: storage.APIObjectVersioner{}, GroupResource: schema.GroupResource{Resource: "pods"},
		EventsHistoryWindow: cacher.DefaultEventFreshDuration, ResourcePrefix: "/pods/",
		KeyFunc: func(obj runtime.Object) (string, error) { return storage.NamespaceKeyFunc("/pods/", obj) },
		NewFunc: newPod, NewListFunc: newPodList, GetAttrsFunc: podAttrs, Indexers: &cache.Indexers{}, Codec: f.codec,
	}
	if set.clusterScoped {
		cfg.KeyFunc = func(obj runtime.Object) (string, error) { return storage.NoNamespaceKeyFunc("/pods/", obj) }
	}
	if set.indexed {
		cfg.IndexerFuncs = map[string]storage.IndexerFunc{
			"spec.nodeName": func(obj runtime.Object) string { return obj.(*example.Pod).Spec.NodeName },
		}
		cfg.Indexers = &cache.Indexers{
			"f:spec.nodeName":      func(obj any) ([]string, error) { return []string{obj.(*example.Pod).Spec.NodeName}, nil },
			"f:metadata.namespace": func(obj any) ([]string, error) { return []string{obj.(*example.Pod).Namespace}, nil },
		}
	}
	c, err := cacher.NewCacherFromConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	d := cacher.NewCacheDelegator(c, f.Interface)
	t.Cleanup(func() {
		d.Stop()
		c.Stop()
	})
	if err := c.Wait(context.Background()); err != nil {
		t.Fatal(err)
	}
	return &cached{CacheDelegator: d, f: f}
}

// settled waits after each creation until the cache has it.
type settled struct{ *cached }

// Create creates, and waits for the cache.
func (s settled) Create(ctx context.Context, key string, obj, out runtime.Object, ttl uint64) error {
	if err := s.cached.Create(ctx, key, obj, out, ttl); err != nil {
		return err
	}
	return wait.PollUntilContextTimeout(ctx, 5*time.Millisecond, wait.ForeverTestTimeout, true, func(ctx context.Context) (bool, error) {
		got := newPod()
		if err := s.Get(ctx, key, storage.GetOptions{ResourceVersion: "0"}, got); err != nil {
			if storage.IsNotFound(err) {
				return false, nil
			}
			return false, err
		}
		return apiequality.Semantic.DeepEqual(got, out), nil
	})
}

func ignoreKey(context.Context, *testing.T, string) {}
func ignoreCalls(*testing.T, uint64, uint64)        {}

func runCacher(t *testing.T, open Open) {
	suiteWith := func(name string, set cacheSetup, fn func(ctx context.Context, t *testing.T, c *cached)) {
		t.Run(name, func(t *testing.T) { fn(context.Background(), t, newCached(t, open, set)) })
	}
	suite := func(name string, fn func(ctx context.Context, t *testing.T, c *cached)) {
		suiteWith(name, cacheSetup{}, fn)
	}
	suite("Create", func(ctx context.Context, t *testing.T, c *cached) { storagetesting.RunTestCreate(ctx, t, c, ignoreKey) })
	suite("CreateWithTTL", func(ctx context.Context, t *testing.T, c *cached) { storagetesting.RunTestCreateWithTTL(ctx, t, c) })
	suite("CreateWithKeyExist", func(ctx context.Context, t *testing.T, c *cached) {
		storagetesting.RunTestCreateWithKeyExist(ctx, t, c)
	})
	suite("Get", func(ctx context.Context, t *testing.T, c *cached) { storagetesting.RunTestGet(ctx, t, c) })
	suite("UnconditionalDelete", func(ctx context.Context, t *testing.T, c *cached) {
		storagetesting.RunTestUnconditionalDelete(ctx, t, c)
	})
	suite("ConditionalDelete", func(ctx context.Context, t *testing.T, c *cached) { storagetesting.RunTestConditionalDelete(ctx, t, c) })
	suite("DeleteWithSuggestion", func(ctx context.Context, t *testing.T, c *cached) {
		storagetesting.RunTestDeleteWithSuggestion(ctx, t, c)
	})
	suite("DeleteWithConflict", func(ctx context.Context, t *testing.T, c *cached) {
		storagetesting.RunTestDeleteWithConflict(ctx, t, c)
	})
	suite("PreconditionalDeleteWithSuggestion", func(ctx context.Context, t *testing.T, c *cached) {
		storagetesting.RunTestPreconditionalDeleteWithSuggestion(ctx, t, c)
	})
	suite("ListPaging", func(ctx context.Context, t *testing.T, c *cached) { storagetesting.RunTestListPaging(ctx, t, c) })
	for _, snapshot := range []bool{false, true} {
		t.Run(fmt.Sprintf("snapshot=%v", snapshot), func(t *testing.T) {
			featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, features.ListFromCacheSnapshot, snapshot)
			suite("ConsistentList", func(ctx context.Context, t *testing.T, c *cached) {
				storagetesting.RunTestConsistentList(ctx, t, c, increaseRV(c.f.client.Client), true, true, snapshot)
			})
			suite("GetListNonRecursive", func(ctx context.Context, t *testing.T, c *cached) {
				storagetesting.RunTestGetListNonRecursive(ctx, t, increaseRV(c.f.client.Client), c)
			})
		})
	}
	suite("GetListRecursivePrefix", func(ctx context.Context, t *testing.T, c *cached) {
		storagetesting.RunTestGetListRecursivePrefix(ctx, t, c)
	})
	suite("ListContinuation", func(ctx context.Context, t *testing.T, c *cached) {
		storagetesting.RunTestListContinuation(ctx, t, c, ignoreCalls)
	})
	suite("ListPaginationRareObject", func(ctx context.Context, t *testing.T, c *cached) {
		storagetesting.RunTestListPaginationRareObject(ctx, t, c, ignoreCalls)
	})
	suite("ListContinuationWithFilter", func(ctx context.Context, t *testing.T, c *cached) {
		storagetesting.RunTestListContinuationWithFilter(ctx, t, c, ignoreCalls)
	})
	suiteWith("NamespaceScopedList", cacheSetup{indexed: true}, func(ctx context.Context, t *testing.T, c *cached) {
		storagetesting.RunTestNamespaceScopedList(ctx, t, c)
	})
	suite("GuaranteedUpdateWithTTL", func(ctx context.Context, t *testing.T, c *cached) {
		storagetesting.RunTestGuaranteedUpdateWithTTL(ctx, t, c)
	})
	suite("GuaranteedUpdateWithConflict", func(ctx context.Context, t *testing.T, c *cached) {
		storagetesting.RunTestGuaranteedUpdateWithConflict(ctx, t, c)
	})
	suite("GuaranteedUpdateWithSuggestionAndConflict", func(ctx context.Context, t *testing.T, c *cached) {
		storagetesting.RunTestGuaranteedUpdateWithSuggestionAndConflict(ctx, t, c)
	})
	suite("KeySchema", func(ctx context.Context, t *testing.T, c *cached) { storagetesting.RunTestKeySchema(ctx, t, c) })
	suite("Watch", func(ctx context.Context, t *testing.T, c *cached) { storagetesting.RunTestWatch(ctx, t, c) })
	suite("DeleteTriggerWatch", func(ctx context.Context, t *testing.T, c *cached) {
		storagetesting.RunTestDeleteTriggerWatch(ctx, t, c)
	})
	suite("WatchFromNonZero", func(ctx context.Context, t *testing.T, c *cached) { storagetesting.RunTestWatchFromNonZero(ctx, t, c) })
	suite("DelayedWatchDelivery", func(ctx context.Context, t *testing.T, c *cached) {
		storagetesting.RunTestDelayedWatchDelivery(ctx, t, c)
	})
	suite("WatcherTimeout", func(ctx context.Context, t *testing.T, c *cached) { storagetesting.RunTestWatcherTimeout(ctx, t, c) })
	suite("WatchDeleteEventObjectHaveLatestRV", func(ctx context.Context, t *testing.T, c *cached) {
		storagetesting.RunTestWatchDeleteEventObjectHaveLatestRV(ctx, t, c)
	})
	suite("WatchInitializationSignal", func(ctx context.Context, t *testing.T, c *cached) {
		storagetesting.RunTestWatchInitializationSignal(ctx, t, c)
	})
	suiteWith("ClusterScopedWatch", cacheSetup{clusterScoped: true, indexed: true}, func(ctx context.Context, t *testing.T, c *cached) {
		storagetesting.RunTestClusterScopedWatch(ctx, t, c)
	})
	suiteWith("NamespaceScopedWatch", cacheSetup{indexed: true}, func(ctx context.Context, t *testing.T, c *cached) {
		storagetesting.RunTestNamespaceScopedWatch(ctx, t, c)
	})
	suite("WatchDispatchBookmarkEvents", func(ctx context.Context, t *testing.T, c *cached) {
		storagetesting.RunTestWatchDispatchBookmarkEvents(ctx, t, c, true)
	})
	suite("OptionalWatchBookmarksWithCorrectResourceVersion", func(ctx context.Context, t *testing.T, c *cached) {
		storagetesting.RunTestOptionalWatchBookmarksWithCorrectResourceVersion(ctx, t, c)
	})
	suite("SendInitialEventsBackwardCompatibility", func(ctx context.Context, t *testing.T, c *cached) {
		storagetesting.RunSendInitialEventsBackwardCompatibility(ctx, t, c)
	})
	suite("WatchSemantics", func(ctx context.Context, t *testing.T, c *cached) {
		storagetesting.RunWatchSemantics(ctx, t, settled{c})
	})
	suite("WatchSemanticInitialEventsExtended", func(ctx context.Context, t *testing.T, c *cached) {
		storagetesting.RunWatchSemanticInitialEventsExtended(ctx, t, settled{c})
	})
	suite("WatchListMatchSingle", func(ctx context.Context, t *testing.T, c *cached) {
		storagetesting.RunWatchListMatchSingle(ctx, t, settled{c})
	})
}
