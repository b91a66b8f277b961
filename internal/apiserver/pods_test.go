package apiserver_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	streamforward "k8s.io/cri-streaming/pkg/streaming/portforward"
	streamcommand "k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"carob.dev/carob/internal/apiserver/inproc"
)

// agent is a node agent's server, as far as the API server knows it.
func agent(t *testing.T) (*url.URL, http.RoundTripper) {
	t.Helper()
	m := http.NewServeMux()
	m.HandleFunc("/containerLogs/{ns}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("container") == "missing" {
			http.Error(w, "container \"missing\" is waiting to start", http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, "%s %s\n", r.PathValue("container"), r.URL.RawQuery)
	})
	m.HandleFunc("/exec/{ns}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		opts, err := streamcommand.NewOptions(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		streamcommand.ServeExec(w, r, echo{}, r.PathValue("pod"), "", r.PathValue("container"), r.URL.Query()["command"], opts,
			time.Minute, time.Minute, streamcommand.SupportedStreamingProtocols)
	})
	m.HandleFunc("/portForward/{ns}/{pod}", func(w http.ResponseWriter, r *http.Request) {
		opts, err := streamforward.NewV4Options(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		streamforward.ServePortForward(w, r, echo{}, r.PathValue("pod"), "", opts, time.Minute, time.Minute, streamforward.SupportedProtocols)
	})
	m.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	l := inproc.NewListener()
	s := &http.Server{Handler: m, ReadHeaderTimeout: time.Minute}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return &url.URL{Scheme: "http", Host: "agent"}, l.Transport(&user.DefaultInfo{Name: "system:kube-apiserver"}, false)
}

// echo runs a command that tells what it was, and forwards to a port that says who it is.
type echo struct{}

func (echo) ExecInContainer(
	_ context.Context, _, _, container string, cmd []string, in io.Reader, out, errOut io.WriteCloser, _ bool,
	_ <-chan streamcommand.TerminalSize, _ time.Duration,
) error {
	fmt.Fprintf(out, "%s %q ", container, cmd)
	if in != nil {
		io.Copy(out, in)
	}
	if errOut != nil {
		io.WriteString(errOut, "told")
	}
	return nil
}

func (echo) PortForward(_ context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	fmt.Fprintf(stream, "port %d", port)
	return stream.Close()
}

func on(node string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.NodeName = node }
}

func TestBinding(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	f.account(t, "default")
	p := f.pod(t, newPod("p"))
	api := f.kube.CoreV1().Pods("default")
	bind := func(uid types.UID, node string) error {
		return api.Bind(ctx, &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Name: "p", UID: uid}, Target: corev1.ObjectReference{Kind: "Node", Name: node},
		}, metav1.CreateOptions{})
	}
	if err := bind("other", "n1"); !apierrors.IsConflict(err) {
		t.Errorf("another Pod: %v", err)
	}
	if err := bind(p.UID, ""); !apierrors.IsInvalid(err) {
		t.Errorf("no node: %v", err)
	}
	if err := bind(p.UID, "n1"); err != nil {
		t.Fatal(err)
	}
	p = must[*corev1.Pod](t)(api.Get(ctx, "p", metav1.GetOptions{}))
	if p.Spec.NodeName != "n1" || len(p.Status.Conditions) == 0 || p.Status.Conditions[0].Type != corev1.PodScheduled {
		t.Errorf("bound: %q %+v", p.Spec.NodeName, p.Status.Conditions)
	}
	want := `Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "n1"`
	if err := bind(p.UID, "n2"); !apierrors.IsConflict(err) || err.Error() != want {
		t.Errorf("twice: %v", err)
	}
	if list := must[*corev1.PodList](t)(api.List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=n1"})); len(list.Items) != 1 {
		t.Errorf("%d Pods on n1", len(list.Items))
	}
	if list := must[*corev1.PodList](t)(api.List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=", ResourceVersion: "0"})); len(list.Items) != 0 {
		t.Errorf("%d Pods on none", len(list.Items))
	}
}

func TestPodDeleteAndEviction(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	f.account(t, "default")
	api := f.kube.CoreV1().Pods("default")
	f.pod(t, newPod("waiting"))
	if err := api.Delete(ctx, "waiting", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Get(ctx, "waiting", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a Pod that has no node goes at once: %v", err)
	}
	f.pod(t, newPod("p", on("n1")))
	evict := func() error {
		return api.EvictV1(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default"}})
	}
	if err := evict(); err != nil {
		t.Fatal(err)
	}
	p := must[*corev1.Pod](t)(api.Get(ctx, "p", metav1.GetOptions{}))
	if p.DeletionTimestamp == nil || p.DeletionGracePeriodSeconds == nil || *p.DeletionGracePeriodSeconds != 30 {
		t.Errorf("evicted: %+v", p.ObjectMeta)
	}
	why := ""
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.DisruptionTarget {
			why = c.Reason
		}
	}
	if why != "EvictionByEvictionAPI" {
		t.Errorf("reason %q", why)
	}
	if err := evict(); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestServiceAccountAdmission(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	f.account(t, "default")
	p := f.pod(t, newPod("p"))
	if p.Spec.ServiceAccountName != "default" || len(p.Spec.Volumes) != 1 || p.Spec.Containers[0].VolumeMounts[0].Name != p.Spec.Volumes[0].Name {
		t.Errorf("%+v", p.Spec)
	}
	no := false
	if q := f.pod(t, newPod("q", func(p *corev1.Pod) { p.Spec.AutomountServiceAccountToken = &no })); len(q.Spec.Volumes) != 0 {
		t.Errorf("a token nobody wanted: %+v", q.Spec.Volumes)
	}
	_, err := f.kube.CoreV1().Pods("default").Create(ctx, newPod("r", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "none" }), metav1.CreateOptions{})
	want := `pods "r" is forbidden: error looking up service account default/none: serviceaccount "none" not found`
	if !apierrors.IsForbidden(err) || err.Error() != want {
		t.Errorf("no such account: %v", err)
	}
	var seconds []int64
	for _, tol := range p.Spec.Tolerations {
		seconds = append(seconds, *tol.TolerationSeconds)
	}
	if !cmp.Equal(seconds, []int64{300, 300}) || p.Spec.Priority == nil || *p.Spec.Priority != 0 {
		t.Errorf("tolerations %v, priority %v", seconds, p.Spec.Priority)
	}
}

func TestLog(t *testing.T) {
	at, rt := agent(t)
	f := start(t, withNode(at, rt))
	ctx := t.Context()
	f.account(t, "default")
	f.pod(t, newPod("p", on("n1"), func(p *corev1.Pod) {
		p.Spec.InitContainers = []corev1.Container{{Name: "i", Image: "x"}}
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "missing", Image: "x"})
	}))
	f.pod(t, newPod("waiting"))
	read := func(pod string, opts *corev1.PodLogOptions) (string, error) {
		stream, err := f.kube.CoreV1().Pods("default").GetLogs(pod, opts).Stream(ctx)
		if err != nil {
			return "", err
		}
		defer stream.Close()
		raw, err := io.ReadAll(stream)
		return string(raw), err
	}
	lines := int64(3)
	got, err := read("p", &corev1.PodLogOptions{Container: "c", TailLines: &lines, Timestamps: true})
	if err != nil || got != "c stream=All&tailLines=3&timestamps=true\n" {
		t.Errorf("%q %v", got, err)
	}
	for _, tt := range []struct {
		pod  string
		opts corev1.PodLogOptions
		want string
	}{
		{"p", corev1.PodLogOptions{}, "a container name must be specified for pod p, choose one of: [i c missing]"},
		{"p", corev1.PodLogOptions{Container: "x"}, "container x is not valid for pod p"},
		{"p", corev1.PodLogOptions{Container: "missing"}, `container "missing" is waiting to start`},
		{"none", corev1.PodLogOptions{}, `pods "none" not found`},
	} {
		if _, err := read(tt.pod, &tt.opts); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %+v: %v", tt.pod, tt.opts, err)
		}
	}
	if got, err := read("waiting", &corev1.PodLogOptions{}); err != nil || got != "" {
		t.Errorf("a Pod without a node: %q %v", got, err)
	}
}

func TestExec(t *testing.T) {
	at, rt := agent(t)
	f := start(t, withNode(at, rt))
	f.account(t, "default")
	f.pod(t, newPod("p", on("n1")))
	target := f.kube.CoreV1().RESTClient().Post().Namespace("default").Resource("pods").Name("p").SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: []string{"a", "b c"}, Stdin: true, Stdout: true, Stderr: true}, scheme.ParameterCodec).URL()
	for _, way := range []string{"SPDY", "WebSocket"} {
		t.Run(way, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			var e remotecommand.Executor
			var err error
			if way == "SPDY" {
				e, err = remotecommand.NewSPDYExecutor(f.admin, http.MethodPost, target)
			} else {
				e, err = remotecommand.NewWebSocketExecutor(f.admin, http.MethodGet, target.String())
			}
			if err != nil {
				t.Fatal(err)
			}
			var out, errOut bytes.Buffer
			in := strings.Repeat("0123456789abcdef", 1<<16)
			if err := e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: strings.NewReader(in), Stdout: &out, Stderr: &errOut}); err != nil {
				t.Fatal(err)
			}
			if out.String() != `c ["a" "b c"] `+in || errOut.String() != "told" {
				t.Errorf("%d bytes, %q", out.Len(), errOut.String())
			}
		})
	}
}

func TestPortForward(t *testing.T) {
	at, rt := agent(t)
	f := start(t, withNode(at, rt))
	f.account(t, "default")
	f.pod(t, newPod("p", on("n1")))
	target := f.kube.CoreV1().RESTClient().Post().Namespace("default").Resource("pods").Name("p").SubResource("portforward").URL()
	for _, way := range []string{"SPDY", "WebSocket"} {
		t.Run(way, func(t *testing.T) {
			forward(t, f, way, target)
		})
	}
}

func TestNodeProxy(t *testing.T) {
	at, rt := agent(t)
	f := start(t, withNode(at, rt))
	ctx := t.Context()
	must[*corev1.Node](t)(f.kube.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, metav1.CreateOptions{}))
	raw, err := f.kube.CoreV1().RESTClient().Get().AbsPath("/api/v1/nodes/n1/proxy/healthz").DoRaw(ctx)
	if err != nil || string(raw) != "ok" {
		t.Errorf("%q %v", raw, err)
	}
	if _, err := f.kube.CoreV1().RESTClient().Get().AbsPath("/api/v1/nodes/n2/proxy/healthz").DoRaw(ctx); !apierrors.IsNotFound(err) {
		t.Errorf("no such node: %v", err)
	}
}

func forward(t *testing.T, f *fixture, way string, target *url.URL) {
	t.Helper()
	stop, ready := make(chan struct{}), make(chan struct{})
	rt, upgrader, err := spdy.RoundTripperFor(f.admin)
	if err != nil {
		t.Fatal(err)
	}
	dial := spdy.NewDialer(upgrader, &http.Client{Transport: rt}, http.MethodPost, target)
	if way == "WebSocket" {
		if dial, err = portforward.NewSPDYOverWebsocketDialer(target, f.admin); err != nil {
			t.Fatal(err)
		}
	}
	pf, err := portforward.NewOnAddresses(dial, []string{"127.0.0.1"}, []string{"0:8080"}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- pf.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	ports, err := pf.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[0].Local))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	got, err := io.ReadAll(c)
	if err != nil || string(got) != "port 8080" {
		t.Errorf("%q %v", got, err)
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
