package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/clock"
	testclock "k8s.io/utils/clock/testing"
	utilexec "k8s.io/utils/exec"
)

type fakeExec func(cmd []string) ([]byte, error)

func (f fakeExec) ExecSync(_ context.Context, _ string, cmd []string, _ time.Duration) ([]byte, []byte, error) {
	out, err := f(cmd)
	return out, nil, err
}

func target(t *testing.T, address string) (Target, int) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(port)
	return Target{IP: host, Container: &corev1.Container{Name: "a", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: int32(n)}}}}, n
}

func TestHTTP(t *testing.T) {
	var seen *http.Request
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r
		switch r.URL.Path {
		case "/bad":
			w.WriteHeader(500)
		case "/away":
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		case "/here":
			http.Redirect(w, r, "/ok", http.StatusFound)
		case "/slow":
			time.Sleep(300 * time.Millisecond)
		case "/early":
			w.Header().Set("Link", "</a>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			fmt.Fprint(w, "early")
		case "/endless":
			for {
				if _, err := fmt.Fprintln(w, strings.Repeat("x", 1000)); err != nil {
					return
				}
				w.(http.Flusher).Flush()
			}
		}
	}))
	defer srv.Close()
	u, _ := url.Parse(srv.URL)
	tg, _ := target(t, u.Host)
	h := New(nil, "1.37")
	get := func(path string, timeout time.Duration, headers ...corev1.HTTPHeader) Outcome {
		return h.Attempt(t.Context(), corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("web"), HTTPHeaders: headers}}, timeout, tg)
	}
	if o := get("/ok?q=1", time.Second, corev1.HTTPHeader{Name: "Host", Value: "example.com"}, corev1.HTTPHeader{Name: "X-A", Value: "1"}); !o.OK || o.Warning {
		t.Errorf("%+v", o)
	}
	if seen.Host != "example.com" || seen.Header.Get("X-A") != "1" || seen.UserAgent() != "kube-probe/1.37" || seen.URL.RawQuery != "q=1" {
		t.Errorf("request %+v", seen)
	}
	if o := get("/bad", time.Second); o.OK || o.Output != "HTTP probe failed with statuscode: 500" {
		t.Errorf("%+v", o)
	}
	if o := get("/away", time.Second); !o.OK || !o.Warning {
		t.Errorf("%+v", o)
	}
	if o := get("/here", time.Second); !o.OK || o.Warning {
		t.Errorf("%+v", o)
	}
	if o := get("/slow", 50*time.Millisecond); o.OK || o.Err != nil || o.Output != `Get "`+srv.URL+`/slow": context deadline exceeded (Client.Timeout exceeded while awaiting headers)` {
		t.Errorf("%+v", o)
	}
	if o := get("/early", time.Second); !o.OK || o.Output != "early" {
		t.Errorf("%+v", o)
	}
	began := time.Now()
	if o := get("/endless", 10*time.Second); !o.OK || len(o.Output) != maxOutput || time.Since(began) > 5*time.Second {
		t.Errorf("%v, %d bytes after %v", o.OK, len(o.Output), time.Since(began))
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	gone, _ := target(t, closed.Addr().String())
	if o := h.Attempt(t.Context(), corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromString("web")}}, time.Second, gone); o.OK ||
		o.Output != `Get "http://`+closed.Addr().String()+`/": dial tcp `+closed.Addr().String()+`: connect: connection refused` {
		t.Errorf("%+v", o)
	}
	if o := h.Attempt(t.Context(), corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromString("none")}}, time.Second, tg); o.Err == nil {
		t.Errorf("a port that is not there: %+v", o)
	}
}

func TestTCPAndGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	hs := health.NewServer()
	hs.SetServingStatus("sick", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(srv, hs)
	go srv.Serve(l)
	tg, port := target(t, l.Addr().String())
	h := New(nil, "1.37")
	tcp := corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(int32(port))}}
	if o := h.Attempt(t.Context(), tcp, time.Second, tg); !o.OK {
		t.Errorf("%+v", o)
	}
	sick := "sick"
	if o := h.Attempt(t.Context(), corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: int32(port)}}, time.Second, tg); !o.OK {
		t.Errorf("%+v", o)
	}
	if o := h.Attempt(t.Context(), corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: int32(port), Service: &sick}}, time.Second, tg); o.OK || !strings.Contains(o.Output, "NOT_SERVING") {
		t.Errorf("%+v", o)
	}
	srv.Stop()
	if o := h.Attempt(t.Context(), tcp, time.Second, tg); o.OK || !strings.Contains(o.Output, "connection refused") {
		t.Errorf("%+v", o)
	}
	if o := h.Attempt(t.Context(), corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: int32(port)}}, 100*time.Millisecond, tg); o.OK {
		t.Errorf("%+v", o)
	}
}

func TestExec(t *testing.T) {
	tg := Target{Container: &corev1.Container{Env: []corev1.EnvVar{{Name: "A", Value: "1"}}}}
	for _, tc := range []struct {
		err  error
		want Outcome
	}{
		{nil, Outcome{OK: true, Output: "out"}},
		{utilexec.CodeExitError{Err: errors.New("x"), Code: 2}, Outcome{Output: "out"}},
		{status.Error(codes.DeadlineExceeded, "x"), Outcome{Output: `command timed out: "cat 1" timed out after 1s`}},
	} {
		h := New(fakeExec(func([]string) ([]byte, error) { return []byte("out"), tc.err }), "1.37")
		if got := h.Attempt(t.Context(), corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"cat", "$(A)"}}}, time.Second, tg); got != tc.want {
			t.Errorf("%+v, want %+v", got, tc.want)
		}
	}
	h := New(fakeExec(func([]string) ([]byte, error) { return nil, errors.New("gone") }), "1.37")
	if got := h.Attempt(t.Context(), corev1.ProbeHandler{Exec: &corev1.ExecAction{}}, time.Second, tg); got.Err == nil {
		t.Errorf("%+v", got)
	}
}

// TestThresholds lets a probe answer as told and looks at what it reports.
func TestThresholds(t *testing.T) {
	for _, tc := range []struct {
		kind    Kind
		probe   corev1.Probe
		answers string
		want    string
		ends    bool
	}{
		{Readiness, corev1.Probe{FailureThreshold: 3, SuccessThreshold: 2}, "yynnyynnnnyy", ".+......-..+", false},
		{Liveness, corev1.Probe{FailureThreshold: 2, SuccessThreshold: 1}, "ynynn", "+...-", true},
		{Liveness, corev1.Probe{FailureThreshold: 2, SuccessThreshold: 1}, "yeeneen", "+.....-", true},
		{Startup, corev1.Probe{FailureThreshold: 3, SuccessThreshold: 1}, "nny", "..+", true},
		{Startup, corev1.Probe{FailureThreshold: 3, SuccessThreshold: 1}, "nnn", "..-", true},
	} {
		c := testclock.NewFakeClock(time.Unix(0, 0))
		asked := make(chan int)
		n := 0
		h := New(fakeExec(func([]string) ([]byte, error) {
			asked <- n
			answer := tc.answers[n]
			n++
			switch answer {
			case 'y':
				return nil, nil
			case 'e':
				return nil, errors.New("it cannot be asked")
			}
			return nil, utilexec.CodeExitError{Code: 1, Err: errors.New("no")}
		}), "1.37")
		tc.probe.Exec, tc.probe.PeriodSeconds, tc.probe.InitialDelaySeconds = &corev1.ExecAction{}, 5, 7
		got := make([]byte, 0, len(tc.answers))
		reports := make(chan bool, 1)
		done := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			defer close(done)
			h.Run(ctx, Watch{Kind: tc.kind, Probe: &tc.probe, Target: Target{Container: &corev1.Container{}}, Started: c.Now(), Clock: clock.Clock(c),
				Report: func(ok bool) { reports <- ok }, Event: func(string, string) {}})
		}()
		for i := range tc.answers {
			for !c.HasWaiters() {
				time.Sleep(time.Millisecond)
			}
			if i == 0 {
				c.Step(7 * time.Second)
			} else {
				c.Step(5 * time.Second)
			}
			<-asked
			for k := 0; k < 50 && !c.HasWaiters(); k++ {
				select {
				case <-done:
					k = 50
				case <-time.After(time.Millisecond):
				}
			}
			select {
			case ok := <-reports:
				got = append(got, map[bool]byte{true: '+', false: '-'}[ok])
			default:
				got = append(got, '.')
			}
		}
		if string(got) != tc.want {
			t.Errorf("%s %s: %s, want %s", tc.kind, tc.answers, got, tc.want)
		}
		if tc.ends {
			<-done
		}
		cancel()
		<-done
	}
}

func TestHooks(t *testing.T) {
	h := New(fakeExec(func([]string) ([]byte, error) { return []byte("why"), errors.New("boom") }), "1.37")
	tg := Target{Container: &corev1.Container{Name: "a"}}
	err := h.Hook(t.Context(), clock.RealClock{}, &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"x"}}}, tg)
	if err == nil || !strings.Contains(err.Error(), `failed - error: boom, message: "why"`) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Hook(ctx, clock.RealClock{}, &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 100}}, tg); err == nil {
		t.Error("a sleep that was broken off succeeded")
	}
	if err := h.Hook(t.Context(), clock.RealClock{}, &corev1.LifecycleHandler{}, tg); err == nil {
		t.Error("an empty hook succeeded")
	}
}

// TestHTTPHooks: a hook is done once something answers, whatever it says, also in plain HTTP where HTTPS was asked for.
func TestHTTPHooks(t *testing.T) {
	h := New(fakeExec(func([]string) ([]byte, error) { return nil, nil }), "1.37")
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path+" "+r.Header.Get("User-Agent")+" "+r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusTeapot)
	}))
	defer server.Close()
	host, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	tg := Target{Container: &corev1.Container{Name: "a"}, IP: host}
	hook := func(scheme corev1.URIScheme, port string) error {
		return h.Hook(t.Context(), clock.RealClock{}, &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/x", Port: intstr.Parse(port), Scheme: scheme,
			HTTPHeaders: []corev1.HTTPHeader{{Name: "Authorization", Value: "s"}}}}, tg)
	}
	for _, scheme := range []corev1.URIScheme{"", "HTTP", "HTTPS"} {
		if err := hook(scheme, port); err != nil {
			t.Errorf("%q: %v", scheme, err)
		}
	}
	if diff := gocmp.Diff([]string{"/x kube-lifecycle/1.37 s", "/x kube-lifecycle/1.37 s", "/x kube-lifecycle/1.37 "}, asked); diff != "" {
		t.Error(diff)
	}
	server.Close()
	if err := hook("HTTP", port); err == nil {
		t.Error("a hook succeeded where nothing answers")
	}
}
