// Package node decides what a node may do: what it needs to run its own Pods, and to tell about them and itself. Secrets, ConfigMaps, claims
// and service accounts are a node's only while a Pod on it names them. What a node may write into an object is admission's to say.
//
// It imports k8s.io/apiserver and the sibling packages with the rules. Invariant: it keeps no graph of what belongs together; it looks at
// the node's Pods, in the API server's own cache, whenever it is asked.
package node

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/lru"

	"carob.dev/carob/internal/apiserver/auth/bootstrap"
	"carob.dev/carob/internal/apiserver/auth/rbac"
)

// Authorizer decides about requests of nodes.
type Authorizer struct {
	objects Objects
	rules   []rbacv1.PolicyRule
	// reasons are the Pods by which nodes were allowed something; they are looked at first when it is asked for again.
	reasons *lru.Cache
}

// remembered is how many reasons are kept, some hundred bytes each.
const remembered = 1024

// New makes an Authorizer that finds out by objects what belongs to a node.
func New(objects Objects) *Authorizer {
	return &Authorizer{objects: objects, rules: bootstrap.NodeRules(), reasons: lru.New(remembered)}
}

// Name says whether u is a node, by both its name and its groups, and which; the name is empty for a node that does not say.
func Name(u user.Info) (name string, ok bool) {
	name, ok = strings.CutPrefix(u.GetName(), "system:node:")
	if !ok || !slices.Contains(u.GetGroups(), user.NodesGroup) {
		return "", false
	}
	return name, true
}

const (
	allow = authorizer.DecisionAllow
	pass  = authorizer.DecisionNoOpinion
)

// Authorize allows what the named node may do, and else says why not.
func (z *Authorizer) Authorize(ctx context.Context, node string, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if node == "" {
		return pass, fmt.Sprintf("unknown node for user %q", a.GetUser().GetName()), nil
	}
	if a.IsResourceRequest() {
		if decide, ok := z.special(a); ok {
			return decide(ctx, node, a)
		}
	}
	for i := range z.rules {
		if rbac.Allows(&z.rules[i], a) {
			return allow, "", nil
		}
	}
	return pass, "", nil
}

type decider func(ctx context.Context, node string, a authorizer.Attributes) (authorizer.Decision, string, error)

// special is how a kind is decided about of whose objects a node has some only.
func (z *Authorizer) special(a authorizer.Attributes) (decider, bool) {
	switch a.GetAPIGroup() + "/" + a.GetResource() {
	case "/secrets", "/configmaps":
		return z.readOne, true
	case "/persistentvolumeclaims":
		if a.GetSubresource() == "status" {
			return z.writeStatus, true
		}
		return z.get, true
	case "/persistentvolumes", "resource.k8s.io/resourceclaims", "storage.k8s.io/volumeattachments":
		return z.get, true
	case "/serviceaccounts":
		return z.account, true
	case "coordination.k8s.io/leases":
		return lease, true
	case "storage.k8s.io/csinodes":
		return csiNode, true
	case "resource.k8s.io/resourceslices":
		return z.slice, true
	case "certificates.k8s.io/podcertificaterequests":
		return z.certificate, true
	case "/nodes":
		return ownNode, true
	case "/pods":
		return z.pod, true
	}
	return nil, false
}

func (z *Authorizer) get(ctx context.Context, node string, a authorizer.Attributes) (authorizer.Decision, string, error) {
	switch {
	case a.GetVerb() != "get":
		return pass, "can only get individual resources of this type", nil
	case a.GetSubresource() != "":
		return pass, "cannot get subresource", nil
	}
	return z.related(ctx, node, a)
}

func (z *Authorizer) writeStatus(ctx context.Context, node string, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if v := a.GetVerb(); v != "update" && v != "patch" {
		return pass, "can only get/update/patch this type", nil
	}
	return z.related(ctx, node, a)
}

func (z *Authorizer) readOne(ctx context.Context, node string, a authorizer.Attributes) (authorizer.Decision, string, error) {
	switch v := a.GetVerb(); {
	case v != "get" && v != "list" && v != "watch":
		return pass, "can only read resources of this type", nil
	case a.GetSubresource() != "":
		return pass, "cannot read subresource", nil
	case a.GetNamespace() == "":
		return pass, "can only read namespaced object of this type", nil
	}
	return z.related(ctx, node, a)
}

func (z *Authorizer) related(ctx context.Context, node string, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if a.GetName() == "" {
		return pass, "No Object name found", nil
	}
	ok, err := z.belongs(ctx, node, a.GetAPIGroup()+"/"+a.GetResource(), a.GetNamespace(), a.GetName())
	if err != nil || !ok {
		return pass, fmt.Sprintf("no relationship found between node '%s' and this object", node), err
	}
	return allow, "", nil
}

func (z *Authorizer) account(ctx context.Context, node string, a authorizer.Attributes) (authorizer.Decision, string, error) {
	switch {
	case a.GetVerb() == "get" && a.GetSubresource() == "":
		return z.readOne(ctx, node, a)
	case a.GetVerb() != "create" || a.GetName() == "":
		return pass, "can only create tokens for individual service accounts", nil
	case a.GetSubresource() != "token":
		return pass, "can only create token subresource of serviceaccount", nil
	}
	return z.related(ctx, node, a)
}

func lease(_ context.Context, node string, a authorizer.Attributes) (authorizer.Decision, string, error) {
	switch {
	case !slices.Contains([]string{"get", "create", "update", "patch", "delete"}, a.GetVerb()):
		return pass, "can only get, create, update, patch, or delete a node lease", nil
	case a.GetNamespace() != corev1.NamespaceNodeLease:
		return pass, fmt.Sprintf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease), nil
	case a.GetVerb() != "create" && a.GetName() != node: // the name of a new one, admission looks at
		return pass, "can only access node lease with the same name as the requesting node", nil
	}
	return allow, "", nil
}

func csiNode(_ context.Context, node string, a authorizer.Attributes) (authorizer.Decision, string, error) {
	switch {
	case a.GetSubresource() != "":
		return pass, "cannot authorize CSINode subresources", nil
	case !slices.Contains([]string{"get", "create", "update", "patch", "delete"}, a.GetVerb()):
		return pass, "can only get, create, update, patch, or delete a CSINode", nil
	case a.GetVerb() != "create" && a.GetName() != node:
		return pass, "can only access CSINode with the same name as the requesting node", nil
	}
	return allow, "", nil
}

func (z *Authorizer) slice(ctx context.Context, node string, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if a.GetSubresource() != "" {
		return pass, "cannot authorize ResourceSlice subresources", nil
	}
	switch a.GetVerb() {
	case "create":
		return allow, "", nil
	case "get", "update", "patch", "delete":
		return z.related(ctx, node, a)
	case "watch", "list", "deletecollection":
		if selects(a, "spec.nodeName", node) {
			return allow, "", nil
		}
		return pass, "can only list/watch/deletecollection resourceslices with nodeName field selector", nil
	}
	return pass, "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection", nil
}

func (z *Authorizer) certificate(ctx context.Context, node string, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if a.GetSubresource() != "" {
		return pass, "nodes may not access the status subresource of PodCertificateRequests", nil
	}
	switch a.GetVerb() {
	case "create":
		return allow, "", nil
	case "get":
		return z.related(ctx, node, a)
	case "list", "watch":
		if selects(a, "spec.nodeName", node) {
			return allow, "", nil
		}
		return pass, "can only list/watch podcertificaterequests with nodeName field selector", nil
	}
	return pass, fmt.Sprintf("nodes may not %s podcertificaterequests", a.GetVerb()), nil
}

func ownNode(_ context.Context, node string, a authorizer.Attributes) (authorizer.Decision, string, error) {
	switch a.GetSubresource() + " " + a.GetVerb() {
	case " create", " update", " patch", "status update", "status patch":
		return allow, "", nil
	case " get", " list", " watch":
		switch a.GetName() {
		case node:
			return allow, "", nil
		case "":
			return pass, fmt.Sprintf("node '%s' cannot read all nodes, only its own Node object", node), nil
		}
		return pass, fmt.Sprintf("node '%s' cannot read '%s', only its own Node object", node, a.GetName()), nil
	}
	return pass, "", nil
}

func (z *Authorizer) pod(ctx context.Context, node string, a authorizer.Attributes) (authorizer.Decision, string, error) {
	switch a.GetSubresource() + " " + a.GetVerb() {
	case " get":
		return z.related(ctx, node, a)
	case " list", " watch":
		switch {
		case selects(a, "spec.nodeName", node):
			return allow, "", nil
		case a.GetName() != "":
			return z.related(ctx, node, a)
		}
		return pass, "can only list/watch pods with spec.nodeName field selector", nil
	case " create", " delete", "status update", "status patch", "eviction create":
		return allow, "", nil
	}
	return pass, "", nil
}

// selects says whether a request is for objects only that have the value in the field.
func selects(a authorizer.Attributes, field, value string) bool {
	wanted, _ := a.GetFieldSelector()
	for _, w := range wanted {
		if w.Field == field && w.Operator == selection.Equals && w.Value == value {
			return true
		}
	}
	return false
}
