// Package idrange gives each Pod that has a user namespace of its own a range of user and group IDs that no other Pod on the node has.
//
// It may import sys. A range is written down in the Pod's folder before it is given out, and is the Pod's until it is released.
package idrange

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/sys"
)

const (
	// Length is how many IDs a Pod has, as kubelet has it.
	Length = 1 << 16
	// ranges is how many there are: the first belongs to the machine, and the last has the ID that means none.
	ranges = 1<<16 - 1
	// file is the name of the record in a Pod's folder.
	file          = "userns.json"
	recordVersion = 1
)

// record is what is kept of a Pod's range on disk.
type record struct {
	Version int    `json:"version"`
	First   uint32 `json:"first"`
}

// Ranges are the node's.
type Ranges struct {
	dir string

	mu    sync.Mutex // guards the rest, and is held while a record is written
	of    map[types.UID]uint32
	taken map[uint32]bool
}

// Open reads the ranges of the Pods whose folders are in dir, the folder of all Pods. A Pod whose record cannot be understood has none.
func Open(dir string) (*Ranges, error) {
	r := &Ranges{dir: dir, of: map[types.UID]uint32{}, taken: map[uint32]bool{}}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("ranges of user IDs: %w", err)
	}
	for _, e := range entries {
		var rec record
		raw, err := os.ReadFile(filepath.Join(dir, e.Name(), file))
		if err != nil || json.Unmarshal(raw, &rec) != nil || rec.Version != recordVersion || rec.First == 0 || rec.First%Length != 0 || r.taken[rec.First] {
			continue
		}
		r.of[types.UID(e.Name())], r.taken[rec.First] = rec.First, true
	}
	return r, nil
}

// Take gives the Pod a range, the one that it has if it has one. Its folder must exist.
func (r *Ranges) Take(uid types.UID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.of[uid]; ok {
		return nil
	}
	for i := uint32(1); i < ranges; i++ {
		first := i * Length
		if r.taken[first] {
			continue
		}
		return r.give(uid, first)
	}
	return errors.New("range of user IDs: all are taken")
}

// give writes down that the range is the Pod's. r.mu is held.
func (r *Ranges) give(uid types.UID, first uint32) error {
	raw, err := json.Marshal(record{Version: recordVersion, First: first})
	if err != nil {
		return err
	}
	if err := sys.WriteFileVolatile(filepath.Join(r.dir, string(uid), file), raw, 0o600); err != nil {
		return fmt.Errorf("range of user IDs: %w", err)
	}
	r.of[uid], r.taken[first] = first, true
	return nil
}

// Keep gives the Pod the range that its sandbox has, if its record was lost. Nil, and what is no range of the kind that is given out, changes
// nothing.
func (r *Ranges) Keep(uid types.UID, u *runtimeapi.UserNamespace) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(u.GetUids()) != 1 {
		return nil
	}
	first := u.GetUids()[0].GetHostId()
	if _, ok := r.of[uid]; ok || first == 0 || first%Length != 0 || r.taken[first] {
		return nil
	}
	return r.give(uid, first)
}

// Of is the Pod's range as the CRI has it; nil if it has none.
func (r *Ranges) Of(uid types.UID) *runtimeapi.UserNamespace {
	r.mu.Lock()
	defer r.mu.Unlock()
	first, ok := r.of[uid]
	if !ok {
		return nil
	}
	ids := func() []*runtimeapi.IDMapping { return []*runtimeapi.IDMapping{{HostId: first, Length: Length}} }
	return &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids(), Gids: ids()}
}

// Release takes the Pod's range back, if it has one. Nothing of the Pod may run.
func (r *Ranges) Release(uid types.UID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := os.Remove(filepath.Join(r.dir, string(uid), file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("range of user IDs: %w", err)
	}
	if first, ok := r.of[uid]; ok {
		delete(r.of, uid)
		delete(r.taken, first)
	}
	return nil
}
