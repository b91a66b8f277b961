package apiserver

import (
	"context"
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/registry/generic"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/api"
	"carob.dev/carob/internal/apiserver/registry"
)

// stores are the registries of all kinds that are stored.
type stores map[schema.GroupResource]*registry.Store

// indexed are the fields that one watcher per value selects on: each agent its own Pods, each reader of one object that object.
var indexed = map[schema.GroupResource]string{
	{Resource: "pods"}:       "spec.nodeName",
	{Resource: "nodes"}:      "metadata.name",
	{Resource: "secrets"}:    "metadata.name",
	{Resource: "configmaps"}: "metadata.name",
}

func newStores(kinds []*api.Kind, scheme *runtime.Scheme, options generic.RESTOptionsGetter) (stores, error) {
	out := stores{}
	for _, k := range kinds {
		if !k.StoredAs.Empty() {
			continue
		}
		gr := schema.GroupResource{Group: k.Group, Resource: k.Resource}
		if len(k.NoVerbs) > 0 {
			out.destroy()
			return nil, fmt.Errorf("%s: leaving out verbs is not supported yet: %v", gr, k.NoVerbs)
		}
		s, err := registry.New(k, scheme, options, indexed[gr])
		if err != nil {
			out.destroy()
			return nil, err
		}
		out[gr] = s
	}
	return out, nil
}

func (s stores) destroy() {
	for _, st := range s {
		st.Destroy()
	}
}

func (s stores) core(resource string) *registry.Store {
	return s[schema.GroupResource{Resource: resource}]
}

// storageCodec gives the form that a group's objects are stored in: protobuf, of the served version.
func storageCodec(scheme *runtime.Scheme, codecs serializer.CodecFactory) func(schema.GroupResource) (runtime.Codec, error) {
	return func(gr schema.GroupResource) (runtime.Codec, error) {
		versions := scheme.PrioritizedVersionsForGroup(gr.Group)
		if len(versions) == 0 {
			return nil, fmt.Errorf("the group of %s has no version", gr)
		}
		codec, _, err := serverstorage.NewStorageCodec(serverstorage.StorageCodecConfig{
			StorageMediaType:  runtime.ContentTypeProtobuf,
			StorageSerializer: codecs,
			StorageVersion:    versions[0],
			MemoryVersion:     schema.GroupVersion{Group: gr.Group, Version: runtime.APIVersionInternal},
		})
		return codec, err
	}
}

// lookup reads single objects for those who decide about requests.
type lookup struct{ stores stores }

// Namespace implements admission.Lookup.
func (l lookup) Namespace(ctx context.Context, name string, fresh bool) (*corev1.Namespace, error) {
	if fresh {
		return registry.Get[*corev1.Namespace](ctx, l.stores.core("namespaces"), "", name)
	}
	return registry.GetCached[*corev1.Namespace](ctx, l.stores.core("namespaces"), "", name)
}

// ServiceAccount implements admission.Lookup and auth.Objects.
func (l lookup) ServiceAccount(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	return registry.GetCached[*corev1.ServiceAccount](ctx, l.stores.core("serviceaccounts"), namespace, name)
}

// RuntimeClass implements admission.Lookup.
func (l lookup) RuntimeClass(ctx context.Context, name string) (*nodev1.RuntimeClass, error) {
	return registry.GetCached[*nodev1.RuntimeClass](ctx, l.stores[schema.GroupResource{Group: nodev1.GroupName, Resource: "runtimeclasses"}], "", name)
}

// StorageClasses implements admission.Lookup.
func (l lookup) StorageClasses(ctx context.Context) ([]*storagev1.StorageClass, error) {
	store := l.stores[schema.GroupResource{Group: storagev1.GroupName, Resource: "storageclasses"}]
	list, err := registry.ListCached[*storagev1.StorageClassList](ctx, store, "", "", "")
	if err != nil {
		return nil, err
	}
	out := make([]*storagev1.StorageClass, len(list.Items))
	for i := range list.Items {
		out[i] = &list.Items[i]
	}
	return out, nil
}

// Pod implements auth.Objects.
func (l lookup) Pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	return registry.GetCached[*corev1.Pod](ctx, l.stores.core("pods"), namespace, name)
}

// PodsOn implements node.Objects.
func (l lookup) PodsOn(ctx context.Context, node, namespace string) ([]corev1.Pod, error) {
	list, err := registry.ListCached[*corev1.PodList](ctx, l.stores.core("pods"), namespace, "spec.nodeName", node)
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// PersistentVolume implements node.Objects.
func (l lookup) PersistentVolume(ctx context.Context, name string) (*corev1.PersistentVolume, error) {
	return find[*corev1.PersistentVolume](ctx, l.stores, corev1.Resource("persistentvolumes"), "", name)
}

// PersistentVolumeClaim implements node.Objects.
func (l lookup) PersistentVolumeClaim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error) {
	return find[*corev1.PersistentVolumeClaim](ctx, l.stores, corev1.Resource("persistentvolumeclaims"), namespace, name)
}

// CSIDriver implements admission.Lookup.
func (l lookup) CSIDriver(ctx context.Context, name string) (*storagev1.CSIDriver, error) {
	return find[*storagev1.CSIDriver](ctx, l.stores, schema.GroupResource{Group: storagev1.GroupName, Resource: "csidrivers"}, "", name)
}

// NodeOf implements node.Objects.
func (l lookup) NodeOf(ctx context.Context, group, resource, namespace, name string) (string, error) {
	obj, err := find[runtime.Object](ctx, l.stores, schema.GroupResource{Group: group, Resource: resource}, namespace, name)
	if err != nil {
		return "", err
	}
	switch o := obj.(type) {
	case *storagev1.VolumeAttachment:
		return o.Spec.NodeName, nil
	case *resourcev1.ResourceSlice:
		return ptr.Deref(o.Spec.NodeName, ""), nil
	case *certificatesv1.PodCertificateRequest:
		return string(o.Spec.NodeName), nil
	}
	return "", nil
}

// find reads an object of a kind that may not be served.
func find[T runtime.Object](ctx context.Context, all stores, gr schema.GroupResource, namespace, name string) (T, error) {
	s, ok := all[gr]
	if !ok {
		var none T
		return none, apierrors.NewNotFound(gr, name)
	}
	return registry.GetCached[T](ctx, s, namespace, name)
}

// Secret implements auth.Objects.
func (l lookup) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return registry.GetCached[*corev1.Secret](ctx, l.stores.core("secrets"), namespace, name)
}

// Node implements auth.Objects.
func (l lookup) Node(ctx context.Context, name string) (*corev1.Node, error) {
	return registry.GetCached[*corev1.Node](ctx, l.stores.core("nodes"), "", name)
}
