// Package apiserver is the Kubernetes API: k8s.io/apiserver, assembled over the kinds of package api and the storage of package store.
// Read New first: it says what is built from what. Clients come over TLS, or from within the process over connections that carry their
// identity (ClientConfig).
//
// It may import api, config, health, pki, store and version. Invariants: every write passes admission; nobody is allowed what package auth
// does not name; nothing here runs on a timer while nobody asks.
package apiserver

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"

	"k8s.io/utils/clock"

	"carob.dev/carob/internal/pki"
	"carob.dev/carob/internal/store"
)

// Config is what the API server needs.
type Config struct {
	// Store holds the objects. It must stay open until Run has returned.
	Store *store.Store
	// PKI gives the serving certificate, the authority that client certificates are checked against, and the token key.
	PKI *pki.PKI
	// Bind is the address to listen on. With port 0 the system chooses one, which Addr tells.
	Bind netip.AddrPort
	// Advertise are the addresses that Pods reach this server at: the endpoints of the Service kubernetes. May be empty.
	Advertise []netip.Addr
	// ServiceCIDR is the range of ClusterIPs.
	ServiceCIDR netip.Prefix
	// NodeTransport leads to the agent of a node: the base URL of its server, and a transport which for exec, attach and portforward must be
	// an *http.Transport or wrap one. Nil if there are no nodes.
	NodeTransport func(ctx context.Context, node string) (base *url.URL, transport http.RoundTripper, err error)
	// PodTransport reaches Pods by their address; http.DefaultTransport's way if nil.
	PodTransport http.RoundTripper
	Log          *slog.Logger
	// Clock is the real one if nil. Only tokens look at it.
	Clock clock.PassiveClock
}

func (c *Config) complete() error {
	if c.Store == nil || c.PKI == nil || c.Log == nil {
		return errors.New("API server: a store, a PKI and a log are required")
	}
	if !c.Bind.IsValid() || !c.ServiceCIDR.IsValid() {
		return errors.New("API server: an address to listen on and a range for services are required")
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.NodeTransport == nil {
		c.NodeTransport = func(context.Context, string) (*url.URL, http.RoundTripper, error) {
			return nil, nil, errors.New("this server reaches no nodes")
		}
	}
	return nil
}
