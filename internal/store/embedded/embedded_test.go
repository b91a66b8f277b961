package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	testclock "k8s.io/utils/clock/testing"
)

var ctx = context.Background()

func volatile(key []byte) bool { return bytes.HasPrefix(key, []byte("/beat/")) }

func open(t testing.TB, path string) *DB {
	t.Helper()
	db, err := Open(Config{Path: path, Volatile: volatile, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func put(t testing.TB, c *kubernetes.Client, key, value string) int64 {
	t.Helper()
	resp, err := c.KV.Put(ctx, key, value)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

// dump reads a range as "key=value@mod/create/version".
func dump(t testing.TB, c *kubernetes.Client, key string, opts ...clientv3.OpOption) []string {
	t.Helper()
	resp, err := c.KV.Get(ctx, key, opts...)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, kv := range resp.Kvs {
		out = append(out, fmt.Sprintf("%s=%s@%d/%d/%d", kv.Key, kv.Value, kv.ModRevision, kv.CreateRevision, kv.Version))
	}
	return out
}

func TestVersions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := open(t, path)
	c := db.Client(ctx)
	put(t, c, "/a", "1")      // 2
	put(t, c, "/a/b", "1")    // 3
	put(t, c, "/a", "2")      // 4
	put(t, c, "/beat/n", "1") // 5
	put(t, c, "/beat/n", "2") // 6, in memory
	if _, err := c.KV.Delete(ctx, "/a"); err != nil {
		t.Fatal(err) // 7
	}
	put(t, c, "/a", "3")      // 8
	put(t, c, "/beat/n", "3") // 9, in memory
	check := func(c *kubernetes.Client) {
		t.Helper()
		for rev, want := range map[int64][]string{
			0: {"/a=3@8/8/1", "/a/b=1@3/3/1", "/beat/n=3@9/5/3"},
			3: {"/a=1@2/2/1", "/a/b=1@3/3/1"},
			5: {"/a=2@4/2/2", "/a/b=1@3/3/1", "/beat/n=1@5/5/1"},
			6: {"/a=2@4/2/2", "/a/b=1@3/3/1", "/beat/n=2@6/5/2"},
			7: {"/a/b=1@3/3/1", "/beat/n=2@6/5/2"},
		} {
			if d := cmp.Diff(want, dump(t, c, "/", clientv3.WithPrefix(), clientv3.WithRev(rev))); d != "" {
				t.Errorf("at %d: %s", rev, d)
			}
		}
		if d := cmp.Diff([]string{"/a/b=1@3/3/1"}, dump(t, c, "/a\x00", clientv3.WithRange("/b"))); d != "" {
			t.Errorf("after /a: %s", d)
		}
	}
	check(c)
	if err := db.Check(ctx); err != nil {
		t.Error(err)
	}
	if err := db.Defrag(ctx); err != nil {
		t.Fatal(err)
	}
	check(c)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Verify(path); err != nil {
		t.Error(err)
	}
	db = open(t, path)
	check(db.Client(ctx))
	if got := db.Revision(); got != 9 {
		t.Errorf("revision %d after a clean stop, want 9", got)
	}
}

func TestCompactionKeepsWhatCanBeRead(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "db"))
	c := db.Client(ctx)
	for i := range 5 {
		put(t, c, "/a", fmt.Sprint(i)) // 2..6
	}
	put(t, c, "/gone", "x") // 7
	if _, err := c.KV.Delete(ctx, "/gone"); err != nil {
		t.Fatal(err) // 8
	}
	put(t, c, "/a", "last") // 9
	if _, err := c.KV.Compact(ctx, 8); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"/a=4@6/2/5"}, dump(t, c, "/a", clientv3.WithRev(8))); d != "" {
		t.Error(d)
	}
	for rev, want := range map[int64]error{7: rpctypes.ErrCompacted, 10: rpctypes.ErrFutureRev} {
		if _, err := c.KV.Get(ctx, "/a", clientv3.WithRev(rev)); !errors.Is(err, want) {
			t.Errorf("at %d: %v", rev, err)
		}
	}
	if _, err := c.KV.Compact(ctx, 8); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("compacted twice: %v", err)
	}
}

func TestUnsupportedIsAnError(t *testing.T) {
	c := open(t, filepath.Join(t.TempDir(), "db")).Client(ctx)
	for name, run := range map[string]func() error{
		"nested transaction": func() error {
			_, err := c.KV.Txn(ctx).Then(clientv3.OpTxn(nil, nil, nil)).Commit()
			return err
		},
		"sorting": func() error {
			_, err := c.KV.Get(ctx, "/", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend))
			return err
		},
		"ignore value": func() error { _, err := c.KV.Put(ctx, "/a", "", clientv3.WithIgnoreValue()); return err },
		"keep-alive":   func() error { _, err := c.Lease.KeepAliveOnce(ctx, 1); return err },
	} {
		if err := run(); err == nil || !strings.Contains(err.Error(), "does not support") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSlowWatcher reads nothing until far more happened than fits in memory, and then gets all of it, in order, with what was there before.
func TestSlowWatcher(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "db"))
	c := db.Client(ctx)
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ch := c.Watcher.Watch(wctx, "/w/", clientv3.WithPrefix(), clientv3.WithPrevKV())
	const n = historyEvents + 500
	var wg sync.WaitGroup
	for k := range 8 {
		wg.Go(func() {
			for i := range n / 8 {
				put(t, c, fmt.Sprintf("/w/%d", k), fmt.Sprint(i))
				put(t, c, fmt.Sprintf("/other/%d", k), "x")
			}
		})
	}
	wg.Wait()
	last := int64(0)
	got := map[string]int{}
	for total := 0; total < n/8*8; {
		select {
		case r := <-ch:
			if r.Err() != nil {
				t.Fatal(r.Err())
			}
			for _, e := range r.Events {
				if e.Kv.ModRevision <= last {
					t.Fatalf("revision %d after %d", e.Kv.ModRevision, last)
				}
				last = e.Kv.ModRevision
				key := string(e.Kv.Key)
				if want := fmt.Sprint(got[key]); string(e.Kv.Value) != want {
					t.Fatalf("%s is %s, want %s", key, e.Kv.Value, want)
				}
				if got[key] > 0 && (e.PrevKv == nil || string(e.PrevKv.Value) != fmt.Sprint(got[key]-1)) {
					t.Fatalf("%s was %v before", key, e.PrevKv)
				}
				got[key]++
				total++
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("only %d events", total)
		}
	}
}

func TestQuietWatcherOutlivesCompaction(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "db"))
	c := db.Client(ctx)
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ch := c.Watcher.Watch(wctx, "/quiet", clientv3.WithPrefix())
	for range 10 {
		put(t, c, "/busy", "x")
	}
	if _, err := c.KV.Compact(ctx, db.Revision()); err != nil {
		t.Fatal(err)
	}
	if err := c.Watcher.RequestProgress(ctx); err != nil {
		t.Fatal(err)
	}
	if r := <-ch; !r.IsProgressNotify() || r.Header.Revision != db.Revision() {
		t.Fatalf("%+v, want progress at %d", r, db.Revision())
	}
	put(t, c, "/quiet", "1")
	if r := <-ch; r.Err() != nil || len(r.Events) != 1 {
		t.Fatalf("%+v", r)
	}
	late := c.Watcher.Watch(wctx, "/quiet", clientv3.WithRev(3))
	if r := <-late; !errors.Is(r.Err(), rpctypes.ErrCompacted) {
		t.Fatalf("%+v, want compacted", r)
	}
}

func TestLeases(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	clk := testclock.NewFakeClock(time.Unix(1000, 0))
	reopen := func() *DB {
		db, err := Open(Config{Path: path, Clock: clk, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	db := reopen()
	c := db.Client(ctx)
	grant, err := c.Lease.Grant(ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"/e/1", "/e/2"} {
		if _, err := c.KV.Put(ctx, key, "x", clientv3.WithLease(grant.ID)); err != nil {
			t.Fatal(err)
		}
	}
	put(t, c, "/e/2", "kept") // without the lease
	if _, err := c.KV.Put(ctx, "/e/3", "x", clientv3.WithLease(99)); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Errorf("unknown lease: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = reopen()
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	c = db.Client(ctx)
	if ttl, err := c.Lease.TimeToLive(ctx, grant.ID); err != nil || len(ttl.Keys) != 1 || ttl.TTL < 59 {
		t.Errorf("%+v, %v after a restart", ttl, err)
	}
	ch := c.Watcher.Watch(ctx, "/e/", clientv3.WithPrefix())
	for !clk.HasWaiters() {
		time.Sleep(time.Millisecond)
	}
	clk.Step(62 * time.Second)
	r := <-ch
	if len(r.Events) != 1 || r.Events[0].Type != clientv3.EventTypeDelete || string(r.Events[0].Kv.Key) != "/e/1" {
		t.Errorf("%+v", r)
	}
	if got := dump(t, c, "/e/", clientv3.WithPrefix()); len(got) != 1 {
		t.Errorf("left: %v", got)
	}
}

// TestHeartbeatsRest asks that updates of volatile keys alone leave the file alone, and that a crash loses no more than them.
func TestHeartbeatsRest(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "db")
	db := open(t, path)
	c := db.Client(ctx)
	put(t, c, "/beat/n", "first")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var last int64
	for i := range 100 {
		last = put(t, c, "/beat/n", fmt.Sprint(i))
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Error("heartbeats were written")
	}
	// What a crash would leave behind.
	crashed := filepath.Join(dir, "crashed")
	if err := os.WriteFile(crashed, after, 0o600); err != nil {
		t.Fatal(err)
	}
	again := open(t, crashed)
	if got := again.Revision(); got < last {
		t.Errorf("revision %d after a crash, but %d was handed out", got, last)
	}
	if got := dump(t, again.Client(ctx), "/beat/n"); len(got) != 1 || !strings.HasPrefix(got[0], "/beat/n=first") {
		t.Errorf("%v", got)
	}
}

func TestBackup(t *testing.T) {
	dir := t.TempDir()
	db := open(t, filepath.Join(dir, "db"))
	put(t, db.Client(ctx), "/a", "1")
	f, err := os.Create(filepath.Join(dir, "copy"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Backup(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	copied := open(t, f.Name())
	if d := cmp.Diff([]string{"/a=1@2/2/1"}, dump(t, copied.Client(ctx), "/a")); d != "" {
		t.Error(d)
	}
	if copied.Revision() < db.Revision() {
		t.Error("the copy goes back in time")
	}
}

func TestVerifyFindsDamage(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "db")
	db := open(t, path)
	c := db.Client(ctx)
	for i := range 300 {
		put(t, c, fmt.Sprintf("/k/%03d", i), strings.Repeat("value", 50))
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(path); err != nil {
		t.Fatal(err)
	}
	value := bytes.LastIndex(good, []byte("valuevalue"))
	for name, damage := range map[string]func(b []byte) []byte{
		"first pages overwritten": func(b []byte) []byte { copy(b, bytes.Repeat([]byte("x"), 2*4096)); return b },
		"cut short":               func(b []byte) []byte { return b[:3*4096] },
		"all but the first pages overwritten": func(b []byte) []byte {
			copy(b[2*4096:], bytes.Repeat([]byte{0xff}, len(b)))
			return b
		},
		"not a store": func([]byte) []byte { return []byte("hello") },
	} {
		bad := filepath.Join(dir, "bad")
		if err := os.WriteFile(bad, damage(bytes.Clone(good)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Verify(bad); err == nil {
			t.Errorf("%s: not found", name)
		}
	}
	// One byte of one value, in whichever copies of the page there are.
	flipped := bytes.ReplaceAll(bytes.Clone(good), []byte("valuevalue"), []byte("valuevalux"))
	bad := filepath.Join(dir, "bad")
	if err := os.WriteFile(bad, flipped, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Verify(bad); value < 0 || err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("a changed value: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	r := &record{key: []byte("/a"), rev: 7, create: 3, version: 2, lease: 1, value: []byte("v")}
	dk := diskKey(r.key, r.rev)
	f.Add(dk, r.encode(dk))
	f.Fuzz(func(t *testing.T, dk, data []byte) {
		r, err := decode(dk, data)
		if err == nil && !bytes.Equal(diskKey(r.key, r.rev), dk) {
			t.Errorf("%q became %q", dk, diskKey(r.key, r.rev))
		}
	})
}

func BenchmarkCreate(b *testing.B) {
	for _, writers := range []int{1, 16} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			c := open(b, filepath.Join(b.TempDir(), "db")).Client(ctx)
			value := bytes.Repeat([]byte("x"), 500)
			next := make(chan int)
			var wg sync.WaitGroup
			for range writers {
				wg.Go(func() {
					for i := range next {
						resp, err := c.Kubernetes.OptimisticPut(ctx, fmt.Sprintf("/registry/configmaps/default/%08d", i), value, 0, kubernetes.PutOptions{})
						if err != nil || !resp.Succeeded {
							b.Errorf("create: %v", err)
						}
					}
				})
			}
			for i := 0; b.Loop(); i++ {
				next <- i
			}
			close(next)
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "creates/s")
		})
	}
}
