package ownership

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// indexName is the index that AddIndex makes.
const indexName = "carob.dev/controller"

// AddIndex makes the informer find objects by their controller's uid, and orphans by namespace. It may be called by several
// controllers, before or after the informer is started.
func AddIndex(informer cache.SharedIndexInformer) error {
	if _, ok := informer.GetIndexer().GetIndexers()[indexName]; ok {
		return nil
	}
	err := informer.AddIndexers(cache.Indexers{indexName: func(obj any) ([]string, error) {
		o, ok := obj.(metav1.Object)
		if !ok {
			return nil, fmt.Errorf("index by controller: %T has no metadata", obj)
		}
		if ref := metav1.GetControllerOfNoCopy(o); ref != nil {
			return []string{string(ref.UID)}, nil
		}
		return []string{orphanKey(o.GetNamespace())}, nil
	}})
	if err != nil {
		return fmt.Errorf("add the index by controller: %w", err)
	}
	return nil
}

// ControlledBy lists the objects in the index whose controller has the uid. They are the cache's own: not to be changed.
func ControlledBy[T any](indexer cache.Indexer, uid types.UID) ([]T, error) {
	return byIndex[T](indexer, string(uid))
}

// Orphans lists the objects of a namespace that have no controller. They are the cache's own: not to be changed.
func Orphans[T any](indexer cache.Indexer, namespace string) ([]T, error) {
	return byIndex[T](indexer, orphanKey(namespace))
}

func byIndex[T any](indexer cache.Indexer, key string) ([]T, error) {
	objs, err := indexer.ByIndex(indexName, key)
	if err != nil {
		return nil, err
	}
	out := make([]T, 0, len(objs))
	for _, obj := range objs {
		if t, ok := obj.(T); ok {
			out = append(out, t)
		}
	}
	return out, nil
}

// orphanKey cannot be a uid: uids hold no slash.
func orphanKey(namespace string) string { return "orphan/" + namespace }
