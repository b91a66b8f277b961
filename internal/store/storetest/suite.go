// Package storetest runs Kubernetes' own storage test suites (k8s.io/apiserver/pkg/storage/testing) on a store, through the etcd3 storage
// alone and through the watch cache. The embedded store and real etcd run the same.
package storetest

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"carob.dev/carob/internal/store"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/etcd3"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/utils/clock"
)

// Open opens an empty store for one test, which closes it at its end.
type Open func(testing.TB) *store.Store

// transformPrefix is what stored values begin with in the etcd3 suite.
const transformPrefix = "test!"

func scheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	utilruntime.Must(example.AddToScheme(scheme))
	utilruntime.Must(examplev1.AddToScheme(scheme))
	return scheme
}

// jsonCodec is what the etcd3 suites expect: one of them stores white space before an object.
func jsonCodec() runtime.Codec {
	return serializer.NewCodecFactory(scheme()).LegacyCodec(examplev1.SchemeGroupVersion)
}

func protoCodec() runtime.Codec {
	scheme := scheme()
	pb := protobuf.NewSerializer(scheme, scheme)
	return serializer.NewCodecFactory(scheme).CodecForVersions(pb, pb, schema.GroupVersions{examplev1.SchemeGroupVersion}, nil)
}

func newPod() runtime.Object     { return &example.Pod{} }
func newPodList() runtime.Object { return &example.PodList{} }

// swap is a transformer that a test can exchange while the storage uses it.
type swap struct {
	now atomic.Pointer[value.Transformer]
}

func newSwap(t value.Transformer) *swap {
	s := &swap{}
	s.now.Store(&t)
	return s
}

func (s *swap) TransformFromStorage(ctx context.Context, data []byte, dataCtx value.Context) ([]byte, bool, error) {
	return (*s.now.Load()).TransformFromStorage(ctx, data, dataCtx)
}

func (s *swap) TransformToStorage(ctx context.Context, data []byte, dataCtx value.Context) ([]byte, error) {
	return (*s.now.Load()).TransformToStorage(ctx, data, dataCtx)
}

func (s *swap) exchange(t value.Transformer) func() {
	old := s.now.Swap(&t)
	return func() { s.now.Store(old) }
}

// fixture is an etcd3 storage of example Pods.
type fixture struct {
	storage.Interface
	client   *kubernetes.Client
	codec    runtime.Codec
	swap     *swap
	kv       *storagetesting.KVRecorder
	recorder *storagetesting.KubernetesRecorder
}

// UpdatePrefixTransformer lets a suite change how values are stored.
func (f *fixture) UpdatePrefixTransformer(modify storagetesting.PrefixTransformerModifier) func() {
	original := (*f.swap.now.Load()).(*storagetesting.PrefixTransformer)
	changed := *original
	return f.swap.exchange(modify(&changed))
}

// UpdateTransformer lets a suite change how values are stored.
func (f *fixture) UpdateTransformer(modify storagetesting.TransformerModifier) func() {
	return f.swap.exchange(modify(*f.swap.now.Load()))
}

type setup struct {
	transformer value.Transformer
	codec       runtime.Codec
}

func newFixture(t testing.TB, open Open, set setup) *fixture {
	t.Helper()
	if set.codec == nil {
		set.codec = jsonCodec()
	}
	if set.transformer == nil {
		set.transformer = storagetesting.NewPrefixTransformer([]byte(transformPrefix), false)
	}
	f := &fixture{codec: set.codec, swap: newSwap(set.transformer)}
	f.client = open(t).Client() // the store is this test's own
	f.recorder = storagetesting.NewKubernetesRecorder(f.client.Kubernetes)
	f.kv = storagetesting.NewKVRecorder(f.client.KV, f.recorder)
	f.client.KV, f.client.Kubernetes = f.kv, f.recorder
	compactor := etcd3.NewCompactor(f.client.Client, 0, clock.RealClock{}, nil)
	t.Cleanup(compactor.Stop)
	versioner := storage.APIObjectVersioner{}
	st, err := etcd3.New(f.client, compactor, f.codec, newPod, newPodList, "", "/pods/", schema.GroupResource{Resource: "pods"},
		f.swap, etcd3.NewDefaultLeaseManagerConfig(), etcd3.NewDefaultDecoder(f.codec, versioner), versioner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	f.Interface = st
	return f
}

// prefixTransformer is the transformer underneath, which counts reads.
func (f *fixture) prefixTransformer() *storagetesting.PrefixTransformer {
	return (*f.swap.now.Load()).(*storagetesting.PrefixTransformer)
}

func (f *fixture) stored(ctx context.Context, t *testing.T, key string) {
	t.Helper()
	resp, err := f.client.KV.Get(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		t.Fatalf("nothing at %s", key)
	}
	obj, err := runtime.Decode(f.codec, resp.Kvs[0].Value[len(transformPrefix):])
	if err != nil {
		t.Fatal(err)
	}
	if pod := obj.(*example.Pod); pod.ResourceVersion != "" {
		t.Errorf("stored with resource version %q", pod.ResourceVersion)
	}
}

func (f *fixture) compact(ctx context.Context, t *testing.T, resourceVersion string) {
	t.Helper()
	rv, err := storage.APIObjectVersioner{}.ParseResourceVersion(resourceVersion)
	if err != nil {
		t.Fatal(err)
	}
	version, _, _, err := etcd3.Compact(ctx, f.client.Client, 0, int64(rv))
	if err != nil {
		_, _, _, err = etcd3.Compact(ctx, f.client.Client, version, int64(rv))
	}
	if err != nil {
		t.Fatal(err)
	}
	if !utilfeature.DefaultFeatureGate.Enabled(features.ListFromCacheSnapshot) {
		return
	}
	for f.CompactRevision() != int64(rv) {
		select {
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func increaseRV(client *clientv3.Client) storagetesting.IncreaseRVFunc {
	return func(ctx context.Context, t *testing.T) int64 {
		resp, err := client.KV.Put(ctx, "increaseRV", "ok")
		if err != nil {
			t.Fatal(err)
		}
		return resp.Header.Revision
	}
}

func podAttrs(obj runtime.Object) (labels.Set, fields.Set, error) {
	pod, ok := obj.(*example.Pod)
	if !ok {
		return nil, nil, fmt.Errorf("%T is no Pod", obj)
	}
	return pod.Labels, fields.Set{
		"spec.nodeName": pod.Spec.NodeName, "spec.restartPolicy": string(pod.Spec.RestartPolicy), "status.phase": string(pod.Status.Phase),
		"metadata.name": pod.Name, "metadata.namespace": pod.Namespace,
	}, nil
}

func plain() value.Transformer { return identity.NewEncryptCheckTransformer() }
