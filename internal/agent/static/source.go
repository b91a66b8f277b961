package static

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
)

const (
	// askEvery is how often the URL is asked, settle how long a folder must be quiet before it is read: files are written in parts.
	askEvery = 20 * time.Second
	settle   = 100 * time.Millisecond
	// most is the greatest manifest, in bytes.
	most = 10 << 20
	// patience is how long the URL may take to answer.
	patience = 10 * time.Second
)

// Config is what a Source needs. Node, Log and Clock must be set.
type Config struct {
	// Path is a folder of manifests, or one; URL is where to ask for some. Empty for none.
	Path, URL string
	// Kept is the file that keeps what the URL told last, for a start at which it does not answer.
	Kept string
	// Write writes Kept.
	Write func(path string, data []byte) error
	Node  string
	// Bad is called once for each manifest that cannot be used, with the cause, and anew when that is another; may be nil.
	Bad   func(from string, err error)
	Log   *slog.Logger
	Clock clock.Clock
	// Client asks the URL; one that does not check certificates less than usual when nil.
	Client *http.Client
}

// Source reads static Pods. Its methods belong to one goroutine.
type Source struct {
	cfg Config
	// good are the Pods of each file or URL as they were when it could be used last, raw what it held then, bad why it cannot be used.
	good map[string][]*corev1.Pod
	raw  map[string][]byte
	bad  map[string]string
}

// New returns a Source that has read nothing.
func New(cfg Config) *Source {
	if cfg.Client == nil {
		cfg.Client = &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	}
	return &Source{cfg: cfg, good: map[string][]*corev1.Pod{}, raw: map[string][]byte{}, bad: map[string]string{}}
}

// Read reads everything once. A URL that does not answer stands for what it told last.
func (s *Source) Read(ctx context.Context) []*corev1.Pod {
	s.readFiles(ctx)
	if s.cfg.URL != "" && !s.ask(ctx) {
		if raw, err := os.ReadFile(s.cfg.Kept); err == nil {
			s.take(ctx, HTTP, s.cfg.URL, raw)
		}
	}
	return s.Pods()
}

// Pods are those that were read last, in the order of where they come from. Of several with one name the first counts.
func (s *Source) Pods() []*corev1.Pod {
	var list []*corev1.Pod
	seen := map[string]string{}
	for _, from := range slices.Sorted(maps.Keys(s.good)) {
		for _, p := range s.good[from] {
			name := p.Namespace + "/" + p.Name
			if other, twice := seen[name]; twice {
				s.fault("pod "+name, from, fmt.Errorf("pod %s is there already, from %s", name, other))
				continue
			}
			seen[name] = from
			list = append(list, p)
		}
	}
	return list
}

// Run reads anew whenever something changes, and tells all Pods then, until ctx ends.
func (s *Source) Run(ctx context.Context, changed func([]*corev1.Pod)) error {
	var events <-chan fsnotify.Event
	var errs <-chan error
	if s.cfg.Path != "" {
		w, err := fsnotify.NewWatcher()
		if err != nil {
			return fmt.Errorf("follow %s: %w", s.cfg.Path, err)
		}
		defer w.Close()
		if err := s.watch(w); err != nil {
			return err
		}
		events, errs = w.Events, w.Errors
		s.readFiles(ctx) // what changed before the watch began
		changed(s.Pods())
	}
	quiet := s.cfg.Clock.NewTimer(time.Hour)
	quiet.Stop()
	defer quiet.Stop()
	ask := s.cfg.Clock.NewTimer(askEvery)
	defer ask.Stop()
	if s.cfg.URL == "" {
		ask.Stop()
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case ev := <-events:
			if filepath.Clean(ev.Name) == filepath.Clean(s.cfg.Path) || s.file(ev.Name) {
				quiet.Reset(settle)
			}
		case err := <-errs:
			s.cfg.Log.Warn("follow the folder of static Pods", "path", s.cfg.Path, "error", err)
			quiet.Reset(settle)
		case <-quiet.C():
			s.readFiles(ctx)
			changed(s.Pods())
		case <-ask.C():
			if s.ask(ctx) {
				changed(s.Pods())
			}
			ask.Reset(askEvery)
		}
	}
}

// watch follows the folder, which is made if it is not there, or the one that the file is in.
func (s *Source) watch(w *fsnotify.Watcher) error {
	dir := s.cfg.Path
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("follow %s: %w", dir, err)
		}
	case err == nil && !info.IsDir():
		dir = filepath.Dir(dir)
	}
	if err := w.Add(dir); err != nil {
		return fmt.Errorf("follow %s: %w", dir, err)
	}
	return nil
}

// file says whether a path is that of a manifest.
func (s *Source) file(path string) bool {
	name := filepath.Base(path)
	return !strings.HasPrefix(name, ".") && filepath.Dir(path) == filepath.Clean(s.cfg.Path)
}

// readFiles reads the folder, or the file. A file that cannot be used stands for the Pods that it held when it could.
func (s *Source) readFiles(ctx context.Context) {
	if s.cfg.Path == "" {
		return
	}
	paths := []string{s.cfg.Path}
	if entries, err := os.ReadDir(s.cfg.Path); err == nil {
		paths = nil
		for _, e := range entries {
			if path := filepath.Join(s.cfg.Path, e.Name()); s.file(path) {
				paths = append(paths, path)
			}
		}
	}
	present := map[string]bool{}
	for _, path := range paths {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
			continue
		}
		present[path] = true
		if err == nil && info.Size() > most {
			err = fmt.Errorf("it has %d bytes; %d are the most", info.Size(), most)
		}
		var raw []byte
		if err == nil {
			raw, err = os.ReadFile(path)
		}
		if err != nil {
			s.fault(path, path, err)
			continue
		}
		s.take(ctx, File, path, raw)
	}
	for path := range s.raw {
		if path != s.cfg.URL && !present[path] {
			delete(s.raw, path)
			delete(s.good, path)
			delete(s.bad, path)
		}
	}
}

// ask asks the URL and says whether it told something that can be used.
func (s *Source) ask(ctx context.Context) bool {
	const asking = "asking"
	raw, err := s.get(ctx)
	if err != nil {
		s.fault(asking, s.cfg.URL, err)
		return false
	}
	delete(s.bad, asking)
	if bytes.Equal(raw, s.raw[s.cfg.URL]) {
		return s.bad[s.cfg.URL] == ""
	}
	if !s.take(ctx, HTTP, s.cfg.URL, raw) {
		return false
	}
	if err := s.cfg.Write(s.cfg.Kept, raw); err != nil {
		s.cfg.Log.Warn("keep the static Pods of the URL", "path", s.cfg.Kept, "error", err)
	}
	return true
}

func (s *Source) get(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.cfg.URL, nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.cfg.Client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers with %s", resp.Status)
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err == nil && len(raw) > most {
		err = fmt.Errorf("it has more than %d bytes", most)
	}
	return raw, err
}

// take decodes what a file or the URL holds, if that is other than before.
func (s *Source) take(ctx context.Context, kind, from string, raw []byte) bool {
	if old, ok := s.raw[from]; ok && bytes.Equal(old, raw) {
		return s.bad[from] == ""
	}
	s.raw[from] = raw
	pods, err := Decode(ctx, raw, kind, from, s.cfg.Node, s.cfg.Clock.Now())
	if err != nil {
		s.fault(from, from, err)
		return false
	}
	s.good[from] = pods
	delete(s.bad, from)
	return true
}

// fault tells once why what comes from a file or URL cannot be used. what is what is at fault.
func (s *Source) fault(what, from string, err error) {
	if s.bad[what] == err.Error() {
		return
	}
	s.bad[what] = err.Error()
	s.cfg.Log.Warn("a manifest cannot be used", "from", from, "error", err)
	if s.cfg.Bad != nil {
		s.cfg.Bad(from, err)
	}
}
