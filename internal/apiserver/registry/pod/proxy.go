package pod

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/registry/rest"
)

// Proxy serves pods/proxy: HTTP to a port of the Pod.
type Proxy struct {
	Agents
	// To reaches Pods by their address.
	To http.RoundTripper
}

var _ rest.Connecter = &Proxy{}

// ProxyMethods are the HTTP methods that can be proxied.
func ProxyMethods() []string {
	return []string{
		http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodHead, http.MethodOptions,
	}
}

// New implements rest.Storage.
func (*Proxy) New() runtime.Object { return &corev1.PodProxyOptions{} }

// Destroy implements rest.Storage; the parent destroys the storage.
func (*Proxy) Destroy() {}

// ConnectMethods implements rest.Connecter.
func (*Proxy) ConnectMethods() []string { return ProxyMethods() }

// NewConnectOptions implements rest.Connecter: what follows in the path belongs to the Pod.
func (*Proxy) NewConnectOptions() (runtime.Object, bool, string) {
	return &corev1.PodProxyOptions{}, true, "path"
}

// Connect implements rest.Connecter. id is "name", "name:port" or "scheme:name:port".
func (r *Proxy) Connect(ctx context.Context, id string, opts runtime.Object, responder rest.Responder) (http.Handler, error) {
	o, ok := opts.(*corev1.PodProxyOptions)
	if !ok {
		return nil, fmt.Errorf("invalid options object: %T", opts)
	}
	scheme, name, port, valid := utilnet.SplitSchemeNamePort(id)
	if !valid {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid pod request %q", id))
	}
	pod, err := r.pod(ctx, name)
	if err != nil {
		return nil, err
	}
	at, err := address(pod, scheme, port)
	if err != nil {
		return nil, err
	}
	at.Path = JoinPath(at.Path, o.Path)
	return proxy.NewUpgradeAwareHandler(at, r.To, true, false, proxy.NewErrorResponder(responder)), nil
}

// address is where the Pod serves: the given port, or the first that a container declares.
func address(pod *corev1.Pod, scheme, port string) (*url.URL, error) {
	for _, c := range pod.Spec.Containers {
		if port == "" && len(c.Ports) > 0 {
			port = strconv.Itoa(int(c.Ports[0].ContainerPort))
		}
	}
	var ip string
	if len(pod.Status.PodIPs) > 0 {
		ip = pod.Status.PodIPs[0].IP
	}
	parsed, err := netip.ParseAddr(ip)
	if err != nil || !parsed.IsGlobalUnicast() {
		return nil, apierrors.NewBadRequest("address not allowed")
	}
	at := &url.URL{Scheme: scheme, Host: ip}
	switch {
	case port != "":
		at.Host = net.JoinHostPort(ip, port)
	case parsed.Is6():
		at.Host = "[" + ip + "]"
	}
	return at, nil
}

// JoinPath joins paths and keeps a slash at the end.
func JoinPath(elements ...string) string {
	joined := path.Join(elements...)
	if last := elements[len(elements)-1]; strings.HasSuffix(last, "/") && !strings.HasSuffix(joined, "/") {
		joined += "/"
	}
	return joined
}
