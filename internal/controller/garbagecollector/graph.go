package garbagecollector

import (
	"reflect"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/lru"
)

// identity is an object as owner references name it, with its namespace.
type identity struct {
	apiVersion, kind, namespace, name string
	uid                               types.UID
}

func identify(kind schema.GroupVersionKind, o metav1.Object) identity {
	apiVersion, k := kind.ToAPIVersionAndKind()
	return identity{apiVersion: apiVersion, kind: k, namespace: o.GetNamespace(), name: o.GetName(), uid: o.GetUID()}
}

// named is what ref names for an object in namespace. The owner may turn out to have no namespace.
func named(ref metav1.OwnerReference, namespace string) identity {
	return identity{apiVersion: ref.APIVersion, kind: ref.Kind, namespace: namespace, name: ref.Name, uid: ref.UID}
}

// matches says whether ref, on an object in namespace, means this identity.
func (id identity) matches(ref metav1.OwnerReference, namespace string) bool {
	return ref.UID == id.uid && ref.APIVersion == id.apiVersion && ref.Kind == id.kind && ref.Name == id.name &&
		(id.namespace == "" || id.namespace == namespace)
}

// node is one object. A node that is not observed was only heard of, as somebody's owner.
type node struct {
	identity
	owners     []metav1.OwnerReference
	dependents map[*node]struct{}
	observed   bool
	deleting   bool
	foreground bool
	orphan     bool
}

// graph is who owns whom, of all objects in the cluster. Its methods return the uids of the nodes that may need work; they never
// talk to the server.
type graph struct {
	mu    sync.Mutex // guards nodes and all they hold
	nodes map[types.UID]*node
	// absent remembers owners that were found not to exist. It has its own lock.
	absent *lru.Cache
}

func newGraph() *graph { return &graph{nodes: map[types.UID]*node{}, absent: lru.New(500)} }

// observe takes in an object as an informer saw it.
func (g *graph) observe(kind schema.GroupVersionKind, o metav1.Object) (wake []types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	id := identify(kind, o)
	n := g.nodes[id.uid]
	switch {
	case n == nil:
		n = &node{identity: id}
		g.nodes[id.uid] = n
	case !n.observed && n.identity != id:
		// Who named it otherwise may have no such owner.
		for d := range n.dependents {
			if !d.namesOwner(id) {
				wake = append(wake, d.uid)
			}
		}
		n.identity = id
	}
	n.observed = true
	wake = append(wake, g.setOwners(n, o.GetOwnerReferences())...)
	n.deleting = o.GetDeletionTimestamp() != nil
	n.foreground = n.deleting && slices.Contains(o.GetFinalizers(), metav1.FinalizerDeleteDependents)
	n.orphan = n.deleting && slices.Contains(o.GetFinalizers(), metav1.FinalizerOrphanDependents)
	switch {
	case n.orphan:
		wake = append(wake, n.uid)
	case n.foreground:
		for d := range n.dependents {
			wake = append(wake, d.uid)
		}
		wake = append(wake, n.uid)
	}
	return wake
}

// namesOwner says whether one of n's references means exactly id.
func (n *node) namesOwner(id identity) bool {
	return slices.ContainsFunc(n.owners, func(ref metav1.OwnerReference) bool { return id.matches(ref, n.namespace) })
}

// setOwners brings the edges from n to its owners up to date. Owners that wait for n and need not any more are woken; owners never
// seen become nodes that are to be looked for; n is woken if a reference looks wrong. The caller holds mu.
func (g *graph) setOwners(n *node, refs []metav1.OwnerReference) (wake []types.UID) {
	if reflect.DeepEqual(n.owners, refs) {
		return nil
	}
	before := n.owners
	n.owners = slices.Clone(refs)
	for _, old := range before {
		i := slices.IndexFunc(refs, func(r metav1.OwnerReference) bool { return r.UID == old.UID })
		owner := g.nodes[old.UID]
		if owner == nil {
			continue
		}
		if i < 0 {
			delete(owner.dependents, n)
		}
		if blocks(old) && (i < 0 || !blocks(refs[i])) && owner.foreground {
			wake = append(wake, owner.uid)
		}
	}
	for _, ref := range refs {
		if slices.ContainsFunc(before, func(r metav1.OwnerReference) bool { return reflect.DeepEqual(r, ref) }) {
			continue
		}
		wake = append(wake, g.link(n, ref)...)
	}
	return wake
}

// link makes n a dependent of what ref names. The caller holds mu.
func (g *graph) link(n *node, ref metav1.OwnerReference) (wake []types.UID) {
	owner := g.nodes[ref.UID]
	known := owner != nil
	if !known {
		owner = &node{identity: named(ref, n.namespace)}
		g.nodes[ref.UID] = owner
	}
	if owner.dependents == nil {
		owner.dependents = map[*node]struct{}{}
	}
	owner.dependents[n] = struct{}{}
	switch {
	case !known:
		return []types.UID{owner.uid}
	case !owner.matches(ref, n.namespace), !owner.observed && owner.namespace != n.namespace:
		// It names an object that is not the one we know under this uid.
		return []types.UID{n.uid}
	case owner.foreground:
		// It came while its owner was already going.
		return []types.UID{n.uid, owner.uid}
	}
	return nil
}

func blocks(ref metav1.OwnerReference) bool {
	return ref.BlockOwnerDeletion != nil && *ref.BlockOwnerDeletion
}

// remove takes out an object that an informer saw go.
func (g *graph) remove(uid types.UID) (wake []types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[uid]
	if n == nil {
		return nil
	}
	return g.drop(n)
}

// doubt makes a node one that is only heard of, since nobody watches it any more.
func (g *graph) doubt(uid types.UID) (wake []types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[uid]
	if n == nil {
		return nil
	}
	n.observed = false
	return []types.UID{uid}
}

// drop takes a node out; its dependents have lost an owner, and owners that wait for it need not. The caller holds mu.
func (g *graph) drop(n *node) (wake []types.UID) {
	delete(g.nodes, n.uid)
	for _, ref := range n.owners {
		if owner := g.nodes[ref.UID]; owner != nil {
			delete(owner.dependents, n)
			if owner.foreground {
				wake = append(wake, owner.uid)
			}
		}
	}
	if len(n.dependents) > 0 {
		g.absent.Add(n.identity, nil)
	}
	for d := range n.dependents {
		wake = append(wake, d.uid)
	}
	return wake
}

// missing takes in that the server has no such object. It may be one that was only heard of, under a name that not all who name it
// agree on: then the other names are to be tried.
func (g *graph) missing(id identity) (wake []types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[id.uid]
	if n == nil {
		return nil
	}
	var other []*node
	for d := range n.dependents {
		if d.namesOwner(id) {
			wake = append(wake, d.uid)
		} else {
			other = append(other, d)
		}
	}
	if len(wake) > 0 {
		g.absent.Add(id, nil)
	}
	switch {
	case n.observed && n.identity != id:
		return wake
	case !n.observed && len(other) > 0:
		if n.identity == id {
			if next, ok := g.otherName(other, id); ok {
				n.identity = next
				wake = append(wake, n.uid)
			}
		}
		return wake
	}
	return g.drop(n)
}

// otherName picks another name that dependents know an owner by, and that is not known to be absent. The caller holds mu.
func (g *graph) otherName(dependents []*node, id identity) (identity, bool) {
	for _, d := range dependents {
		for _, ref := range d.owners {
			if ref.UID != id.uid {
				continue
			}
			name := named(ref, d.namespace)
			if _, gone := g.absent.Get(name); !gone && name != id {
				return name, true
			}
		}
	}
	return identity{}, false
}

// snapshot is a copy of a node as work needs it.
type snapshot struct {
	identity
	observed, deleting, foreground, orphan bool
	// dependents are all that name it as an owner.
	dependents []identity
	// blocking are the dependents that hold up a foreground deletion.
	blocking []types.UID
	// waiting says that a dependent is in a foreground deletion itself.
	waiting bool
}

// look returns a snapshot of a node; false if there is none.
func (g *graph) look(uid types.UID) (snapshot, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[uid]
	if n == nil {
		return snapshot{}, false
	}
	s := snapshot{identity: n.identity, observed: n.observed, deleting: n.deleting, foreground: n.foreground, orphan: n.orphan}
	for d := range n.dependents {
		s.dependents = append(s.dependents, d.identity)
		s.waiting = s.waiting || d.foreground
		for _, ref := range d.owners {
			if ref.UID == uid && blocks(ref) {
				s.blocking = append(s.blocking, d.uid)
				break
			}
		}
	}
	return s, true
}

// alive says whether the informers know the owner that ref names, and it is not being deleted.
func (g *graph) alive(ref metav1.OwnerReference, namespace string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[ref.UID]
	return n != nil && n.observed && !n.deleting && n.matches(ref, namespace)
}

// gone says whether the owner that ref names is known not to exist.
func (g *graph) gone(ref metav1.OwnerReference, namespace string) bool {
	if _, ok := g.absent.Get(named(ref, "")); ok {
		return true
	}
	_, ok := g.absent.Get(named(ref, namespace))
	return ok
}

// onlyHeardOf lists the nodes that no informer has seen.
func (g *graph) onlyHeardOf() (uids []types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for uid, n := range g.nodes {
		if !n.observed {
			uids = append(uids, uid)
		}
	}
	return uids
}
