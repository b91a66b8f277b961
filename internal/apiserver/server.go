package apiserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	apiopenapi "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	genericfilters "k8s.io/apiserver/pkg/server/filters"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"carob.dev/carob/internal/api"
	"carob.dev/carob/internal/api/openapi"
	"carob.dev/carob/internal/apiserver/admission"
	"carob.dev/carob/internal/apiserver/auth"
	"carob.dev/carob/internal/apiserver/auth/rbac"
	"carob.dev/carob/internal/apiserver/inproc"
	"carob.dev/carob/internal/store"
)

// Server is an API server. New makes it; it serves once Run is called.
type Server struct {
	cfg     Config
	stores  stores
	generic *genericapiserver.GenericAPIServer
	tcp     net.Listener
	own     *inproc.Listener
	policy  *rbac.Policy
	// advertise are the addresses that Pods reach it at; advertised tells of other ones. keeping is what keeps the Service kubernetes.
	advertise  atomic.Pointer[[]netip.Addr]
	advertised chan struct{}
	keeping    sync.WaitGroup

	ready     chan struct{}
	readyOnce sync.Once
}

// New builds the server and takes its address, so that a port in use is an error here.
func New(ctx context.Context, cfg Config) (_ *Server, err error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	turnOff()
	scheme, err := api.NewScheme()
	if err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	codecs := api.Codecs(scheme)
	kinds := api.Kinds()
	options := cfg.Store.RESTOptionsGetter(storageCodec(scheme, codecs))
	s := &Server{cfg: cfg, own: inproc.NewListener(), ready: make(chan struct{}), advertised: make(chan struct{}, 1)}
	s.advertise.Store(&cfg.Advertise)
	if s.stores, err = newStores(kinds, scheme, options); err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	defer func() {
		if err != nil {
			s.stores.destroy()
		}
	}()
	objects := lookup{s.stores}
	tokens, err := auth.NewTokens(cfg.PKI.ServiceAccountKey(), objects, cfg.Clock)
	if err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	own, err := kubernetes.NewForConfig(s.ClientConfig(user.APIServerUser, user.SystemPrivilegedGroup))
	if err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	if s.policy, err = rbac.New(own); err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	authorizer := auth.NewAuthorizer(objects, s.policy)
	served, err := newResources(&cfg, kinds, s.stores, tokens, authorizer, s.policy)
	if err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}

	generic := genericapiserver.NewConfig(codecs)
	generic.EffectiveVersion = newEffectiveVersion()
	generic.RESTOptionsGetter = options
	generic.ExternalAddress = cfg.Bind.String()
	generic.LoopbackClientConfig = s.ClientConfig(user.APIServerUser, user.SystemPrivilegedGroup)
	generic.Authentication.APIAudiences = authenticator.Audiences{auth.Issuer}
	generic.Authentication.Authenticator = auth.NewAuthenticator(inproc.Authenticator(), cfg.PKI.CACertPool, tokens)
	generic.Authorization.Authorizer = authorizer
	generic.RuleResolver = authorizer
	generic.AdmissionControl = admission.Chain(objects, authorizer)
	generic.BuildHandlerChainFunc = buildHandlerChain
	generic.LongRunningFunc = genericfilters.BasicLongRunningRequestCheck(
		sets.NewString("watch", "proxy"), sets.NewString("attach", "exec", "proxy", "log", "portforward"))
	s.setHealthChecks(generic, cfg.Store)
	// Each of these would tick for as long as the server lives.
	generic.DisabledPostStartHooks = sets.NewString("max-in-flight-filter", "storage-object-count-tracker-hook")
	generic.StorageObjectCountTracker = nil
	namer := apiopenapi.NewDefinitionNamer(scheme)
	generic.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(openapi.GetOpenAPIDefinitions, namer)
	generic.OpenAPIConfig.Info.Title = "Kubernetes"
	generic.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(openapi.GetOpenAPIDefinitions, namer)
	generic.OpenAPIV3Config.Info.Title = "Kubernetes"
	generic.SkipOpenAPIInstallation = true // see openAPI

	// The delegate answers what is not served here. Custom resources come to stand between the two, and an aggregator before this one.
	if s.generic, err = generic.Complete(nil).New("carob", genericapiserver.NewEmptyDelegateWithCustomHandler(http.NotFoundHandler())); err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	if err := s.install(scheme, codecs, served); err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	s.serveIssuer(tokens)
	generic.OpenAPIV3Config.Definitions = nil // a second copy of them, which only installing needed
	installOpenAPI(s.generic, generic.OpenAPIConfig, generic.OpenAPIV3Config)
	var lc net.ListenConfig
	if s.tcp, err = lc.Listen(ctx, "tcp", cfg.Bind.String()); err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	return s, nil
}

// install adds the resources to the server, group by group.
func (s *Server) install(scheme *runtime.Scheme, codecs serializer.CodecFactory, served resources) error {
	parameters := runtime.NewParameterCodec(scheme)
	var groups []*genericapiserver.APIGroupInfo
	for _, gv := range slices.SortedFunc(maps.Keys(served), func(a, b schema.GroupVersion) int { return groupOrder(a.Group) - groupOrder(b.Group) }) {
		info := genericapiserver.NewDefaultAPIGroupInfo(gv.Group, scheme, parameters, codecs)
		info.VersionedResourcesStorageMap[gv.Version] = served[gv]
		if gv.Group == "" {
			if err := s.generic.InstallLegacyAPIGroup(genericapiserver.DefaultLegacyAPIPrefix, &info); err != nil {
				return err
			}
			continue
		}
		groups = append(groups, &info)
	}
	return s.generic.InstallAPIGroups(groups...)
}

// groupOrder is the order in which discovery lists groups: that of Kubernetes.
func groupOrder(group string) int {
	order := []string{
		"", "apps", "events.k8s.io", "authentication.k8s.io", "authorization.k8s.io", "autoscaling", "policy", "certificates.k8s.io",
		"coordination.k8s.io", "rbac.authorization.k8s.io", "node.k8s.io", "discovery.k8s.io",
	}
	if i := slices.Index(order, group); i >= 0 {
		return i
	}
	return len(order)
}

// serveIssuer lets others check service account tokens.
func (s *Server) serveIssuer(tokens *auth.Tokens) {
	mux := s.generic.Handler.NonGoRestfulMux
	mux.HandleFunc(auth.DiscoveryPath, func(w http.ResponseWriter, _ *http.Request) {
		at := auth.Issuer
		if port, err := s.port(); err == nil && len(s.cfg.Advertise) > 0 {
			at = "https://" + netip.AddrPortFrom(s.cfg.Advertise[0], uint16(port)).String()
		}
		tokens.ServeDiscovery(w, at)
	})
	mux.HandleFunc(auth.KeysPath, func(w http.ResponseWriter, _ *http.Request) { tokens.ServeKeys(w) })
}

// Addr is the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.tcp.Addr() }

// Ready is closed once the server is ready to be used: storage is up and what every cluster has exists.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// ClientConfig makes a client of this process that acts as the given user, who also is system:authenticated. It has a connection of its own
// and no rate limit. Requests wait until Run serves.
func (s *Server) ClientConfig(name string, groups ...string) *rest.Config {
	return &rest.Config{
		Host:           "http://carob.internal",
		Transport:      s.own.Transport(&user.DefaultInfo{Name: name, Groups: groups}, true),
		UserAgent:      "carob/" + name,
		QPS:            -1,
		WarningHandler: rest.NoWarnings{}, // they are for people
		ContentConfig: rest.ContentConfig{
			ContentType: runtime.ContentTypeProtobuf, AcceptContentTypes: runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON,
		},
	}
}

func (s *Server) setHealthChecks(c *genericapiserver.Config, st *store.Store) {
	started := healthz.NamedCheck("start", func(*http.Request) error {
		select {
		case <-s.ready:
			return nil
		default:
			return errors.New("starting")
		}
	})
	storage := healthz.NamedCheck("etcd", func(r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		_, err := st.Client().KV.Get(ctx, store.Prefix+"/health")
		return err
	})
	checks := []healthz.HealthChecker{healthz.PingHealthz, storage}
	c.HealthzChecks, c.LivezChecks, c.ReadyzChecks = slices.Clone(checks), slices.Clone(checks), append(slices.Clone(checks), started)
}
