package pod

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	translator "k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// stream is what exec, attach and portforward have in common: a connection that is handed through to the agent. Clients speak SPDY or
// WebSocket to us; the agent is spoken to in SPDY.
type stream struct {
	Agents
	authorizer authorizer.UnconditionalAuthorizer
}

// Destroy implements rest.Storage; the parent destroys the storage.
func (stream) Destroy() {}

// ConnectMethods implements rest.Connecter. Browsers and WebSocket clients can only GET.
func (stream) ConnectMethods() []string { return []string{http.MethodGet, http.MethodPost} }

// mayCreate asks for the right to create as well, since a GET that upgrades can do all that a POST can.
func (s stream) mayCreate(ctx context.Context) error {
	info, ok := request.RequestInfoFrom(ctx)
	if !ok {
		return apierrors.NewInternalError(fmt.Errorf("no request info in the context"))
	}
	who, ok := request.UserFrom(ctx)
	if !ok {
		return apierrors.NewInternalError(fmt.Errorf("no user in the context"))
	}
	attrs := authorizer.AttributesRecord{
		User: who, Verb: "create", Namespace: info.Namespace, APIGroup: info.APIGroup, APIVersion: info.APIVersion,
		Resource: info.Resource, Subresource: info.Subresource, Name: info.Name, ResourceRequest: true, Path: info.Path,
	}
	decision, reason, err := s.authorizer.Authorize(ctx, attrs)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if decision != authorizer.DecisionAllow {
		return responsewriters.ForbiddenStatusError(attrs, reason)
	}
	return nil
}

// target is where a stream leads.
type target struct {
	url       *url.URL
	transport http.RoundTripper
}

func (s stream) target(ctx context.Context, name string, query url.Values, path, in string, inContainer bool) (target, error) {
	if err := s.mayCreate(ctx); err != nil {
		return target{}, err
	}
	pod, err := s.pod(ctx, name)
	if err != nil {
		return target{}, err
	}
	parts := []string{path, pod.Namespace, pod.Name}
	if inContainer {
		in, err = container(pod, in)
		if err != nil {
			return target{}, err
		}
		parts = append(parts, in)
	}
	if pod.Spec.NodeName == "" {
		return target{}, notAssigned(pod)
	}
	at, transport, err := s.locate(ctx, pod, query, parts...)
	return target{at, transport}, err
}

func (t target) handler(responder rest.Responder) http.Handler {
	return proxy.NewUpgradeAwareHandler(t.url, t.transport, false, true, proxy.NewErrorResponder(responder))
}

// translated speaks the newest WebSocket protocol itself, which agents need not know.
func (t target) translated(responder rest.Responder, opts translator.Options) http.Handler {
	return translator.NewTranslatingHandler(t.handler(responder),
		translator.NewStreamTranslatorHandler(t.url, t.transport, 0, opts), wsstream.IsWebSocketRequestWithStreamCloseProtocol)
}

func ioQuery(stdin, stdout, stderr, tty bool) url.Values {
	q := url.Values{}
	for name, set := range map[string]bool{
		corev1.ExecStdinParam: stdin, corev1.ExecStdoutParam: stdout, corev1.ExecStderrParam: stderr, corev1.ExecTTYParam: tty,
	} {
		if set {
			q.Set(name, "1")
		}
	}
	return q
}

// Exec serves pods/exec.
type Exec struct{ stream }

// Attach serves pods/attach.
type Attach struct{ stream }

// PortForward serves pods/portforward.
type PortForward struct{ stream }

var (
	_ rest.Connecter = &Exec{}
	_ rest.Connecter = &Attach{}
	_ rest.Connecter = &PortForward{}
)

// NewStreams makes the three.
func NewStreams(agents Agents, z authorizer.UnconditionalAuthorizer) (*Exec, *Attach, *PortForward) {
	s := stream{Agents: agents, authorizer: z}
	return &Exec{s}, &Attach{s}, &PortForward{s}
}

// New implements rest.Storage.
func (*Exec) New() runtime.Object { return &corev1.PodExecOptions{} }

// NewConnectOptions implements rest.Connecter.
func (*Exec) NewConnectOptions() (runtime.Object, bool, string) {
	return &corev1.PodExecOptions{}, false, ""
}

// Connect implements rest.Connecter.
func (r *Exec) Connect(ctx context.Context, name string, opts runtime.Object, responder rest.Responder) (http.Handler, error) {
	o, ok := opts.(*corev1.PodExecOptions)
	if !ok {
		return nil, fmt.Errorf("invalid options object: %T", opts)
	}
	q := ioQuery(o.Stdin, o.Stdout, o.Stderr, o.TTY)
	q["command"] = o.Command
	t, err := r.target(ctx, name, q, "exec", o.Container, true)
	if err != nil {
		return nil, err
	}
	return t.translated(responder, translator.Options{Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Tty: o.TTY}), nil
}

// New implements rest.Storage.
func (*Attach) New() runtime.Object { return &corev1.PodAttachOptions{} }

// NewConnectOptions implements rest.Connecter.
func (*Attach) NewConnectOptions() (runtime.Object, bool, string) {
	return &corev1.PodAttachOptions{}, false, ""
}

// Connect implements rest.Connecter.
func (r *Attach) Connect(ctx context.Context, name string, opts runtime.Object, responder rest.Responder) (http.Handler, error) {
	o, ok := opts.(*corev1.PodAttachOptions)
	if !ok {
		return nil, fmt.Errorf("invalid options object: %T", opts)
	}
	t, err := r.target(ctx, name, ioQuery(o.Stdin, o.Stdout, o.Stderr, o.TTY), "attach", o.Container, true)
	if err != nil {
		return nil, err
	}
	return t.translated(responder, translator.Options{Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Tty: o.TTY}), nil
}

// New implements rest.Storage.
func (*PortForward) New() runtime.Object { return &corev1.PodPortForwardOptions{} }

// NewConnectOptions implements rest.Connecter.
func (*PortForward) NewConnectOptions() (runtime.Object, bool, string) {
	return &corev1.PodPortForwardOptions{}, false, ""
}

// Connect implements rest.Connecter.
func (r *PortForward) Connect(ctx context.Context, name string, opts runtime.Object, responder rest.Responder) (http.Handler, error) {
	o, ok := opts.(*corev1.PodPortForwardOptions)
	if !ok {
		return nil, fmt.Errorf("invalid options object: %T", opts)
	}
	q := url.Values{}
	if len(o.Ports) > 0 {
		var ports []string
		for _, p := range o.Ports {
			ports = append(ports, strconv.Itoa(int(p)))
		}
		q.Set(corev1.PortHeader, strings.Join(ports, ","))
	}
	t, err := r.target(ctx, name, q, "portForward", "", false)
	if err != nil {
		return nil, err
	}
	through := t.handler(responder)
	return translator.NewTranslatingHandler(through, translator.NewTunnelingHandler(through), wsstream.IsWebSocketRequestWithTunnelingProtocol), nil
}
