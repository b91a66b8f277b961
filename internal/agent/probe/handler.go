package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilexec "k8s.io/utils/exec"
)

const maxOutput = 10 << 10

// Exec runs a command in a container: the CRI's ExecSync.
type Exec interface {
	ExecSync(ctx context.Context, containerID string, cmd []string, timeout time.Duration) (stdout, stderr []byte, err error)
}

// Target is a running container and how to reach it.
type Target struct {
	Container   *corev1.Container
	ContainerID string
	// IP is the Pod's.
	IP string
}

// Outcome is what one attempt showed.
type Outcome struct {
	OK bool
	// Warning says that it was well but odd.
	Warning bool
	Output  string
	// Err says that the attempt could not be made.
	Err error
}

// Handlers makes attempts.
type Handlers struct {
	exec      Exec
	userAgent string
	transport http.RoundTripper
}

// New returns Handlers. version is the Kubernetes version to name to HTTP servers, as 1.37.
func New(exec Exec, version string) *Handlers {
	return &Handlers{exec: exec, userAgent: "kube-probe/" + version, transport: oneShot{dialer.DialContext, &http.Transport{DisableKeepAlives: true, DisableCompression: true,
		DialContext:     dialer.DialContext,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}} //nolint:gosec // a probe proves that something answers, not who
}

// dialer makes connections that do not linger: no port of the node stays taken for a minute after each probe.
var dialer = &net.Dialer{Control: shortLinger}

// Attempt probes once, within the probe's timeout.
func (h *Handlers) Attempt(ctx context.Context, p corev1.ProbeHandler, timeout time.Duration, t Target) Outcome {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	switch {
	case p.Exec != nil:
		return h.command(ctx, p.Exec.Command, timeout, t)
	case p.HTTPGet != nil:
		return h.get(ctx, p.HTTPGet, t)
	case p.TCPSocket != nil:
		return connect(ctx, p.TCPSocket, t)
	case p.GRPC != nil:
		return h.health(ctx, p.GRPC, timeout, t)
	}
	return Outcome{Err: fmt.Errorf("missing probe handler for %s", t.Container.Name)}
}

func (h *Handlers) command(ctx context.Context, cmd []string, timeout time.Duration, t Target) Outcome {
	cmd = expand(cmd, t.Container)
	out, errOut, err := h.exec.ExecSync(ctx, t.ContainerID, cmd, timeout)
	text := string(append(out, errOut...))
	if len(text) > maxOutput {
		text = text[:maxOutput]
	}
	var exit utilexec.ExitError
	switch {
	case err == nil:
		return Outcome{OK: true, Output: text}
	case errors.As(err, &exit):
		return Outcome{OK: exit.ExitStatus() == 0, Output: text}
	case status.Code(err) == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded):
		return Outcome{Output: fmt.Sprintf("command timed out: %q timed out after %v", strings.Join(cmd, " "), timeout)}
	}
	return Outcome{Err: err}
}

// expand puts the container's own literal variables into the command.
func expand(cmd []string, c *corev1.Container) []string {
	pairs := []string{"$$", "$"}
	for _, e := range c.Env {
		if e.ValueFrom == nil {
			pairs = append(pairs, "$("+e.Name+")", e.Value)
		}
	}
	r := strings.NewReplacer(pairs...)
	out := make([]string, len(cmd))
	for i, s := range cmd {
		out[i] = r.Replace(s)
	}
	return out
}

// port finds a port by number or by its name in the container.
func port(p intstr.IntOrString, c *corev1.Container) (int, error) {
	n := p.IntValue()
	if p.Type == intstr.String {
		n = 0
		for _, cp := range c.Ports {
			if cp.Name == p.StrVal {
				n = int(cp.ContainerPort)
			}
		}
		if n == 0 {
			var err error
			if n, err = strconv.Atoi(p.StrVal); err != nil {
				return 0, fmt.Errorf("couldn't find port: %s in container: %s", p.StrVal, c.Name)
			}
		}
	}
	if n < 1 || n > 65535 {
		return 0, fmt.Errorf("invalid port number: %v", n)
	}
	return n, nil
}

// request is that of a probe or a hook; kind is which, as servers are told.
func (h *Handlers) request(ctx context.Context, a *corev1.HTTPGetAction, t Target, kind string) (*http.Request, error) {
	n, err := port(a.Port, t.Container)
	if err != nil {
		return nil, err
	}
	host := a.Host
	if host == "" {
		host = t.IP
	}
	u, err := url.Parse(a.Path)
	if err != nil {
		u = &url.URL{Path: a.Path}
	}
	u.Scheme = strings.ToLower(string(a.Scheme))
	if u.Scheme == "" {
		u.Scheme = "http"
	}
	u.Host = net.JoinHostPort(host, strconv.Itoa(n))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for _, hd := range a.HTTPHeaders {
		if strings.EqualFold(hd.Name, "host") {
			req.Host = hd.Value
		} else {
			req.Header.Add(hd.Name, hd.Value)
		}
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		agent := h.userAgent
		if kind != "probe" {
			agent = strings.Replace(agent, "kube-probe", "kube-"+kind, 1)
		}
		req.Header.Set("User-Agent", agent)
	}
	if _, ok := req.Header["Accept"]; !ok {
		req.Header.Set("Accept", "*/*")
	} else if req.Header.Get("Accept") == "" {
		req.Header.Del("Accept")
	}
	return req, nil
}

// get makes the request and takes what answers in the 200s and 300s for success.
func (h *Handlers) get(ctx context.Context, a *corev1.HTTPGetAction, t Target) Outcome {
	req, err := h.request(ctx, a, t, "probe")
	if err != nil {
		return Outcome{Err: err}
	}
	client := &http.Client{Transport: h.transport, CheckRedirect: stayOnHost}
	res, err := client.Do(req)
	if err != nil {
		return Outcome{Output: err.Error()}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxOutput))
	if err != nil {
		return Outcome{Output: err.Error()}
	}
	switch {
	case res.StatusCode >= 300 && res.StatusCode < 400:
		return Outcome{OK: true, Warning: true, Output: fmt.Sprintf("Probe terminated redirects, Response body: %s", body)}
	case res.StatusCode >= 200 && res.StatusCode < 300:
		return Outcome{OK: true, Output: string(body)}
	}
	return Outcome{Output: fmt.Sprintf("HTTP probe failed with statuscode: %d", res.StatusCode)}
}

func stayOnHost(req *http.Request, via []*http.Request) error {
	if req.URL.Hostname() != via[0].URL.Hostname() {
		return http.ErrUseLastResponse
	}
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	return nil
}

func connect(ctx context.Context, a *corev1.TCPSocketAction, t Target) Outcome {
	n, err := port(a.Port, t.Container)
	if err != nil {
		return Outcome{Err: err}
	}
	host := a.Host
	if host == "" {
		host = t.IP
	}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(n)))
	if err != nil {
		return Outcome{Output: err.Error()}
	}
	conn.Close()
	return Outcome{OK: true}
}

func (h *Handlers) health(ctx context.Context, a *corev1.GRPCAction, timeout time.Duration, t Target) Outcome {
	service := ""
	if a.Service != nil {
		service = *a.Service
	}
	addr := net.JoinHostPort(t.IP, strconv.Itoa(int(a.Port)))
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithUserAgent(h.userAgent), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", addr) }))
	if err != nil {
		return Outcome{Output: fmt.Sprintf("error: failed to connect service at %q: %+v", addr, err)}
	}
	defer conn.Close()
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service}, grpc.WaitForReady(true))
	switch status.Code(err) {
	case codes.OK:
	case codes.Unimplemented:
		return Outcome{Output: "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): " + status.Convert(err).Message()}
	case codes.DeadlineExceeded:
		return Outcome{Output: fmt.Sprintf("timeout: failed to connect service %q within %v: %+v", addr, timeout, context.DeadlineExceeded)}
	default:
		return Outcome{Output: fmt.Sprintf("error: health rpc probe failed: %+v", err)}
	}
	if resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return Outcome{Output: fmt.Sprintf("service unhealthy (responded with %q)", resp.GetStatus())}
	}
	return Outcome{OK: true, Output: "service healthy"}
}
