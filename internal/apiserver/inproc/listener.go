// Package inproc connects HTTP clients to a server in the same process: no sockets, no TLS, HTTP/2 without a handshake. A connection
// belongs to one identity, fixed by the code that made the client, so requests carry no credentials and none can be forged.
//
// It imports nothing of the project. Only code in this process can reach a Listener.
package inproc

import (
	"context"
	"net"
	"net/http"
	"sync"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
)

type identity struct{ info user.Info }

// Listener takes connections from transports of the same process.
type Listener struct {
	incoming chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

// NewListener makes a Listener. Clients may dial before anyone accepts; they wait.
func NewListener() *Listener {
	return &Listener{incoming: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.incoming:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends accepting and dialing. Connections that exist go on.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return addr{} }

// Transport speaks to the server as the given user, over connections of its own. Without HTTP/2 connections can be upgraded.
func (l *Listener) Transport(u user.Info, http2 bool) *http.Transport {
	id := &identity{info: u}
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			client, server := pipe(id)
			select {
			case l.incoming <- server:
				return client, nil
			case <-l.closed:
				return nil, net.ErrClosed
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
		DisableCompression: true, // it never pays within one process
		Protocols:          &http.Protocols{},
	}
	t.Protocols.SetHTTP1(!http2)
	t.Protocols.SetUnencryptedHTTP2(http2)
	return t
}

type connKey struct{}

// ConnContext is for http.Server.ConnContext: it notes who a connection belongs to.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if own, ok := c.(*conn); ok {
		return context.WithValue(ctx, connKey{}, own.user)
	}
	return ctx
}

// From is the user that the connection of a request belongs to, if it came through a Listener.
func From(ctx context.Context) (user.Info, bool) {
	id, ok := ctx.Value(connKey{}).(*identity)
	if !ok {
		return nil, false
	}
	return id.info, true
}

// Authenticator knows the user of requests that came through a Listener, and of no others.
func Authenticator() authenticator.Request {
	return authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		u, ok := From(r.Context())
		if !ok {
			return nil, false, nil
		}
		return &authenticator.Response{User: u}, true, nil
	})
}
