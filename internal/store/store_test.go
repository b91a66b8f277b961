package store_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"carob.dev/carob/internal/health"
	"carob.dev/carob/internal/store"
	"go.etcd.io/etcd/client/v3/kubernetes"
)

// writerDir makes the test binary a writer: it opens the store there, writes from many goroutines, and says each key that was acknowledged.
const writerDir = "CAROB_TEST_WRITER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerDir); dir != "" {
		if err := write(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func write(dir string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, store.Config{Dir: dir})
	if err != nil {
		return err
	}
	var out sync.Mutex
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("/registry/configmaps/default/%d-%d", w, i)
				if i%3 == 2 {
					key = fmt.Sprintf("/registry/leases/kube-node-lease/%d-%d", w, i)
				}
				resp, err := s.Client().Kubernetes.OptimisticPut(ctx, key, []byte(strings.Repeat("v", 300)), 0, kubernetes.PutOptions{})
				if err != nil || !resp.Succeeded {
					return
				}
				out.Lock()
				fmt.Println(key, resp.Revision)
				out.Unlock()
			}
		})
	}
	wg.Wait()
	return nil
}

func TestKilledWriterLosesNothing(t *testing.T) {
	dir := t.TempDir()
	for round := range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), writerDir+"="+dir+fmt.Sprint("/", round))
		cmd.Stderr = os.Stderr
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acknowledged := map[string]int64{}
		last := int64(0)
		lines := bufio.NewReader(stdout)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				break // also a line cut short: not acknowledged to us
			}
			var key string
			var rev int64
			if _, err := fmt.Sscan(line, &key, &rev); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			acknowledged[key] = rev
			last = max(last, rev)
			if len(acknowledged) == 200+100*round {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // killed
		s, err := store.Open(context.Background(), store.Config{Dir: dir + fmt.Sprint("/", round)})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Check(context.Background()); err != nil {
			t.Error(err)
		}
		for key, rev := range acknowledged {
			got, err := s.Client().Kubernetes.Get(context.Background(), key, kubernetes.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got.KV == nil || got.KV.ModRevision != rev || len(got.KV.Value) != 300 {
				t.Errorf("%s, acknowledged at %d, is %v", key, rev, got.KV)
			}
			if got.Revision < last {
				t.Errorf("revision %d, but %d was handed out", got.Revision, last)
			}
		}
		if len(acknowledged) < 200 {
			t.Errorf("only %d writes", len(acknowledged))
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestSecondOpenIsRefused(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(context.Background(), store.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_, err = store.Open(context.Background(), store.Config{Dir: dir})
	if p, ok := health.As(err); !ok || p.Code != store.CodeLocked || !strings.Contains(p.Why, fmt.Sprint(os.Getpid())) || p.Fix == "" {
		t.Errorf("%v", err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if s, err = store.Open(context.Background(), store.Config{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestDamagedFileIsRefusedAndKept(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, store.FileName)
	s, err := store.Open(context.Background(), store.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		if _, err := s.Client().KV.Put(context.Background(), fmt.Sprint("/registry/x/", i), strings.Repeat("x", 500)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"text":       []byte("this is not a store\n"),
		"zeros":      make([]byte, len(good)),
		"cut short":  good[:3*4096],
		"bad middle": append(append(bytes.Clone(good[:8192]), bytes.Repeat([]byte{0xa5}, len(good)-2*8192)...), good[len(good)-8192:]...),
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := store.Open(context.Background(), store.Config{Dir: dir})
			if err == nil {
				s.Close()
			}
			if p, ok := health.As(err); !ok || p.Code != store.CodeCorrupt || p.Fix == "" {
				t.Errorf("%v", err)
			}
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, bad) {
				t.Errorf("the file was touched (%v)", err)
			}
		})
	}
}

func TestUnreachableServers(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := store.Open(ctx, store.Config{Endpoints: []string{"http://127.0.0.1:1"}})
	if p, ok := health.As(err); !ok || p.Code != store.CodeUnreachable {
		t.Errorf("%v", err)
	}
}

// TestIdleWritesNothing asks that a store with nothing to do leaves its file alone.
func TestIdleWritesNothing(t *testing.T) {
	s := openStore(t)
	ctx := context.Background()
	if _, err := s.Client().KV.Put(ctx, "/registry/leases/kube-node-lease/n", "1"); err != nil {
		t.Fatal(err)
	}
	before := written(t)
	for range 20 {
		if _, err := s.Client().KV.Put(ctx, "/registry/leases/kube-node-lease/n", "2"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := written(t) - before; n > 0 {
		t.Errorf("%d bytes written", n)
	}
	if err := s.Backup(io.Discard); err != nil {
		t.Error(err)
	}
}

// written is how many bytes this process has had written to disks.
func written(t *testing.T) (n int64) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(data)) {
		if _, err := fmt.Sscanf(line, "write_bytes: %d", &n); err == nil {
			return n
		}
	}
	return n
}
