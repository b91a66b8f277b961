package idrange

import (
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestRanges(t *testing.T) {
	dir := t.TempDir()
	open := func() *Ranges {
		t.Helper()
		r, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := open()
	take := func(uid types.UID, want uint32) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, string(uid)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := r.Take(uid); err != nil {
			t.Fatal(err)
		}
		u := r.Of(uid)
		if u.GetUids()[0].GetHostId() != want || u.GetUids()[0].GetContainerId() != 0 || u.GetGids()[0].GetLength() != Length {
			t.Errorf("%s has %v, want %d", uid, u, want)
		}
	}
	take("a", 1<<16)
	take("b", 2<<16)
	take("a", 1<<16)
	if r.Of("c") != nil {
		t.Error("a Pod that took none has a range")
	}
	r = open()
	take("c", 3<<16)
	take("b", 2<<16)
	if err := r.Release("a"); err != nil {
		t.Fatal(err)
	}
	if err := r.Release("a"); err != nil {
		t.Error(err)
	}
	take("d", 1<<16)
	// A record that says nothing, or what another one says, is as none.
	for uid, text := range map[string]string{"e": "{", "f": `{"version":1,"first":7}`, "g": `{"version":1,"first":0}`, "z": `{"version":1,"first":131072}`} {
		if err := os.MkdirAll(filepath.Join(dir, uid), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, uid, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r = open()
	for _, uid := range []types.UID{"e", "f", "g", "z"} {
		if u := r.Of(uid); u != nil {
			t.Errorf("%s has %v", uid, u)
		}
	}
	take("z", 4<<16)
	// What a sandbox has stays its Pod's though the record is lost, and is given to nobody else.
	ids := []*runtimeapi.IDMapping{{HostId: 5 << 16, Length: Length}}
	for range 2 {
		if err := r.Keep("e", &runtimeapi.UserNamespace{Uids: ids, Gids: ids}); err != nil {
			t.Fatal(err)
		}
	}
	take("e", 5<<16)
	take("f", 6<<16)
	if err := r.Keep("g", nil); err != nil || r.Of("g") != nil {
		t.Errorf("%v %v", r.Of("g"), err)
	}
	r = open()
	take("e", 5<<16)
	if err := r.Take("no-folder"); err == nil {
		t.Error("a range was given out that is not written down")
	}
}
