package sys

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOpenInRootBesideRenames: that others rename and mount has no part in what is found.
func TestOpenInRootBesideRenames(t *testing.T) {
	top := t.TempDir()
	if err := os.WriteFile(filepath.Join(top, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../../../../../../../../../file", filepath.Join(top, "link")); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for _, name := range []string{"a", "b"} {
		if err := os.Mkdir(filepath.Join(top, name), 0o700); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for from, to := filepath.Join(top, name), filepath.Join(top, name+"2"); ; from, to = to, from {
				select {
				case <-done:
					return
				default:
					os.Rename(from, to)
				}
			}
		})
	}
	for range 20000 {
		f, err := OpenInRoot(top, "link", unix.O_RDONLY)
		if err != nil {
			t.Error(err)
			break
		}
		f.Close()
	}
	close(done)
	wg.Wait()
}
