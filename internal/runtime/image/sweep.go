package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"carob.dev/carob/internal/failpoint"
)

// trySweep clears away what no image needs, unless a pull or import runs; then the last of them does.
func (s *Store) trySweep() {
	for s.stale.Load() && s.ingests.TryLock() {
		s.stale.Store(false)
		err := s.sweep()
		s.ingests.Unlock()
		if err != nil {
			s.log.Warn("cannot clear unused image content away", "dir", s.dir, "err", err)
			return
		}
	}
}

// sweep moves all that the state does not name to trash/ and deletes it in the background. The caller has the ingests gate.
func (s *Store) sweep() error {
	st := s.current.Load()
	s.mu.Lock()
	clear(s.fresh)
	s.mu.Unlock()

	var gone []string
	for _, dir := range []string{s.dir, s.path("tmp"), s.path("layers")} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		dirs := map[string]bool{}
		for _, l := range st.Layers {
			dirs[l.Dir] = true
		}
		for _, e := range entries {
			switch {
			case dir == s.dir && !strings.HasPrefix(e.Name(), ".state.json.tmp-"):
			case dir == s.path("layers") && dirs[e.Name()]:
			default:
				gone = append(gone, filepath.Join(dir, e.Name()))
			}
		}
	}
	algorithms, err := os.ReadDir(s.path("blobs"))
	if err != nil {
		return err
	}
	for _, a := range algorithms {
		entries, err := os.ReadDir(s.path("blobs", a.Name()))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if _, ok := st.Blobs[a.Name()+":"+e.Name()]; !ok {
				gone = append(gone, s.path("blobs", a.Name(), e.Name()))
			}
		}
	}
	unfinished, err := s.unfinished(st)
	if err != nil {
		return err
	}
	return s.discard(append(gone, unfinished...))
}

// unfinished lists the downloads that nobody will go on with: an image has their blob, they are old, or their room is needed.
func (s *Store) unfinished(st *state) ([]string, error) {
	short := s.short.Swap(false)
	entries, err := os.ReadDir(s.path("partial"))
	if err != nil {
		return nil, err
	}
	var gone []string
	for _, e := range entries {
		_, had := st.Blobs[strings.Replace(e.Name(), "-", ":", 1)]
		fi, err := e.Info()
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		if had || short || err == nil && s.cfg.Clock.Since(fi.ModTime()) > partialAge {
			gone = append(gone, s.path("partial", e.Name()))
		}
	}
	return gone, nil
}

// discard takes files and folders out of sight at once; deleting them may take its time.
func (s *Store) discard(paths []string) error {
	if len(paths) > 0 {
		bin, err := os.MkdirTemp(s.path("trash"), "")
		if err != nil {
			return err
		}
		for _, p := range paths {
			failpoint.Hit("image/sweep/moving")
			to := filepath.Join(bin, filepath.Base(filepath.Dir(p))+"-"+filepath.Base(p))
			if err := os.Rename(p, to); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	failpoint.Hit("image/sweep/moved")
	bins, err := os.ReadDir(s.path("trash"))
	if err != nil || len(bins) == 0 {
		return err
	}
	s.background.Go(func() {
		for _, b := range bins {
			failpoint.Hit("image/sweep/deleting")
			if err := os.RemoveAll(s.path("trash", b.Name())); err != nil {
				s.log.Warn("cannot delete unused image content; it is tried again at the next start", "err", err)
			}
		}
	})
	return nil
}

// beginIngest keeps all content in place until end is called.
func (s *Store) beginIngest() (end func()) {
	s.ingests.RLock()
	return func() {
		s.ingests.RUnlock()
		s.trySweep()
	}
}
