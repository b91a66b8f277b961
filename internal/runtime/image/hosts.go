package image

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// endpoint is one place to ask for the images of a registry.
type endpoint struct {
	registry string // whose images: docker.io
	host     string // host[:port] to talk to
	path     string // where the API is: /v2
	plain    bool   // http may be used
	only     bool   // http must be used
	pull     bool   // serves blobs and manifests by digest
	resolve  bool   // knows what tags mean
	header   http.Header
	tls      *tls.Config
	dial     time.Duration
}

// hostsFile is hosts.toml, as containerd documents it.
type hostsFile struct {
	Server string `toml:"server"`
	hostFields
	Host map[string]hostFields `toml:"host"`
}

type hostFields struct {
	Capabilities []string       `toml:"capabilities"`
	CA           any            `toml:"ca"`
	Client       any            `toml:"client"`
	SkipVerify   bool           `toml:"skip_verify"`
	Header       map[string]any `toml:"header"`
	OverridePath bool           `toml:"override_path"`
	DialTimeout  string         `toml:"dial_timeout"`
}

// endpoints lists where to ask for a registry's images: the mirrors of its hosts.toml in their order, then itself.
// Without a file it is https only, but on this machine's loopback also plain http.
func endpoints(dir, registry string) ([]endpoint, error) {
	if dir != "" {
		for _, name := range hostFolders(registry) {
			folder := filepath.Join(dir, name)
			data, err := os.ReadFile(filepath.Join(folder, "hosts.toml"))
			if errors.Is(err, os.ErrNotExist) {
				ep, ok, err := dockerCerts(folder, registry)
				if err != nil {
					return nil, fmt.Errorf("registry configuration %s: %w", folder, err)
				}
				if ok {
					return []endpoint{ep}, nil
				}
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("registry configuration: %w", err)
			}
			eps, err := parseHosts(data, folder, registry)
			if err != nil {
				return nil, fmt.Errorf("registry configuration %s: %w", filepath.Join(folder, "hosts.toml"), err)
			}
			return eps, nil
		}
	}
	return []endpoint{origin(registry)}, nil
}

// hostFolders are the folders that may configure a registry, best first. Some file systems take no colon: host_5000_.
func hostFolders(registry string) []string {
	names := []string{registry, "_default"}
	if h, p, err := net.SplitHostPort(registry); err == nil {
		names = slices.Insert(names, 0, h+"_"+p+"_")
	}
	return names
}

// origin is the registry itself, as nobody configured it.
func origin(registry string) endpoint {
	host := registry
	if host == "docker.io" || host == "index.docker.io" {
		host = "registry-1.docker.io"
	}
	return endpoint{registry: registry, host: host, path: "/v2", plain: isLoopback(host), pull: true, resolve: true}
}

func isLoopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// parseHosts reads a hosts.toml; relative paths in it are meant from folder. Unknown keys are errors.
func parseHosts(data []byte, folder, registry string) ([]endpoint, error) {
	var f hostsFile
	if err := toml.NewDecoder(strings.NewReader(string(data))).DisallowUnknownFields().Decode(&f); err != nil {
		if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
			return nil, fmt.Errorf("%w: unknown key:\n%s", ErrInvalid, strict.String())
		}
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	order, err := hostOrder(data)
	if err != nil {
		return nil, err
	}
	var eps []endpoint
	for _, u := range order {
		ep, err := f.Host[u].endpoint(u, folder, registry)
		if err != nil {
			return nil, fmt.Errorf("host %q: %w", u, err)
		}
		eps = append(eps, ep)
	}
	server := origin(registry)
	if f.Server != "" {
		if server, err = f.hostFields.endpoint(f.Server, folder, registry); err != nil {
			return nil, fmt.Errorf("server %q: %w", f.Server, err)
		}
	} else if err := f.hostFields.apply(&server, folder); err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	return append(eps, server), nil
}

// hostOrder lists the [host."…"] tables as they stand in the file: the order is the order of trying, which a map forgets.
func hostOrder(data []byte) ([]string, error) {
	var p unstable.Parser
	p.Reset(data)
	var order []string
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.Table {
			continue
		}
		var key []string
		for it := e.Key(); it.Next(); {
			key = append(key, string(it.Node().Data))
		}
		if len(key) >= 2 && key[0] == "host" && !slices.Contains(order, key[1]) {
			order = append(order, key[1])
		}
	}
	return order, p.Error()
}

func (h hostFields) endpoint(raw, folder, registry string) (endpoint, error) {
	ep := endpoint{registry: registry, path: "/v2", pull: true, resolve: true}
	full := raw
	if !strings.Contains(full, "://") {
		full = "https://" + full
	}
	u, err := url.Parse(full)
	if err != nil {
		return ep, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.User != nil {
		return ep, fmt.Errorf("%w URL, want http[s]://host[:port][/path]", ErrInvalid)
	}
	ep.host = u.Host
	ep.only = u.Scheme == "http"
	ep.plain = ep.only || full != raw && isLoopback(u.Host)
	switch p := strings.TrimSuffix(path.Clean("/"+u.Path), "/"); {
	case h.OverridePath:
		ep.path = p
	case p != "" && path.Base(p) != "v2":
		ep.path = p + "/v2"
	case p != "":
		ep.path = p
	}
	return ep, h.apply(&ep, folder)
}

// apply sets what does not come from the URL.
func (h hostFields) apply(ep *endpoint, folder string) (err error) {
	if h.Capabilities != nil {
		ep.pull, ep.resolve = false, false
		for _, c := range h.Capabilities {
			switch c {
			case "pull":
				ep.pull = true
			case "resolve":
				ep.resolve = true
			case "push", "referrers":
			default:
				return fmt.Errorf("%w capability %q", ErrInvalid, c)
			}
		}
	}
	if h.DialTimeout != "" {
		if ep.dial, err = time.ParseDuration(h.DialTimeout); err != nil {
			return fmt.Errorf("%w dial_timeout: %w", ErrInvalid, err)
		}
	}
	for k, v := range h.Header {
		values, err := texts(v)
		if err != nil {
			return fmt.Errorf("header %q: %w", k, err)
		}
		if ep.header == nil {
			ep.header = http.Header{}
		}
		for _, v := range values {
			ep.header.Add(k, v)
		}
	}
	ep.tls, err = h.tlsConfig(folder)
	return err
}

func (h hostFields) tlsConfig(folder string) (*tls.Config, error) {
	if !h.SkipVerify && h.CA == nil && h.Client == nil {
		return nil, nil
	}
	cfg := &tls.Config{InsecureSkipVerify: h.SkipVerify}
	cas, err := texts(h.CA)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	for _, ca := range cas {
		if cfg.RootCAs == nil {
			if cfg.RootCAs, err = x509.SystemCertPool(); err != nil {
				cfg.RootCAs = x509.NewCertPool()
			}
		}
		pem, err := os.ReadFile(within(folder, ca))
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca %s: %w: no certificate in it", ca, ErrInvalid)
		}
	}
	pairs, err := keyPairs(h.Client)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	for _, p := range pairs {
		cert, err := tls.LoadX509KeyPair(within(folder, p[0]), within(folder, p[1]))
		if err != nil {
			return nil, fmt.Errorf("client: %w", err)
		}
		cfg.Certificates = append(cfg.Certificates, cert)
	}
	return cfg, nil
}

func within(folder, file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(folder, file)
}

// texts reads a value that is one text or a list of them.
func texts(v any) ([]string, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{v}, nil
	case []any:
		var out []string
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil, fmt.Errorf("%w value %v, want text", ErrInvalid, e)
			}
			out = append(out, s)
		}
		return out, nil
	}
	return nil, fmt.Errorf("%w value %v, want text or a list of texts", ErrInvalid, v)
}

// keyPairs reads client certificates: "both.pem", ["both.pem", …], or [["cert.pem", "key.pem"], …].
func keyPairs(v any) ([][2]string, error) {
	list, ok := v.([]any)
	if !ok && v != nil {
		list = []any{v}
	}
	var out [][2]string
	for _, e := range list {
		files, err := texts(e)
		if err != nil {
			return nil, err
		}
		switch {
		case len(files) == 1 || len(files) == 2 && files[1] == "":
			out = append(out, [2]string{files[0], files[0]})
		case len(files) == 2:
			out = append(out, [2]string{files[0], files[1]})
		default:
			return nil, fmt.Errorf("%w value %v, want [certificate, key]", ErrInvalid, e)
		}
	}
	return out, nil
}
