package app

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"carob.dev/carob/internal/cli/admin"
	"carob.dev/carob/internal/cli/check"
	"carob.dev/carob/internal/health"
	"carob.dev/carob/internal/runtime/image"
	"carob.dev/carob/internal/version"
)

// startAdmin serves the admin socket. The store's lock makes sure that nobody else of this root listens there, so a socket that is there
// already is one that a crash left.
func (c *Carob) startAdmin() error {
	path := admin.SocketPath(c.cfg)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return err
	}
	srv := &http.Server{Handler: c.adminHandler(), ReadHeaderTimeout: 10 * time.Second}
	go srv.Serve(l)
	c.stages.onEnd("admin socket", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			return srv.Close()
		}
		return nil
	})
	return nil
}

func (c *Carob) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) { answer(w, c.status()) })
	mux.HandleFunc("POST /v1/down", c.serveDown)
	mux.HandleFunc("GET /v1/images", c.serveImages)
	mux.HandleFunc("GET /v1/images/export", func(w http.ResponseWriter, r *http.Request) {
		refs := r.URL.Query()["ref"]
		for _, ref := range refs {
			if err := c.pods.store.may(r.Context(), ref); err != nil {
				fail(w, err)
				return
			}
		}
		if err := c.pods.store.save(r.Context(), w, refs...); err != nil {
			panic(http.ErrAbortHandler) // the client must not take half an archive for a whole one
		}
	})
	mux.HandleFunc("POST /v1/images/import", stream(func(r *http.Request, tell func(string)) error {
		names, err := c.pods.store.load(r.Context(), r.Body)
		for _, n := range names {
			tell(n)
		}
		return err
	}))
	mux.HandleFunc("POST /v1/images/pull", func(w http.ResponseWriter, r *http.Request) {
		events := newEventWriter(w)
		id, err := c.pods.store.pull(r.Context(), r.URL.Query().Get("ref"), events.progress)
		if err == nil {
			events.tell(id)
		}
		events.end(err)
	})
	mux.HandleFunc("POST /v1/images/remove", stream(func(r *http.Request, _ func(string)) error {
		return c.pods.store.remove(r.Context(), r.URL.Query().Get("ref"))
	}))
	return mux
}

// downRequest asks for the Pods to be stopped, and for the end.
type downRequest struct {
	tell  func(string)
	ended chan<- error
}

// serveDown stops the Pods while the client watches. The answer ends when the process has nothing left to do but to close its files.
func (c *Carob) serveDown(w http.ResponseWriter, r *http.Request) {
	events := newEventWriter(w)
	ended := make(chan error, 1)
	c.downOnce.Do(func() {
		c.downAsked <- downRequest{events.tell, ended}
	})
	select {
	case err := <-ended:
		events.end(err)
	case <-r.Context().Done():
	}
}

func (c *Carob) serveImages(w http.ResponseWriter, r *http.Request) {
	list, err := c.pods.store.list(r.Context())
	if err != nil {
		fail(w, err)
		return
	}
	answer(w, list)
}

func (c *Carob) status() admin.Status {
	v := version.Get()
	s := admin.Status{
		PID: os.Getpid(), Version: v.Version, Commit: v.Commit, Root: c.cfg.Root,
		Runtime: c.pods.String(), Started: c.stages.began, Steps: c.stages.times(), Problems: []health.Problem{},
	}
	if c.api != nil {
		s.Node, s.Server, s.Kubeconfig = c.cfg.NodeName, c.serverURL(), c.cfg.Kubeconfig
	}
	select {
	case <-c.ready:
		s.Ready = true
		if c.agent != nil {
			s.Node = c.cfg.NodeName
		}
	default:
	}
	s.Problems = append(s.Problems, check.Decide(c.cfg, check.Gather(c.cfg, true))...)
	return s
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

func fail(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusInternalServerError)
	json.NewEncoder(w).Encode(problem(err))
}

// problem gives every error the form that the client prints.
func problem(err error) *health.Problem {
	if p, ok := health.As(err); ok {
		return p
	}
	code := "Failed"
	switch {
	case errors.Is(err, image.ErrNotFound):
		code = "ImageNotFound"
	case errors.Is(err, image.ErrUnauthorized):
		code = "ImageUnauthorized"
	case errors.Is(err, image.ErrUnavailable):
		code = "RegistryUnavailable"
	case errors.Is(err, image.ErrCorrupt):
		code = "ImageCorrupt"
	case errors.Is(err, image.ErrInvalid):
		code = "InvalidImageName"
	}
	return &health.Problem{Code: code, Severity: health.Error, What: err.Error()}
}

// eventWriter writes an answer line by line, each sent at once.
type eventWriter struct {
	mu    sync.Mutex // guards enc
	enc   *json.Encoder
	flush func() error
}

func newEventWriter(w http.ResponseWriter) *eventWriter {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	rc.Flush()
	return &eventWriter{enc: json.NewEncoder(w), flush: rc.Flush}
}

func (e *eventWriter) tell(s string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.enc.Encode(admin.Event{Message: s})
	e.flush()
}

func (e *eventWriter) progress(p admin.Progress) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.enc.Encode(admin.Event{Progress: &p})
	e.flush()
}

func (e *eventWriter) end(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		e.enc.Encode(admin.Event{Error: problem(err)})
	} else {
		e.enc.Encode(admin.Event{Done: true})
	}
	e.flush()
}

// stream answers with what f tells while it works. The request's body is read to its end before the answer begins, as HTTP/1 wants it.
func stream(f func(*http.Request, func(string)) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		begin := sync.OnceValue(func() *eventWriter {
			io.Copy(io.Discard, r.Body)
			return newEventWriter(w)
		})
		err := f(r, func(s string) { begin().tell(s) })
		begin().end(err)
	}
}
