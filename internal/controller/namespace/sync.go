package namespace

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

var podResource = schema.GroupVersionResource{Version: "v1", Resource: "pods"}

// atOnce is how many kinds are emptied at the same time.
const atOnce = 8

// resource is one kind of object that namespaces hold.
type resource struct {
	schema.GroupVersionResource
	list, deleteCollection bool
}

// sync takes one round at a namespace: deletes what it holds, tells what is left, and lets it go when nothing is. It may be
// repeated at any time.
func (c *Controller) sync(ctx context.Context, name string) error {
	ns, err := c.client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if ns.DeletionTimestamp == nil || !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
		return nil
	}
	if ns.Status.Phase != corev1.NamespaceTerminating {
		ns.Status.Phase = corev1.NamespaceTerminating
		if ns, err = c.client.CoreV1().Namespaces().UpdateStatus(ctx, ns, metav1.UpdateOptions{}); err != nil {
			return ignoreNotFound(err)
		}
	}
	f := c.empty(ctx, name)
	after, changed := conditions(ns.Status.Conditions, f, c.clock.Now())
	if changed {
		ns.Status.Conditions = after
		if ns, err = c.client.CoreV1().Namespaces().UpdateStatus(ctx, ns, metav1.UpdateOptions{}); err != nil {
			return ignoreNotFound(err)
		}
	}
	if err := errors.Join(append([]error{f.discovery, f.parsing}, f.deletion...)...); err != nil {
		return fmt.Errorf("empty namespace %s: %w", name, err)
	}
	if len(f.remaining) > 0 {
		c.lookAgain(ns)
		return nil
	}
	return c.finalize(ctx, ns)
}

// lookAgain comes back after a tenth of the time that the deletion has taken so far.
func (c *Controller) lookAgain(ns *corev1.Namespace) {
	c.loop.AddAfter(ns.Name, min(lookMost, max(lookFirst, c.clock.Since(ns.DeletionTimestamp.Time)/10)))
}

// finalize takes the kubernetes finalizer away; the server removes the namespace with its last one.
func (c *Controller) finalize(ctx context.Context, ns *corev1.Namespace) error {
	ns = ns.DeepCopy()
	ns.Spec.Finalizers = slices.DeleteFunc(ns.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
	_, err := c.client.CoreV1().Namespaces().Finalize(ctx, ns, metav1.UpdateOptions{})
	return ignoreNotFound(err)
}

// empty deletes what the namespace holds: Pods first and, once none is left, all else.
func (c *Controller) empty(ctx context.Context, namespace string) findings {
	f := findings{remaining: map[schema.GroupVersionResource]int{}, finalizers: map[string]int{}}
	lists, err := c.discovery.ServerPreferredNamespacedResources()
	f.discovery = err
	resources, err := deletable(lists)
	f.parsing = err
	isPods := func(r resource) bool { return r.GroupVersionResource == podResource }
	if i := slices.IndexFunc(resources, isPods); i >= 0 {
		c.emptyAll(ctx, resources[i:i+1], namespace, &f)
		if len(f.remaining) > 0 || len(f.deletion) > 0 {
			return f
		}
	}
	c.emptyAll(ctx, slices.DeleteFunc(resources, isPods), namespace, &f)
	return f
}

// deletable lists the resources that can be deleted, with the verbs that emptying them may use.
func deletable(lists []*metav1.APIResourceList) ([]resource, error) {
	var out []resource
	var errs []error
	for _, l := range discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"delete"}}, lists) {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, r := range l.APIResources {
			out = append(out, resource{
				GroupVersionResource: gv.WithResource(r.Name),
				list:                 slices.Contains(r.Verbs, "list"),
				deleteCollection:     slices.Contains(r.Verbs, "deletecollection"),
			})
		}
	}
	return out, errors.Join(errs...)
}

// emptyAll empties several kinds at the same time and adds what it finds to f.
func (c *Controller) emptyAll(ctx context.Context, resources []resource, namespace string, f *findings) {
	var mu sync.Mutex // guards f
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, r := range resources {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			left, err := c.emptyOne(ctx, r, namespace)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				f.deletion = append(f.deletion, err)
			}
			if len(left) == 0 {
				return
			}
			f.remaining[r.GroupVersionResource] = len(left)
			for _, o := range left {
				for _, name := range o.Finalizers {
					f.finalizers[name]++
				}
			}
		})
	}
	wg.Wait()
}

// emptyOne deletes all objects of one kind and returns those that are still there. Objects that are gone already and kinds that
// cannot be listed are none.
func (c *Controller) emptyOne(ctx context.Context, r resource, namespace string) ([]metav1.PartialObjectMetadata, error) {
	if !r.list {
		return nil, nil
	}
	client := c.metadata.Resource(r.GroupVersionResource).Namespace(namespace)
	before, err := client.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, ignoreUnserved(err)
	}
	if len(before.Items) == 0 {
		return nil, nil
	}
	background := metav1.DeletePropagationBackground
	options := metav1.DeleteOptions{PropagationPolicy: &background}
	if r.deleteCollection {
		err = client.DeleteCollection(ctx, options, metav1.ListOptions{})
	}
	if !r.deleteCollection || ignoreUnserved(err) != nil || apierrors.IsMethodNotSupported(err) {
		// One by one, which gets past an object that cannot be deleted.
		var errs []error
		for _, o := range before.Items {
			if o.DeletionTimestamp == nil {
				errs = append(errs, ignoreNotFound(client.Delete(ctx, o.Name, options)))
			}
		}
		err = errors.Join(errs...)
	}
	if ignoreUnserved(err) != nil {
		return before.Items, fmt.Errorf("delete %s: %w", r.GroupResource(), err)
	}
	after, err := client.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, ignoreUnserved(err)
	}
	return after.Items, nil
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// ignoreUnserved also forgives a kind that is told of by discovery and not served: one just removed.
func ignoreUnserved(err error) error {
	if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
		return nil
	}
	return err
}
