package ipam

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"carob.dev/carob/internal/sys"
)

// version is the layout of a lease on disk.
const version = 1

// suffix ends the name of every lease file, so that temporary files are not taken for leases.
const suffix = ".json"

var ownerPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

// Lease is what one owner holds.
type Lease struct {
	Version int `json:"version"`
	// Owner is the sandbox ID.
	Owner string `json:"owner"`
	// Addrs has one address of each range, in the order of the ranges.
	Addrs []netip.Addr `json:"addrs"`
	// Note is the caller's, kept with the lease.
	Note json.RawMessage `json:"note,omitempty"`
}

// Ledger is the leases of a node, one file each. It is safe for concurrent use.
//
// A lease lives no longer than the kernel it was made under, so files are written whole but not flushed to the disk: after a
// power cut a file may be empty, and such a lease is dropped, for its owner is gone too.
type Ledger struct {
	dir string

	mu     sync.Mutex // guards pools and leases
	pools  []*Pool
	leases map[string]Lease
}

// Open reads the leases below dir, which it makes if it is missing. A lease that cannot be read, or whose addresses are not in
// ranges (the node's range was changed) or are another's, is kept out and its file removed; each is logged.
func Open(dir string, ranges []netip.Prefix, log *slog.Logger) (*Ledger, error) {
	l := &Ledger{dir: dir, leases: map[string]Lease{}}
	for _, r := range ranges {
		pool, err := NewPool(r)
		if err != nil {
			return nil, err
		}
		l.pools = append(l.pools, pool)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open address leases: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open address leases: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		err := l.load(path)
		if err == nil {
			continue
		}
		log.Warn("dropping an address lease that cannot be used", "file", path, "err", err)
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("drop address lease: %w", err)
		}
	}
	return l, nil
}

func (l *Ledger) load(path string) error {
	if !strings.HasSuffix(path, suffix) {
		return errors.New("not a lease")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	lease, err := decode(data)
	if err != nil {
		return err
	}
	if lease.Owner+suffix != filepath.Base(path) {
		return fmt.Errorf("file holds the lease of %q", lease.Owner)
	}
	if len(lease.Addrs) != len(l.pools) {
		return fmt.Errorf("lease has %d addresses, the node has %d ranges", len(lease.Addrs), len(l.pools))
	}
	for i, addr := range lease.Addrs {
		if err := l.pools[i].Claim(addr); err != nil {
			for j := range i {
				l.pools[j].Free(lease.Addrs[j])
			}
			return err
		}
	}
	l.leases[lease.Owner] = lease
	return nil
}

func decode(data []byte) (Lease, error) {
	var lease Lease
	if err := json.Unmarshal(data, &lease); err != nil {
		return Lease{}, err
	}
	if lease.Version != version {
		return Lease{}, fmt.Errorf("version %d is not %d", lease.Version, version)
	}
	if !ownerPattern.MatchString(lease.Owner) {
		return Lease{}, fmt.Errorf("owner %q is not valid", lease.Owner)
	}
	return lease, nil
}

// Acquire gives owner an address of each range and records note with it. An owner that has a lease keeps its addresses, and
// the note is replaced. The error wraps ErrExhausted when a range has no address left.
func (l *Ledger) Acquire(owner string, note json.RawMessage) (Lease, error) {
	if !ownerPattern.MatchString(owner) {
		return Lease{}, fmt.Errorf("acquire address: owner %q is not valid", owner)
	}
	lease, had, err := l.reserve(owner, note)
	if err != nil {
		return Lease{}, fmt.Errorf("acquire address for %s: %w", owner, err)
	}
	data, err := json.Marshal(lease)
	if err == nil {
		err = sys.WriteFileVolatile(l.path(owner), data, 0o600)
	}
	if err != nil {
		if !had {
			l.forget(owner)
		}
		return Lease{}, fmt.Errorf("acquire address for %s: %w", owner, err)
	}
	return lease, nil
}

func (l *Ledger) reserve(owner string, note json.RawMessage) (lease Lease, had bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lease, had = l.leases[owner]
	if !had {
		lease = Lease{Version: version, Owner: owner}
		for _, pool := range l.pools {
			addr, err := pool.Take()
			if err != nil {
				for i, a := range lease.Addrs {
					l.pools[i].Free(a)
				}
				return Lease{}, false, err
			}
			lease.Addrs = append(lease.Addrs, addr)
		}
	}
	lease.Note = note
	l.leases[owner] = lease
	return lease, had, nil
}

func (l *Ledger) forget(owner string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, addr := range l.leases[owner].Addrs {
		l.pools[i].Free(addr)
	}
	delete(l.leases, owner)
}

// Release gives back what owner holds. Releasing nothing does nothing.
func (l *Ledger) Release(owner string) error {
	if !ownerPattern.MatchString(owner) {
		return fmt.Errorf("release address: owner %q is not valid", owner)
	}
	if err := os.Remove(l.path(owner)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("release address of %s: %w", owner, err)
	}
	l.forget(owner)
	return nil
}

// Get returns the lease of owner, if it has one.
func (l *Ledger) Get(owner string) (Lease, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lease, ok := l.leases[owner]
	return lease, ok
}

// List returns all leases by owner's name.
func (l *Ledger) List() []Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.SortedFunc(maps.Values(l.leases), func(a, b Lease) int { return strings.Compare(a.Owner, b.Owner) })
}

func (l *Ledger) path(owner string) string { return filepath.Join(l.dir, owner+suffix) }
