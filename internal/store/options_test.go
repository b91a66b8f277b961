package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"
)

func attrs(obj runtime.Object) (labels.Set, fields.Set, error) {
	m := obj.(metav1.Object)
	return m.GetLabels(), fields.Set{"metadata.name": m.GetName(), "metadata.namespace": m.GetNamespace()}, nil
}

// v1Codec has no internal version between the store and the program.
func v1Codec() runtime.Codec {
	pb := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	return serializer.NewCodecFactory(scheme.Scheme).CodecForVersions(pb, pb, corev1.SchemeGroupVersion, corev1.SchemeGroupVersion)
}

// registry builds the storage of one kind as a registry does.
func registry(t *testing.T, resource string, newFunc, newList func() runtime.Object) storage.Interface {
	t.Helper()
	codec := v1Codec()
	getter := openStore(t).RESTOptionsGetter(func(schema.GroupResource) (runtime.Codec, error) { return codec, nil })
	opts, err := getter.GetRESTOptions(schema.GroupResource{Resource: resource}, newFunc())
	if err != nil {
		t.Fatal(err)
	}
	prefix := "/" + opts.ResourcePrefix
	st, destroy, err := opts.Decorator(opts.StorageConfig, prefix,
		func(obj runtime.Object) (string, error) { return storage.NamespaceKeyFunc(prefix+"/", obj) },
		newFunc, newList, attrs, nil, &cache.Indexers{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(destroy)
	for st.ReadinessCheck() != nil {
		time.Sleep(time.Millisecond)
	}
	return st
}

func TestRegistryStorage(t *testing.T) {
	ctx := context.Background()
	for _, tt := range []struct {
		resource string
		make     func(name string) runtime.Object
		newFunc  func() runtime.Object
		newList  func() runtime.Object
	}{
		{
			"configmaps", func(name string) runtime.Object {
				return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}
			},
			func() runtime.Object { return &corev1.ConfigMap{} }, func() runtime.Object { return &corev1.ConfigMapList{} },
		},
		{ // not cached
			"events", func(name string) runtime.Object {
				return &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}
			},
			func() runtime.Object { return &corev1.Event{} }, func() runtime.Object { return &corev1.EventList{} },
		},
	} {
		t.Run(tt.resource, func(t *testing.T) {
			st := registry(t, tt.resource, tt.newFunc, tt.newList)
			w, err := st.Watch(ctx, "/"+tt.resource+"/", storage.ListOptions{ResourceVersion: "0", Recursive: true, Predicate: storage.Everything})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			out := tt.newFunc()
			if err := st.Create(ctx, "/"+tt.resource+"/default/a", tt.make("a"), out, 3600); err != nil {
				t.Fatal(err)
			}
			select {
			case e := <-w.ResultChan():
				if e.Type != watch.Added || e.Object.(metav1.Object).GetName() != "a" {
					t.Errorf("%v %v", e.Type, e.Object)
				}
			case <-time.After(10 * time.Second):
				t.Error("no event")
			}
			if rv := out.(metav1.Object).GetResourceVersion(); rv == "" || rv == "0" {
				t.Errorf("resource version %q", rv)
			}
		})
	}
}

// TestConsistentListIsQuick lists right after writes to other kinds moved the revision: the cache must not wait for its next turn (100 ms) to
// ask for progress.
func TestConsistentListIsQuick(t *testing.T) {
	ctx := context.Background()
	s := openStore(t)
	codec := v1Codec()
	getter := s.RESTOptionsGetter(func(schema.GroupResource) (runtime.Codec, error) { return codec, nil })
	opts, err := getter.GetRESTOptions(schema.GroupResource{Resource: "configmaps"}, &corev1.ConfigMap{})
	if err != nil {
		t.Fatal(err)
	}
	st, destroy, err := opts.Decorator(opts.StorageConfig, "/configmaps",
		func(obj runtime.Object) (string, error) { return storage.NamespaceKeyFunc("/configmaps/", obj) },
		func() runtime.Object { return &corev1.ConfigMap{} }, func() runtime.Object { return &corev1.ConfigMapList{} }, attrs, nil, &cache.Indexers{})
	if err != nil {
		t.Fatal(err)
	}
	defer destroy()
	for st.ReadinessCheck() != nil {
		time.Sleep(time.Millisecond)
	}
	const rounds = 20
	start := time.Now()
	for i := range rounds {
		if _, err := s.Client().KV.Put(ctx, fmt.Sprint("/registry/secrets/", i), "x"); err != nil {
			t.Fatal(err)
		}
		if err := st.GetList(ctx, "/configmaps/", storage.ListOptions{Recursive: true, Predicate: storage.Everything}, &corev1.ConfigMapList{}); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(start) / rounds; took > 50*time.Millisecond {
		t.Errorf("%v a list", took)
	} else {
		t.Logf("%v a list", took)
	}
}
