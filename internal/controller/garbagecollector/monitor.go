package garbagecollector

import (
	"context"
	"fmt"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// monitor feeds the objects of one resource to the graph. It has no cache of its own: the graph is all that is remembered.
type monitor struct {
	c    *Controller
	kind schema.GroupVersionKind
	// changesAPI says that a change here changes which kinds exist.
	changesAPI bool
	stop       context.CancelFunc
	done       chan struct{}

	once   sync.Once
	synced chan struct{}

	mu   sync.Mutex // guards uids
	uids map[types.UID]struct{}
}

// start begins to watch a resource through the metadata client, or through an informer that others share.
func (c *Controller) start(ctx context.Context, resource schema.GroupVersionResource, kind schema.GroupVersionKind) (*monitor, error) {
	ctx, cancel := context.WithCancel(ctx)
	m := &monitor{
		c: c, kind: kind, changesAPI: changesAPI(resource.GroupResource()), stop: cancel,
		done: make(chan struct{}), synced: make(chan struct{}), uids: map[types.UID]struct{}{},
	}
	if shared := c.shared[resource]; shared != nil {
		return m, m.share(ctx, shared)
	}
	client := c.metadata.Resource(resource)
	lw := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return client.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return client.Watch(ctx, o)
		},
	}, c.metadata)
	r := cache.NewReflectorWithOptions(lw, &metav1.PartialObjectMetadata{}, m, cache.ReflectorOptions{Name: "garbage collector: " + resource.String()})
	go func() {
		defer close(m.done)
		r.RunWithContext(ctx)
	}()
	return m, nil
}

func (m *monitor) share(ctx context.Context, informer cache.SharedIndexInformer) error {
	see := func(obj any) {
		if o, ok := obj.(metav1.Object); ok {
			_ = m.Add(o)
		}
	}
	reg, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    see,
		UpdateFunc: func(before, after any) { m.replaced(before, after); see(after) },
		DeleteFunc: func(obj any) { _ = m.Delete(obj) },
	})
	if err != nil {
		m.stop()
		return fmt.Errorf("share the informer of %s: %w", m.kind.Kind, err)
	}
	go func() {
		defer close(m.done)
		select {
		case <-reg.HasSyncedChecker().Done():
			m.once.Do(func() { close(m.synced) })
			<-ctx.Done()
		case <-ctx.Done():
		}
		// An informer that stopped has no handlers to remove.
		_ = informer.RemoveEventHandler(reg)
	}()
	return nil
}

// replaced sees to an object that was deleted and made anew between two events.
func (m *monitor) replaced(before, after any) {
	b, ok1 := before.(metav1.Object)
	a, ok2 := after.(metav1.Object)
	if ok1 && ok2 && a.GetUID() != b.GetUID() {
		_ = m.Delete(b)
	}
}

// Add takes in an object that exists. It and the methods below are the store that the reflector fills.
func (m *monitor) Add(obj any) error {
	o, ok := obj.(metav1.Object)
	if !ok {
		return fmt.Errorf("%T has no metadata", obj)
	}
	m.mu.Lock()
	m.uids[o.GetUID()] = struct{}{}
	m.mu.Unlock()
	m.c.wake(m.c.graph.observe(m.kind, o)...)
	m.apiChanged()
	return nil
}

// Update is Add.
func (m *monitor) Update(obj any) error { return m.Add(obj) }

// Delete takes in that an object is gone.
func (m *monitor) Delete(obj any) error {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	o, ok := obj.(metav1.Object)
	if !ok {
		return fmt.Errorf("%T has no metadata", obj)
	}
	m.forget(o.GetUID())
	m.apiChanged()
	return nil
}

func (m *monitor) forget(uid types.UID) {
	m.mu.Lock()
	delete(m.uids, uid)
	m.mu.Unlock()
	m.c.wake(m.c.graph.remove(uid)...)
}

// Replace takes in all objects that exist: what is not among them is gone.
func (m *monitor) Replace(list []any, _ string) error {
	exist := make(map[types.UID]struct{}, len(list))
	for _, obj := range list {
		if o, ok := obj.(metav1.Object); ok {
			exist[o.GetUID()] = struct{}{}
		}
		if err := m.Add(obj); err != nil {
			return err
		}
	}
	var gone []types.UID
	m.mu.Lock()
	for uid := range m.uids {
		if _, ok := exist[uid]; !ok {
			gone = append(gone, uid)
		}
	}
	m.mu.Unlock()
	for _, uid := range gone {
		m.forget(uid)
	}
	m.once.Do(func() { close(m.synced) })
	return nil
}

// Resync does nothing: every event was acted on.
func (m *monitor) Resync() error { return nil }

func (m *monitor) apiChanged() {
	if !m.changesAPI {
		return
	}
	select {
	case <-m.synced:
		m.c.askRefresh()
	default:
		// The first list: the kinds have just been read.
	}
}

// abandon stops the monitor. Its objects are not gone for certain (another version of the kind may be served now): the server is
// asked about each.
func (m *monitor) abandon() {
	m.stop()
	<-m.done
	m.mu.Lock()
	defer m.mu.Unlock()
	for uid := range m.uids {
		m.c.wake(m.c.graph.doubt(uid)...)
	}
}

func changesAPI(r schema.GroupResource) bool {
	return r == schema.GroupResource{Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions"} ||
		r == schema.GroupResource{Group: "apiregistration.k8s.io", Resource: "apiservices"}
}
