// Package node serves nodes/proxy: the server of a node's agent, through the API.
//
// It imports the generic registry.
package node

import (
	"context"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/registry/rest"

	"carob.dev/carob/internal/apiserver/registry"
	"carob.dev/carob/internal/apiserver/registry/pod"
)

// Proxy serves nodes/proxy.
type Proxy struct {
	Store     *registry.Store
	Transport pod.NodeTransport
}

var _ rest.Connecter = &Proxy{}

// New implements rest.Storage.
func (*Proxy) New() runtime.Object { return &corev1.NodeProxyOptions{} }

// Destroy implements rest.Storage; the parent destroys the storage.
func (*Proxy) Destroy() {}

// ConnectMethods implements rest.Connecter.
func (*Proxy) ConnectMethods() []string { return pod.ProxyMethods() }

// NewConnectOptions implements rest.Connecter: what follows in the path belongs to the agent.
func (*Proxy) NewConnectOptions() (runtime.Object, bool, string) {
	return &corev1.NodeProxyOptions{}, true, "path"
}

// Connect implements rest.Connecter. id is the node's name; its agent has one server, so a scheme or port in it says nothing.
func (r *Proxy) Connect(ctx context.Context, id string, opts runtime.Object, responder rest.Responder) (http.Handler, error) {
	o, ok := opts.(*corev1.NodeProxyOptions)
	if !ok {
		return nil, fmt.Errorf("invalid options object: %T", opts)
	}
	_, name, _, valid := utilnet.SplitSchemeNamePort(id)
	if !valid {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid node request %q", id))
	}
	if _, err := registry.Get[*corev1.Node](ctx, r.Store, "", name); err != nil {
		return nil, err
	}
	base, transport, err := r.Transport(ctx, name)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("reach the agent of node %s: %w", name, err))
	}
	at := *base
	at.Path = pod.JoinPath(at.Path, o.Path)
	return proxy.NewUpgradeAwareHandler(&at, transport, true, false, proxy.NewErrorResponder(responder)), nil
}
