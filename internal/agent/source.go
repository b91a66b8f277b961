package agent

import (
	"context"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Sources are the objects that Pods of this node refer to, one by one: what a node may read under the Node authorizer.
type Sources interface {
	GetConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	GetSecret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	GetPersistentVolumeClaim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error)
	GetPersistentVolume(ctx context.Context, name string) (*corev1.PersistentVolume, error)
}

// followed are the ConfigMaps and Secrets of this node's Pods, each watched while some Pod refers to it. Until its watch is there an object
// is read from the API directly.
type followed struct {
	ctx    context.Context
	client kubernetes.Interface
	notify func(uid types.UID)
	wg     sync.WaitGroup

	mu      sync.Mutex // guards entries and what is in them
	entries map[objectKey]*followedObject
}

type objectKey struct{ kind, namespace, name string }

type followedObject struct {
	pods  map[types.UID]bool
	store cache.Store
	ready func() bool
	stop  context.CancelFunc
	// seen is the version that was last handed out; "-" for none.
	seen string
}

const (
	kindConfigMap = "ConfigMap"
	kindSecret    = "Secret"
	absentVersion = "-"
)

// newFollowed returns an empty set whose watches end with ctx. notify is called, from any goroutine, for each Pod whose object has changed.
func newFollowed(ctx context.Context, client kubernetes.Interface, notify func(types.UID)) *followed {
	return &followed{ctx: ctx, client: client, notify: notify, entries: map[objectKey]*followedObject{}}
}

// Follow has the Pod told of changes of the objects it refers to, until Unfollow.
func (f *followed) Follow(pod *corev1.Pod) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key := range references(pod) {
		e := f.entries[key]
		if e == nil {
			e = f.start(key)
			f.entries[key] = e
		}
		e.pods[pod.UID] = true
	}
}

// Unfollow ends that, and the watches of objects that no other Pod refers to.
func (f *followed) Unfollow(uid types.UID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, e := range f.entries {
		delete(e.pods, uid)
		if len(e.pods) == 0 {
			e.stop()
			delete(f.entries, key)
		}
	}
}

// start watches one object. f.mu is held.
func (f *followed) start(key objectKey) *followedObject {
	ctx, stop := context.WithCancel(f.ctx)
	e := &followedObject{pods: map[types.UID]bool{}, stop: stop}
	only := fields.OneTermEqualSelector("metadata.name", key.name).String()
	lw := &cache.ListWatch{}
	var sample runtime.Object = &corev1.ConfigMap{}
	if key.kind == kindSecret {
		sample = &corev1.Secret{}
		api := f.client.CoreV1().Secrets(key.namespace)
		lw.ListWithContextFunc = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = only
			return api.List(ctx, o)
		}
		lw.WatchFuncWithContext = func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = only
			return api.Watch(ctx, o)
		}
	} else {
		api := f.client.CoreV1().ConfigMaps(key.namespace)
		lw.ListWithContextFunc = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = only
			return api.List(ctx, o)
		}
		lw.WatchFuncWithContext = func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = only
			return api.Watch(ctx, o)
		}
	}
	changed := func(obj any) {
		if d, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = d.Obj
		}
		if m, ok := obj.(metav1.Object); ok && m.GetName() == key.name {
			f.changed(e, m.GetResourceVersion())
		}
	}
	store, controller := cache.NewInformerWithOptions(cache.InformerOptions{ListerWatcher: cache.ToListWatcherWithWatchListSemantics(lw, f.client), ObjectType: sample,
		Handler: cache.ResourceEventHandlerFuncs{AddFunc: changed, UpdateFunc: func(_, obj any) { changed(obj) }, DeleteFunc: func(any) { f.changed(e, absentVersion) }}})
	e.store, e.ready = store, controller.HasSynced
	f.wg.Go(func() { controller.RunWithContext(ctx) })
	return e
}

// changed tells the Pods, unless they have that version already.
func (f *followed) changed(e *followedObject, version string) {
	f.mu.Lock()
	if e.seen == version {
		f.mu.Unlock()
		return
	}
	e.seen = version
	var uids []types.UID
	for uid := range e.pods {
		uids = append(uids, uid)
	}
	f.mu.Unlock()
	for _, uid := range uids {
		f.notify(uid)
	}
}

// GetConfigMap returns the ConfigMap, from memory if it is followed.
func (f *followed) GetConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	return get(f, objectKey{kindConfigMap, namespace, name}, func() (*corev1.ConfigMap, error) {
		return f.client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	})
}

// GetSecret returns the Secret, from memory if it is followed.
func (f *followed) GetSecret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return get(f, objectKey{kindSecret, namespace, name}, func() (*corev1.Secret, error) {
		return f.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	})
}

// GetPersistentVolumeClaim asks the API: a node may read claims, not watch them.
func (f *followed) GetPersistentVolumeClaim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error) {
	return f.client.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, name, metav1.GetOptions{})
}

// GetPersistentVolume asks the API: a node may read volumes, not watch them.
func (f *followed) GetPersistentVolume(ctx context.Context, name string) (*corev1.PersistentVolume, error) {
	return f.client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
}

func get[T metav1.Object](f *followed, key objectKey, live func() (T, error)) (T, error) {
	f.mu.Lock()
	e := f.entries[key]
	f.mu.Unlock()
	if e != nil && e.ready() {
		if obj, ok, _ := e.store.GetByKey(key.namespace + "/" + key.name); ok {
			return obj.(T), nil
		}
	}
	// What the watch does not have yet may be there all the same: the object may be newer than the watch.
	obj, err := live()
	if apierrors.IsNotFound(err) {
		// In Kubernetes' words: users read this in events.
		err = apierrors.NewNotFound(schema.GroupResource{Resource: strings.ToLower(key.kind)}, key.name)
	}
	if e != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		switch {
		case err == nil:
			e.seen = obj.GetResourceVersion()
		case apierrors.IsNotFound(err):
			e.seen = absentVersion
		}
	}
	return obj, err
}

// references are the ConfigMaps and Secrets that the Pod names.
func references(pod *corev1.Pod) map[objectKey]bool {
	refs := map[objectKey]bool{}
	add := func(kind, name string) {
		if name != "" {
			refs[objectKey{kind, pod.Namespace, name}] = true
		}
	}
	for _, s := range pod.Spec.ImagePullSecrets {
		add(kindSecret, s.Name)
	}
	for _, v := range pod.Spec.Volumes {
		switch {
		case v.ConfigMap != nil:
			add(kindConfigMap, v.ConfigMap.Name)
		case v.Secret != nil:
			add(kindSecret, v.Secret.SecretName)
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				if s.ConfigMap != nil {
					add(kindConfigMap, s.ConfigMap.Name)
				}
				if s.Secret != nil {
					add(kindSecret, s.Secret.Name)
				}
			}
		}
	}
	container := func(from []corev1.EnvFromSource, env []corev1.EnvVar) {
		for _, f := range from {
			if f.ConfigMapRef != nil {
				add(kindConfigMap, f.ConfigMapRef.Name)
			}
			if f.SecretRef != nil {
				add(kindSecret, f.SecretRef.Name)
			}
		}
		for _, e := range env {
			if v := e.ValueFrom; v != nil && v.ConfigMapKeyRef != nil {
				add(kindConfigMap, v.ConfigMapKeyRef.Name)
			} else if v != nil && v.SecretKeyRef != nil {
				add(kindSecret, v.SecretKeyRef.Name)
			}
		}
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range list {
			container(c.EnvFrom, c.Env)
		}
	}
	for _, c := range pod.Spec.EphemeralContainers {
		container(c.EnvFrom, c.Env)
	}
	return refs
}
