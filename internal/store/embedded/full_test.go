package embedded

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
)

// TestFullDisk fills a file system, and asks for a clear error, for nothing lost, and for work to go on once there is room.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "db")
	db := open(t, path)
	c := db.Client(ctx)
	value := strings.Repeat("x", 2000)
	written := 0
	var err error
	for ; written < 2000; written++ {
		if _, err = c.KV.Put(ctx, fmt.Sprintf("/k/%04d", written), value); err != nil {
			break
		}
	}
	if !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Fatalf("after %d writes: %v", written, err)
	}
	check := func(want int) {
		t.Helper()
		if got := len(dump(t, c, "/k/", clientv3.WithPrefix())); got != want {
			t.Errorf("%d keys, want %d", got, want)
		}
	}
	check(written)
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=4m"); err != nil {
		t.Fatal(err)
	}
	put(t, c, "/k/more", value)
	check(written + 1)
	if err := db.Check(ctx); err != nil {
		t.Error(err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if err := Verify(path); err != nil {
		t.Error(err)
	}
}
