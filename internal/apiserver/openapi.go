package apiserver

import (
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/server/routes"
	"k8s.io/kube-openapi/pkg/common"
)

// openAPIKept is how long the documents are kept after the last one was asked for.
const openAPIKept = 30 * time.Second

// installOpenAPI serves /openapi/v2 and /openapi/v3. Both take tens of megabytes once they are built and are seldom asked for, so they are
// built when they are, and forgotten after a while. Their ETags come from their content and stay the same.
func installOpenAPI(s *genericapiserver.GenericAPIServer, v2 *common.Config, v3 *common.OpenAPIV3Config) {
	container := s.Handler.GoRestfulContainer
	second := &whileUsed{build: func(m *mux.PathRecorderMux) { routes.OpenAPI{Config: v2}.InstallV2(container, m) }}
	s.Handler.NonGoRestfulMux.Handle("/openapi/v2", second)
	third := &whileUsed{build: func(m *mux.PathRecorderMux) {
		fresh := *v3 // building fills in the definitions
		routes.OpenAPI{V3Config: &fresh}.InstallV3(container, m)
	}}
	s.Handler.NonGoRestfulMux.Handle("/openapi/v3", third)
	s.Handler.NonGoRestfulMux.HandlePrefix("/openapi/v3/", third)
}

// whileUsed is a handler that is built when it is needed and dropped when it was not for openAPIKept.
type whileUsed struct {
	build func(*mux.PathRecorderMux)

	mu      sync.Mutex // guards the rest
	handler http.Handler
	drop    *time.Timer
}

func (w *whileUsed) get() http.Handler {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.handler == nil {
		m := mux.NewPathRecorderMux("openapi")
		w.build(m)
		w.handler = m
	}
	if w.drop != nil {
		w.drop.Stop()
	}
	var mine *time.Timer
	mine = time.AfterFunc(openAPIKept, func() {
		w.mu.Lock()
		last := w.drop == mine
		if last {
			w.handler, w.drop = nil, nil
		}
		w.mu.Unlock()
		if last {
			debug.FreeOSMemory() // in an idle process nothing else would find out for long
		}
	})
	w.drop = mine
	return w.handler
}

// ServeHTTP implements http.Handler.
func (w *whileUsed) ServeHTTP(rw http.ResponseWriter, r *http.Request) { w.get().ServeHTTP(rw, r) }
