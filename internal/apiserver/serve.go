package apiserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"carob.dev/carob/internal/apiserver/inproc"
)

const (
	// drain is how long requests in flight have to end when the server stops. Watches end after them.
	drain = 2 * time.Second
	// farewell is how long the last words to clients may take.
	farewell = 50 * time.Millisecond
	// readyPoll is how often the caches are looked at while the server starts, and only then.
	readyPoll = time.Millisecond
)

// Run serves until ctx ends, then lets requests in flight end and closes the storage of the registries. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	prepared := s.generic.PrepareRun()
	requests, endRequests := context.WithCancel(context.WithoutCancel(ctx))
	defer endRequests()
	servers := []*http.Server{s.server(requests), s.server(requests)}
	secure := tls.NewListener(keepAlive{s.tcp}, &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: s.cfg.PKI.ServingCert().GetCertificate,
		ClientAuth:     tls.RequestClientCert, // whose it is, the authenticator finds out
		NextProtos:     []string{"h2", "http/1.1"},
	})
	servers[1].Protocols.SetHTTP2(false)
	servers[1].Protocols.SetUnencryptedHTTP2(true)

	failed := make(chan error, 2)
	var wg sync.WaitGroup
	for i, l := range []net.Listener{secure, s.own} {
		wg.Go(func() {
			if err := servers[i].Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("API server: serve on %s: %w", l.Addr(), err)
			}
		})
	}
	prepared.RunPostStartHooks(ctx)
	work, endWork := context.WithCancel(ctx)
	defer endWork()
	err := s.start(work)
	if err == nil {
		s.readyOnce.Do(func() { close(s.ready) })
		select {
		case <-ctx.Done():
		case err = <-failed:
		}
	}
	if ctx.Err() != nil {
		err = nil // told to stop, whether it was ready or not
	}
	endWork()
	s.stop(servers, endRequests)
	wg.Wait()
	s.policy.Wait()
	s.keeping.Wait()
	return err
}

func (s *Server) server(requests context.Context) *http.Server {
	srv := &http.Server{
		Handler:           s.generic.Handler,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ConnContext:       inproc.ConnContext,
		MaxHeaderBytes:    1 << 20,
		IdleTimeout:       90 * time.Second,
		ReadHeaderTimeout: 32 * time.Second,
		ErrorLog:          log.New(handshakes{s.cfg.Log}, "", 0),
		Protocols:         &http.Protocols{},
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 250, MaxReadFrameSize: 256 << 10,
			MaxReceiveBufferPerStream: 256 << 10, MaxReceiveBufferPerConnection: 4 << 20,
		},
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(true)
	return srv
}

// start waits for the storage and makes what every cluster has. Until it has read the roles, only system:masters and the controllers of this
// process are answered; everyone else waits. What it starts ends with ctx.
func (s *Server) start(ctx context.Context) error {
	for _, st := range s.stores {
		for st.ReadinessCheck() != nil {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(readyPoll):
			}
		}
	}
	return s.bootstrap(ctx)
}

// stop lets requests in flight end, then watches and streams, then closes all.
func (s *Server) stop(servers []*http.Server, endRequests context.CancelFunc) {
	bounded, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	var wg sync.WaitGroup
	for _, srv := range servers {
		wg.Go(func() { _ = srv.Shutdown(bounded) }) // takes no more, and tells clients so
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.generic.NonLongRunningRequestWaitGroup.Wait()
	}()
	select {
	case <-served:
	case <-bounded.Done():
	}
	endRequests()
	idle := make(chan struct{})
	go func() {
		defer close(idle)
		wg.Wait()
	}()
	select {
	case <-idle:
	case <-time.After(farewell):
		cancel()
	}
	for _, srv := range servers {
		srv.Close()
	}
	<-idle
	s.own.Close()
	s.tcp.Close()
	s.generic.Destroy()
	s.stores.destroy()
	<-served
}

// Close frees what New took, if Run is never called.
func (s *Server) Close() error {
	s.own.Close()
	err := s.tcp.Close()
	s.generic.Destroy()
	s.stores.destroy()
	return err
}

// keepAlive finds out when a client that is connected over TCP is gone.
type keepAlive struct{ net.Listener }

func (l keepAlive) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok && err == nil {
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 3 * time.Minute, Interval: 30 * time.Second})
	}
	return c, err
}

// handshakes takes what the HTTP server has to say: failed handshakes and other mistakes of clients.
type handshakes struct{ log *slog.Logger }

var _ io.Writer = handshakes{}

func (h handshakes) Write(p []byte) (int, error) {
	h.log.Debug("HTTP server", "message", string(p))
	return len(p), nil
}
