package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	clientexec "k8s.io/client-go/util/exec"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	portforwardserver "k8s.io/cri-streaming/pkg/streaming/portforward"
	remotecommandserver "k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
	utilexec "k8s.io/utils/exec"
)

type streams struct{ r *Runtime }

// Streaming returns exec, attach and port-forward: each asks the runtime for an address, connects there and joins the streams. SPDY is what
// all runtimes speak, whatever the client speaks.
func (r *Runtime) Streaming() streaming.Runtime { return streams{r} }

// Exec runs a command with the given streams, any of which may be nil. It returns an utilexec.CodeExitError when the command ends with
// another code than 0.
func (s streams) Exec(ctx context.Context, containerID string, cmd []string, in io.Reader, out, errOut io.WriteCloser, tty bool,
	resize <-chan remotecommandserver.TerminalSize) error {
	resp, err := s.r.RuntimeService.Exec(ctx, &runtimeapi.ExecRequest{ContainerId: containerID, Cmd: cmd, Tty: tty, Stdin: in != nil, Stdout: out != nil,
		Stderr: errOut != nil && !tty})
	if err != nil {
		return fmt.Errorf("failed to exec in container: %w", err)
	}
	return join(ctx, resp.GetUrl(), in, out, errOut, tty, resize)
}

// Attach joins the streams to those of a running container until it ends or ctx does.
func (s streams) Attach(ctx context.Context, containerID string, in io.Reader, out, errOut io.WriteCloser, tty bool,
	resize <-chan remotecommandserver.TerminalSize) error {
	resp, err := s.r.RuntimeService.Attach(ctx, &runtimeapi.AttachRequest{ContainerId: containerID, Tty: tty, Stdin: in != nil, Stdout: out != nil,
		Stderr: errOut != nil && !tty})
	if err != nil {
		return fmt.Errorf("attach to container %s: %w", containerID, err)
	}
	return join(ctx, resp.GetUrl(), in, out, errOut, tty, resize)
}

// transport speaks SPDY with a server of this machine. Its address came over the runtime's socket and holds a secret that is good once, so
// a certificate that nobody vouches for is no worse than none.
func transport() (http.RoundTripper, spdy.Upgrader, error) {
	direct := func(*http.Request) (*url.URL, error) { return nil, nil }
	return spdy.RoundTripperFor(&rest.Config{Proxy: direct, TLSClientConfig: rest.TLSClientConfig{Insecure: true}})
}

func address(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err == nil && (u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		err = errors.New("want http://host or https://host")
	}
	if err != nil {
		return nil, fmt.Errorf("the runtime answered with the address %q: %w", s, err)
	}
	return u, nil
}

func join(ctx context.Context, at string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommandserver.TerminalSize) error {
	u, err := address(at)
	if err != nil {
		return err
	}
	rt, upgrader, err := transport()
	if err != nil {
		return err
	}
	e, err := remotecommand.NewSPDYExecutorRejectRedirects(rt, upgrader, http.MethodPost, u)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o := remotecommand.StreamOptions{Stdin: in, Tty: tty}
	if out != nil {
		o.Stdout = out
	}
	if errOut != nil && !tty {
		o.Stderr = errOut
	}
	if tty && resize != nil {
		o.TerminalSizeQueue = sizes{ctx, resize}
	}
	err = e.StreamWithContext(ctx, o)
	var exit clientexec.CodeExitError
	if errors.As(err, &exit) {
		return utilexec.CodeExitError{Err: exit.Err, Code: exit.Code}
	}
	return err
}

// sizes hands on the sizes of the client's terminal.
type sizes struct {
	ctx    context.Context
	resize <-chan remotecommandserver.TerminalSize
}

func (q sizes) Next() *remotecommand.TerminalSize {
	select {
	case s, ok := <-q.resize:
		if !ok {
			return nil
		}
		return &remotecommand.TerminalSize{Width: s.Width, Height: s.Height}
	case <-q.ctx.Done():
		return nil
	}
}

// PortForward joins stream to a port of the Pod until either side ends.
func (s streams) PortForward(ctx context.Context, sandboxID string, port int32, stream io.ReadWriteCloser) error {
	resp, err := s.r.RuntimeService.PortForward(ctx, &runtimeapi.PortForwardRequest{PodSandboxId: sandboxID, Port: []int32{port}})
	if err != nil {
		return err
	}
	u, err := address(resp.GetUrl())
	if err != nil {
		return err
	}
	rt, upgrader, err := transport()
	if err != nil {
		return err
	}
	conn, _, err := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: rt}, http.MethodPost, u).Dial(portforwardserver.ProtocolV1Name)
	if err != nil {
		return fmt.Errorf("connect to the runtime's port-forward: %w", err)
	}
	defer conn.Close()
	return forward(ctx, conn, port, stream)
}

func forward(ctx context.Context, conn httpstream.Connection, port int32, stream io.ReadWriteCloser) error {
	headers := http.Header{}
	headers.Set(portforwardserver.PortHeader, fmt.Sprint(port))
	headers.Set(portforwardserver.PortForwardRequestIDHeader, "0")
	headers.Set(portforwardserver.StreamType, portforwardserver.StreamTypeError)
	errs, err := conn.CreateStream(headers)
	if err != nil {
		return fmt.Errorf("open the error stream: %w", err)
	}
	errs.Close() // nothing is written to it
	headers.Set(portforwardserver.StreamType, portforwardserver.StreamTypeData)
	data, err := conn.CreateStream(headers)
	if err != nil {
		return fmt.Errorf("open the data stream: %w", err)
	}
	trouble := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(io.LimitReader(errs, 4096))
		trouble <- string(text)
	}()
	go func() { // ends with the client's stream, or at the first write after the Pod's side has gone
		io.Copy(data, stream)
		data.Close()
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(stream, data)
	}()
	select {
	case <-done:
	case <-conn.CloseChan():
	case <-ctx.Done():
		stream.Close()
		return ctx.Err()
	}
	select { // the runtime ends the error stream first
	case text := <-trouble:
		if text != "" {
			err = errors.New(text)
		}
	case <-conn.CloseChan():
	case <-ctx.Done():
	}
	stream.Close() // the client may have closed it already
	return err
}
