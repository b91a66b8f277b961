// Package cri serves a Pod runtime to other processes: the CRI's gRPC services on a unix socket, and the URLs that Exec, Attach and
// PortForward answer with.
//
// It may import the CRI's Go interfaces, gRPC and cri-streaming, nothing of Carob. Invariants: a call means what it means in process
// (only its shape changes), errors keep their gRPC code, and no TCP port is open before the first URL is asked for.
package cri

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
)

// maxMessage is the longest request and answer in bytes, the same as kubelet and crictl allow.
const maxMessage = 16 << 20

// Runtime is what is served: the CRI in process. Running returns an error with the right code unless the container runs, and
// ReadySandbox unless the sandbox is ready; both return the full ID.
type Runtime interface {
	cri.RuntimeService
	Streaming() streaming.Runtime
	Running(containerID string) (string, error)
	ReadySandbox(sandboxID string) (string, error)
}

// Config is what a Server needs.
type Config struct {
	Runtime Runtime
	Images  cri.ImageManagerService
	// Socket is the path of the unix socket. It is made with mode 0600; a stale one is replaced.
	Socket string
	Log    *slog.Logger
}

// Server serves one runtime.
type Server struct {
	cfg      Config
	grpc     *grpc.Server
	listener net.Listener
	urls     *urls
}

// Listen opens the socket. Serve must follow, or Close.
func Listen(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	l, err := listen(cfg.Socket)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, listener: l, urls: &urls{runtime: cfg.Runtime.Streaming()}}
	s.grpc = grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage), grpc.ChainUnaryInterceptor(s.answer))
	runtimeapi.RegisterRuntimeServiceServer(s.grpc, &runtimeService{r: cfg.Runtime, urls: s.urls, ending: s.urls.ending()})
	runtimeapi.RegisterImageServiceServer(s.grpc, &imageService{i: cfg.Images})
	return s, nil
}

// listen makes a socket that root alone can connect to. Until its mode is set, that is so by the umask: others may not write. The umask is the
// whole process's, and folders that are being made elsewhere want theirs.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, err
	}
	if err := unix.Unlink(path); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("replace %s: %w", path, err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(path, 0o600)
}

// Serve answers until ctx ends; calls that are being answered are given a moment.
func (s *Server) Serve(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() { failed <- s.grpc.Serve(s.listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	return errors.Join(ctx.Err(), s.Close())
}

// goodbye is how long calls may go on once the server ends.
const goodbye = time.Second

// Close ends the server and what hangs on its URLs.
func (s *Server) Close() error {
	err := s.urls.close()
	t := time.AfterFunc(goodbye, s.grpc.Stop)
	defer t.Stop()
	s.grpc.GracefulStop()
	return err
}

// answer notes each call and how it ended, for debugging.
func (s *Server) answer(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	began := time.Now()
	resp, err := handle(ctx, req)
	if err != nil {
		err = coded(err)
		s.cfg.Log.Debug("CRI call failed", "method", info.FullMethod, "code", status.Code(err).String(), "error", err, "took", time.Since(began))
		return nil, err
	}
	s.cfg.Log.Debug("CRI call", "method", info.FullMethod, "took", time.Since(began))
	return resp, nil
}

// coded gives an error that has no code, and says that time ran out or the caller left, that code. One that wraps an error with a code is
// worded without that code's own words in the middle.
func coded(err error) error {
	if s, ok := status.FromError(err); ok {
		var inner interface{ GRPCStatus() *status.Status }
		if errors.As(err, &inner) {
			return status.Error(s.Code(), strings.Replace(err.Error(), inner.GRPCStatus().Err().Error(), inner.GRPCStatus().Message(), 1))
		}
		return err
	}
	for cause, code := range map[error]codes.Code{context.DeadlineExceeded: codes.DeadlineExceeded, context.Canceled: codes.Canceled} {
		if errors.Is(err, cause) {
			return status.Error(code, err.Error())
		}
	}
	return err
}
