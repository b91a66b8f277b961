package apiserver_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"carob.dev/carob/internal/apiserver"
	"carob.dev/carob/internal/pki"
	"carob.dev/carob/internal/store"
)

// fixture is a running server with clients.
type fixture struct {
	*apiserver.Server
	pki   *pki.PKI
	admin *rest.Config         // over TLS
	kube  kubernetes.Interface // of the admin
	own   kubernetes.Interface // in process, as a controller
}

type option func(*apiserver.Config)

// withNode makes base and rt the way to the node n1.
func withNode(base *url.URL, rt http.RoundTripper) option {
	return func(c *apiserver.Config) {
		c.NodeTransport = func(_ context.Context, node string) (*url.URL, http.RoundTripper, error) {
			if node != "n1" {
				return nil, nil, apierrors.NewNotFound(corev1.Resource("nodes"), node)
			}
			return base, rt, nil
		}
	}
}

func start(t testing.TB, opts ...option) *fixture {
	t.Helper()
	return startIn(t, t.TempDir(), opts...)
}

func startIn(t testing.TB, dir string, opts ...option) *fixture {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	st, err := store.Open(ctx, store.Config{Dir: dir + "/store", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := pki.Open(dir+"/pki", pki.Config{NodeName: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	cfg := apiserver.Config{
		Store: st, PKI: keys, Bind: netip.MustParseAddrPort("127.0.0.1:0"), Advertise: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		ServiceCIDR: netip.MustParsePrefix("10.43.0.0/16"), Log: slog.New(slog.DiscardHandler),
	}
	for _, o := range opts {
		o(&cfg)
	}
	s, err := apiserver.New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the server did not stop")
		}
		if err := st.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	select {
	case <-s.Ready():
	case <-time.After(20 * time.Second):
		t.Fatal("not ready")
	}
	f := &fixture{Server: s, pki: keys}
	raw, err := keys.AdminKubeconfig("https://" + s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if f.admin, err = clientcmd.RESTConfigFromKubeConfig(raw); err != nil {
		t.Fatal(err)
	}
	f.admin.QPS = -1
	f.admin.WarningHandler = rest.NoWarnings{}
	f.kube = kubernetes.NewForConfigOrDie(f.admin)
	f.own = kubernetes.NewForConfigOrDie(s.ClientConfig("system:serviceaccount:kube-system:replicaset-controller"))
	return f
}

// as is a client over TLS with a certificate of its own.
func (f *fixture) as(t *testing.T, user string, groups ...string) kubernetes.Interface {
	t.Helper()
	cert, key, err := f.pki.ClientCert(user, groups...)
	if err != nil {
		t.Fatal(err)
	}
	c := rest.CopyConfig(f.admin)
	c.CertData, c.KeyData = cert, key
	return kubernetes.NewForConfigOrDie(c)
}

// account makes the default service account, as its controller would.
func (f *fixture) account(t *testing.T, namespace string) *corev1.ServiceAccount {
	t.Helper()
	a, err := f.kube.CoreV1().ServiceAccounts(namespace).Create(t.Context(),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newPod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "busybox"}}},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func (f *fixture) pod(t *testing.T, p *corev1.Pod) *corev1.Pod {
	t.Helper()
	out, err := f.kube.CoreV1().Pods("default").Create(t.Context(), p, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
