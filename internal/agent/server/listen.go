package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// Listener serves a handler over TLS. Make it with Listen.
type Listener struct {
	tcp net.Listener
	srv *http.Server
}

// Listen takes the address, so that a port in use is an error here. cert gives the certificate to serve with; clients may show one of theirs.
func Listen(at netip.AddrPort, cert func(*tls.ClientHelloInfo) (*tls.Certificate, error), h http.Handler, log *slog.Logger) (*Listener, error) {
	tcp, err := net.Listen("tcp", at.String())
	if err != nil {
		return nil, fmt.Errorf("node's server: %w", err)
	}
	l := &Listener{tcp: tls.NewListener(tcp, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: cert, ClientAuth: tls.RequestClientCert,
		NextProtos: []string{"h2", "http/1.1"}})}
	l.srv = &http.Server{Handler: h, ReadHeaderTimeout: 32 * time.Second, IdleTimeout: 90 * time.Second, MaxHeaderBytes: 1 << 20, ErrorLog: handshakes(log)}
	return l, nil
}

// handshakes takes what the HTTP server has to say: failed handshakes and other mistakes of clients.
func handshakes(l *slog.Logger) *log.Logger { return slog.NewLogLogger(l.Handler(), slog.LevelDebug) }

// Addr is where it listens.
func (l *Listener) Addr() net.Addr { return l.tcp.Addr() }

// Run serves until ctx ends. Streams are broken off then.
func (l *Listener) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { l.srv.Close() })
	defer stop()
	if err := l.srv.Serve(l.tcp); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("node's server: %w", err)
	}
	return ctx.Err()
}

// Close gives the address back, if Run is never called.
func (l *Listener) Close() error { return l.tcp.Close() }
