package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/features"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	featuregatetesting "k8s.io/component-base/featuregate/testing"
)

// failing is a codec that can be told to fail.
type failing struct {
	runtime.Codec
	fail atomic.Bool
}

func (f *failing) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	if f.fail.Load() {
		return nil, nil, errors.New("told to fail")
	}
	return f.Codec.Decode(data, defaults, into)
}

// Run runs all suites. The store sends periodic progress to watchers at least every few seconds.
func Run(t *testing.T, open Open) {
	t.Run("etcd3", func(t *testing.T) { runEtcd3(t, open) })
	t.Run("etcd3/watch", func(t *testing.T) { runEtcd3Watch(t, open) })
	t.Run("cacher", func(t *testing.T) { runCacher(t, open) })
}

func runEtcd3(t *testing.T, open Open) {
	suite := func(name string, fn func(ctx context.Context, t *testing.T, f *fixture)) {
		t.Run(name, func(t *testing.T) { fn(context.Background(), t, newFixture(t, open, setup{})) })
	}
	suite("Create", func(ctx context.Context, t *testing.T, f *fixture) { storagetesting.RunTestCreate(ctx, t, f, f.stored) })
	suite("CreateWithTTL", func(ctx context.Context, t *testing.T, f *fixture) { storagetesting.RunTestCreateWithTTL(ctx, t, f) })
	suite("CreateWithKeyExist", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestCreateWithKeyExist(ctx, t, f)
	})
	suite("Get", func(ctx context.Context, t *testing.T, f *fixture) { storagetesting.RunTestGet(ctx, t, f) })
	suite("UnconditionalDelete", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestUnconditionalDelete(ctx, t, f)
	})
	suite("ConditionalDelete", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestConditionalDelete(ctx, t, f)
	})
	suite("DeleteWithSuggestion", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestDeleteWithSuggestion(ctx, t, f)
	})
	suite("DeleteWithSuggestionAndConflict", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestDeleteWithSuggestionAndConflict(ctx, t, f)
	})
	suite("DeleteWithSuggestionOfDeletedObject", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestDeleteWithSuggestionOfDeletedObject(ctx, t, f)
	})
	suite("ValidateDeletionWithSuggestion", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestValidateDeletionWithSuggestion(ctx, t, f)
	})
	suite("ValidateDeletionWithOnlySuggestionValid", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestValidateDeletionWithOnlySuggestionValid(ctx, t, f)
	})
	suite("DeleteWithConflict", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestDeleteWithConflict(ctx, t, f)
	})
	suite("PreconditionalDeleteWithSuggestion", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestPreconditionalDeleteWithSuggestion(ctx, t, f)
	})
	suite("PreconditionalDeleteWithOnlySuggestionPass", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestPreconditionalDeleteWithOnlySuggestionPass(ctx, t, f)
	})
	for _, want := range []string{"missing", "expected"} {
		t.Run("DeleteWithDecodeError/"+want, func(t *testing.T) {
			featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, features.AllowUnsafeMalformedObjectDeletion, true)
			c := &failing{Codec: jsonCodec()}
			f := newFixture(t, open, setup{codec: c})
			run := storagetesting.RunTestDeleteExpectedTransformOrDecodeError
			if want == "missing" {
				run = storagetesting.RunTestDeleteWithConflictAndMissingExpectedTransformOrDecodeError
			}
			run(context.Background(), t, f, c.fail.Store)
		})
	}
	suite("ListPaging", func(ctx context.Context, t *testing.T, f *fixture) { storagetesting.RunTestListPaging(ctx, t, f) })
	suite("GetListNonRecursive", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestGetListNonRecursive(ctx, t, increaseRV(f.client.Client), f)
	})
	suite("GetListRecursivePrefix", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestGetListRecursivePrefix(ctx, t, f)
	})
	suite("KeySchema", func(ctx context.Context, t *testing.T, f *fixture) { storagetesting.RunTestKeySchema(ctx, t, f) })
	suite("GuaranteedUpdate", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestGuaranteedUpdate(ctx, t, f, f.stored)
	})
	suite("GuaranteedUpdateWithTTL", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestGuaranteedUpdateWithTTL(ctx, t, f)
	})
	suite("GuaranteedUpdateChecksStoredData", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestGuaranteedUpdateChecksStoredData(ctx, t, f)
	})
	suite("GuaranteedUpdateWithConflict", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestGuaranteedUpdateWithConflict(ctx, t, f)
	})
	suite("GuaranteedUpdateWithSuggestionAndConflict", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestGuaranteedUpdateWithSuggestionAndConflict(ctx, t, f)
	})
	suite("TransformationFailure", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestTransformationFailure(ctx, t, f)
	})
	for _, stream := range []bool{false, true} {
		streamed := func(name string, fn func(ctx context.Context, t *testing.T, f *fixture)) {
			t.Run(fmt.Sprintf("%s/stream=%v", name, stream), func(t *testing.T) {
				featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, features.EtcdRangeStream, stream)
				fn(context.Background(), t, newFixture(t, open, setup{}))
			})
		}
		streamed("List", func(ctx context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestList(ctx, t, f, f.compact, false, f.recorder)
			if streams := f.kv.GetStreamReadsAndReset(); (streams > 0) != stream {
				t.Errorf("%d streamed reads", streams)
			}
		})
		streamed("ConsistentList", func(ctx context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestConsistentList(ctx, t, f, increaseRV(f.client.Client), false, true, false)
		})
	}
	suite("CompactRevision", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestCompactRevision(ctx, t, f, increaseRV(f.client.Client), f.compact)
	})
	suite("ListContinuation", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestListContinuation(ctx, t, f, f.calls)
	})
	suite("ListContinuationWithFilter", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestListContinuationWithFilter(ctx, t, f, f.calls)
	})
	t.Run("ListPaginationRareObject", func(t *testing.T) {
		featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, features.ListFromCacheSnapshot, false)
		f := newFixture(t, open, setup{})
		storagetesting.RunTestListPaginationRareObject(context.Background(), t, f, f.calls)
	})
	suite("NamespaceScopedList", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestNamespaceScopedList(ctx, t, f)
	})
	suite("ListInconsistentContinuation", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestListInconsistentContinuation(ctx, t, f, f.compact)
	})
	suite("ListResourceVersionMatch", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestListResourceVersionMatch(ctx, t, f)
	})
	suite("Stats", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestStats(ctx, t, f, f.codec, f.swap, false)
	})
}

// calls checks how many reads a list cost: pages double as long as they come back unfilled.
func (f *fixture) calls(t *testing.T, pageSize, processed uint64) {
	if reads := f.prefixTransformer().GetReadsAndReset(); reads != processed {
		t.Errorf("%d values read, want %d", reads, processed)
	}
	want := uint64(1)
	if pageSize != 0 {
		for sum, limit := uint64(1), pageSize; sum < processed; want++ {
			limit = min(limit*2, 10000)
			sum += limit
		}
	}
	if got := f.kv.GetReadsAndReset() + f.kv.GetStreamReadsAndReset(); got != want {
		t.Errorf("%d reads of the store, want %d", got, want)
	}
}

func runEtcd3Watch(t *testing.T, open Open) {
	suite := func(name string, fn func(ctx context.Context, t *testing.T, f *fixture)) {
		t.Run(name, func(t *testing.T) { fn(context.Background(), t, newFixture(t, open, setup{})) })
	}
	suite("Watch", func(ctx context.Context, t *testing.T, f *fixture) { storagetesting.RunTestWatch(ctx, t, f) })
	suite("ClusterScopedWatch", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestClusterScopedWatch(ctx, t, f)
	})
	suite("NamespaceScopedWatch", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestNamespaceScopedWatch(ctx, t, f)
	})
	suite("DeleteTriggerWatch", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestDeleteTriggerWatch(ctx, t, f)
	})
	suite("WatchFromZero", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestWatchFromZero(ctx, t, f, f.compact)
	})
	suite("WatchFromNonZero", func(ctx context.Context, t *testing.T, f *fixture) { storagetesting.RunTestWatchFromNonZero(ctx, t, f) })
	suite("DelayedWatchDelivery", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestDelayedWatchDelivery(ctx, t, f)
	})
	suite("WatchError", func(ctx context.Context, t *testing.T, f *fixture) { storagetesting.RunTestWatchError(ctx, t, f) })
	suite("WatchContextCancel", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestWatchContextCancel(ctx, t, f)
	})
	suite("WatcherTimeout", func(ctx context.Context, t *testing.T, f *fixture) { storagetesting.RunTestWatcherTimeout(ctx, t, f) })
	suite("WatchDeleteEventObjectHaveLatestRV", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestWatchDeleteEventObjectHaveLatestRV(ctx, t, f)
	})
	suite("WatchInitializationSignal", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestWatchInitializationSignal(ctx, t, f)
	})
	suite("ProgressNotify", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunOptionalTestProgressNotify(ctx, t, f, increaseRV(f.client.Client))
	})
	suite("WatchDispatchBookmarkEvents", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestWatchDispatchBookmarkEvents(ctx, t, f, false)
	})
	suite("SendInitialEventsBackwardCompatibility", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunSendInitialEventsBackwardCompatibility(ctx, t, f)
	})
	for _, stream := range []bool{false, true} {
		t.Run(fmt.Sprintf("stream=%v", stream), func(t *testing.T) {
			featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, features.EtcdRangeStream, stream)
			suite("WatchSemantics", func(ctx context.Context, t *testing.T, f *fixture) { storagetesting.RunWatchSemantics(ctx, t, f) })
			suite("WatchSemanticInitialEventsExtended", func(ctx context.Context, t *testing.T, f *fixture) {
				storagetesting.RunWatchSemanticInitialEventsExtended(ctx, t, f)
			})
			suite("WatchListMatchSingle", func(ctx context.Context, t *testing.T, f *fixture) { storagetesting.RunWatchListMatchSingle(ctx, t, f) })
		})
	}
	suite("WatchErrorIsBlockingFurtherEvents", func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunWatchErrorIsBlockingFurtherEvents(ctx, t, f)
	})
}
