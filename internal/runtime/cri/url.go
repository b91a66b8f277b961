package cri

import (
	"errors"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"k8s.io/cri-streaming/pkg/streaming"
)

// urls serves what Exec, Attach and PortForward answer with: addresses on loopback with a token that is good once, for a minute. The
// port is opened when the first is asked for.
type urls struct {
	runtime streaming.Runtime

	mu     sync.Mutex // guards all below
	server streaming.Server
	http   *http.Server
	end    chan struct{}
}

// ending is closed when the server ends.
func (u *urls) ending() <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.end == nil {
		u.end = make(chan struct{})
	}
	return u.end
}

func (u *urls) get() (streaming.Server, error) {
	end := u.ending()
	u.mu.Lock()
	defer u.mu.Unlock()
	select {
	case <-end:
		return nil, errors.New("the server is ending")
	default:
	}
	if u.server != nil {
		return u.server, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	cfg := streaming.DefaultConfig
	cfg.BaseURL = &url.URL{Scheme: "http", Host: l.Addr().String(), Path: "/"}
	server, err := streaming.NewServer(cfg, u.runtime)
	if err != nil {
		l.Close()
		return nil, err
	}
	u.server, u.http = server, &http.Server{Handler: server, ReadHeaderTimeout: 10 * time.Second}
	go u.http.Serve(l)
	return server, nil
}

func (u *urls) close() error {
	end := u.ending()
	u.mu.Lock()
	defer u.mu.Unlock()
	select {
	case <-end:
		return nil
	default:
		close(u.end)
	}
	if u.http == nil {
		return nil
	}
	return u.http.Close()
}
