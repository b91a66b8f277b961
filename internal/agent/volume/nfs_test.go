package volume

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

func TestParseNFS(t *testing.T) {
	for name, tc := range map[string]struct {
		options  []string
		want     nfsOptions
		probe    string
		versions []string
	}{
		"none": {nil, nfsOptions{}, "2049", []string{"4.2", "4.1", "4", "3"}},
		"of all sorts": {[]string{"ro", "hard,nfsvers=4.1", "noatime", "_netdev", "retry=2", "timeo=50"},
			nfsOptions{params: []string{"hard", "timeo=50"}, attributes: unix.MOUNT_ATTR_NOATIME, readOnly: true, version: "4.1"}, "2049", []string{"4.1"}},
		"version 3": {[]string{"vers=3,nolock"}, nfsOptions{params: []string{"nolock"}, version: "3"}, "111", []string{"3"}},
		"port":      {[]string{"port=20490"}, nfsOptions{params: []string{"port=20490"}, port: "20490"}, "20490", []string{"4.2", "4.1", "4", "3"}},
		"rdma":      {[]string{"proto=rdma"}, nfsOptions{params: []string{"proto=rdma"}, proto: "rdma"}, "", []string{"4.2", "4.1", "4", "3"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := parseNFS(tc.options)
			if d := cmp.Diff(tc.want, got, cmp.AllowUnexported(nfsOptions{})); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(tc.versions, got.versions()); d != "" || got.probe() != tc.probe {
				t.Error(got.probe(), d)
			}
		})
	}
}

// TestNFSSilentServer: neither a server that is not there nor the end of the wait for one holds anybody up, and nothing is left.
func TestNFSSilentServer(t *testing.T) {
	f := newFixture(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	must(t, l.Close())
	_, err = f.setupNFS(t.Context(), f.pod, "v", &corev1.NFSVolumeSource{Server: "127.0.0.1", Path: "/x"}, []string{"port=" + port})
	if err == nil || !strings.HasPrefix(err.Error(), "mount 127.0.0.1:/x: the server does not answer: dial tcp 127.0.0.1:") {
		t.Error(err)
	}
	if left, err := filepath.Glob(f.cfg.Dir + "/*/volumes/*/*"); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
}

func TestNFSErrors(t *testing.T) {
	err := nfsError(t.Context(), unix.ENOENT)
	if err.Error() != "the server has no such export: no such file or directory" || !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestApart(t *testing.T) {
	err := apart(t.Context(), func(live func() bool) error {
		if !live() {
			return errors.New("nobody waits")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	// Who is left alone is told so.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	alone := make(chan bool, 1)
	err = apart(ctx, func(live func() bool) error {
		<-ctx.Done()
		time.Sleep(20 * time.Millisecond)
		alone <- !live()
		return nil
	})
	if !errors.Is(err, context.DeadlineExceeded) || !<-alone {
		t.Error(err)
	}
}
