package ipam

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPool(t *testing.T) {
	for _, tc := range []struct {
		prefix string
		want   []string
	}{
		{"10.0.0.0/29", []string{"10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"}},
		{"10.0.0.9/30", []string{"10.0.0.10"}},
		{"fd00::/126", []string{"fd00::2", "fd00::3"}},
	} {
		p, err := NewPool(netip.MustParsePrefix(tc.prefix))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for {
			addr, err := p.Take()
			if err != nil {
				if !errors.Is(err, ErrExhausted) {
					t.Error(err)
				}
				break
			}
			got = append(got, addr.String())
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: %s", tc.prefix, diff)
		}
	}
	for _, bad := range []netip.Prefix{{}, netip.MustParsePrefix("10.0.0.0/31"), netip.MustParsePrefix("fd00::1/128")} {
		if _, err := NewPool(bad); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

func TestPoolGivesFreedAddressesLast(t *testing.T) {
	p, err := NewPool(netip.MustParsePrefix("10.0.0.0/29"))
	if err != nil {
		t.Fatal(err)
	}
	first, _ := p.Take()
	p.Free(first)
	if next, _ := p.Take(); next == first {
		t.Errorf("%s was given out again at once", first)
	}
	for _, bad := range []string{"10.0.0.0", "10.0.0.1", "10.0.0.7", "10.0.1.2", "fd00::2", "10.0.0.3"} {
		if err := p.Claim(netip.MustParseAddr(bad)); err == nil {
			t.Errorf("%s could be claimed", bad)
		}
	}
}

func open(t *testing.T, dir string, ranges ...string) *Ledger {
	t.Helper()
	var prefixes []netip.Prefix
	for _, r := range ranges {
		prefixes = append(prefixes, netip.MustParsePrefix(r))
	}
	l, err := Open(dir, prefixes, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLedgerSurvivesRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "leases")
	l := open(t, dir, "10.0.0.0/24", "fd00::/64")
	a, err := l.Acquire("a", json.RawMessage(`{"x":1}`))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := l.Acquire("a", json.RawMessage(`{"x":2}`)); err != nil || again.Addrs[0] != a.Addrs[0] {
		t.Errorf("%v, %v", again, err)
	}
	if _, err := l.Acquire("b", nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Release("b"), l.Release("b")); err != nil {
		t.Fatal(err)
	}
	// What a crash, a power cut or somebody else may have left.
	for name, data := range map[string]string{
		".c.json.tmp-1": "half", "c.json": "", "d.json": `{"version":9,"owner":"d"}`, "e.json": `{"version":1,"owner":"f","addrs":["10.0.0.9","fd00::9"]}`,
		"g.json": `{"version":1,"owner":"g","addrs":["10.0.0.2","fd00::9"]}`, "h.json": `{"version":1,"owner":"h","addrs":["10.0.0.7"]}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l = open(t, dir, "10.0.0.0/24", "fd00::/64")
	want := []Lease{{Version: 1, Owner: "a", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")}, Note: json.RawMessage(`{"x":2}`)}}
	if diff := cmp.Diff(want, l.List(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("files left: %v, %v", entries, err)
	}
}

func TestLedgerTakesNothingWhenOneRangeIsFull(t *testing.T) {
	l := open(t, t.TempDir(), "10.0.0.0/24", "fd00::/126")
	for _, id := range []string{"a", "b"} {
		if _, err := l.Acquire(id, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Acquire("c", nil); !errors.Is(err, ErrExhausted) {
		t.Fatalf("got %v", err)
	}
	if got := len(l.pools[0].used); got != 2 {
		t.Errorf("%d addresses of the other range are taken, want 2", got)
	}
	for _, bad := range []string{"", "../x", ".hidden", "a/b"} {
		if _, err := l.Acquire(bad, nil); err == nil {
			t.Errorf("owner %q was accepted", bad)
		}
		if err := l.Release(bad); err == nil {
			t.Errorf("owner %q was released", bad)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"version":1,"owner":"a","addrs":["10.0.0.2"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if lease, err := decode(data); err == nil && !ownerPattern.MatchString(lease.Owner) {
			t.Errorf("owner %q", lease.Owner)
		}
	})
}
