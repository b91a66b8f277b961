package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// apply unpacks layers one on another and returns their folders, topmost first.
func apply(t testing.TB, layers ...[]byte) []string {
	t.Helper()
	requireRoot(t)
	var dirs []string
	for _, l := range layers {
		dir := t.TempDir()
		if _, err := extract(context.Background(), dir, bytes.NewReader(l), dirs, digest.FromBytes(l)); err != nil {
			t.Fatal(err)
		}
		dirs = append([]string{dir}, dirs...)
	}
	return dirs
}

// list tells all below root, sorted: folders with a slash, files with their content, links with their target.
func list(t testing.TB, root string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		name := p[len(root)+1:]
		switch {
		case d.IsDir():
			name += "/"
		case d.Type() == fs.ModeSymlink:
			to, _ := os.Readlink(p)
			name += " -> " + to
		case d.Type().IsRegular():
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			name += "=" + string(data)
		}
		out = append(out, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWhiteouts(t *testing.T) {
	below := []entry{{name: "d/"}, {name: "d/1", text: "1"}, {name: "d/2", text: "2"}, {name: "f", text: "f"}, {name: "e/"}, {name: "e/x", text: "x"}}
	for _, c := range []struct {
		name string
		top  []entry
		want []string
	}{
		{"file", []entry{{name: ".wh.f"}}, []string{"d/", "d/1=1", "d/2=2", "e/", "e/x=x"}},
		{"folder", []entry{{name: ".wh.d"}}, []string{"e/", "e/x=x", "f=f"}},
		{"inside", []entry{{name: "d/"}, {name: "d/.wh.1"}}, []string{"d/", "d/2=2", "e/", "e/x=x", "f=f"}},
		{"inside and folder not named", []entry{{name: "d/.wh.1"}}, []string{"d/", "d/2=2", "e/", "e/x=x", "f=f"}},
		{"opaque", []entry{{name: "d/"}, {name: "d/.wh..wh..opq"}, {name: "d/3", text: "3"}}, []string{"d/", "d/3=3", "e/", "e/x=x", "f=f"}},
		{"opaque and mark last", []entry{{name: "d/"}, {name: "d/3", text: "3"}, {name: "d/.wh..wh..opq"}}, []string{"d/", "d/3=3", "e/", "e/x=x", "f=f"}},
		{"replaced by folder and mark first", []entry{{name: ".wh.d"}, {name: "d/"}, {name: "d/3", text: "3"}}, []string{"d/", "d/3=3", "e/", "e/x=x", "f=f"}},
		{"replaced by folder and mark last", []entry{{name: "d/"}, {name: "d/3", text: "3"}, {name: ".wh.d"}}, []string{"d/", "d/3=3", "e/", "e/x=x", "f=f"}},
		{"replaced by file and mark last", []entry{{name: "f", text: "new"}, {name: ".wh.f"}}, []string{"d/", "d/1=1", "d/2=2", "e/", "e/x=x", "f=new"}},
		{"folder replaced by file", []entry{{name: "d", text: "file"}}, []string{"d=file", "e/", "e/x=x", "f=f"}},
		{"hard-linked mark", []entry{{name: ".wh.f"}, {name: ".wh.d", kind: tar.TypeLink, link: ".wh.f"}}, []string{"e/", "e/x=x"}},
		{"bookkeeping of aufs", []entry{{name: ".wh..wh.plnk"}, {name: "d/.wh..wh.aufs"}}, []string{"d/", "d/1=1", "d/2=2", "e/", "e/x=x", "f=f"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			layers := apply(t, layerTar(t, below...), layerTar(t, c.top...))
			if d := cmp.Diff(c.want, list(t, mountOverlay(t, layers))); d != "" {
				t.Error(d)
			}
		})
	}
}

// An opaque mark at the top hides all below, which overlay itself would not.
func TestOpaqueTop(t *testing.T) {
	requireRoot(t)
	f := newImage(t, noConfig, layerTar(t, entry{name: "a", text: "a"}), layerTar(t, entry{name: ".wh..wh..opq"}, entry{name: "b", text: "b"}), layerTar(t, entry{name: "c", text: "c"}))
	s := open(t, Config{Dir: t.TempDir()})
	if _, err := s.Import(context.Background(), bytes.NewReader(f.archive(t, "x:1")), nil); err != nil {
		t.Fatal(err)
	}
	img, err := s.Resolve(context.Background(), "x:1")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"b=b", "c=c"}, list(t, mountOverlay(t, img.Layers))); d != "" {
		t.Error(d)
	}
}

func TestAttributes(t *testing.T) {
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	dirs := apply(t, layerTar(t,
		entry{name: "f", mode: 0o4755, uid: 12, text: "f", xattr: map[string]string{"security.capability": capability, "user.a": "b", "trusted.overlay.redirect": "/etc"}},
		entry{name: "hard", kind: tar.TypeLink, link: "f", mode: 0o4755, uid: 12},
		entry{name: "fifo", kind: tar.TypeFifo},
		entry{name: "null", kind: tar.TypeChar},
		entry{name: "tmp/", mode: 0o1777},
	))
	var st, st2 unix.Stat_t
	if err := errors.Join(unix.Stat(dirs[0]+"/f", &st), unix.Stat(dirs[0]+"/hard", &st2)); err != nil {
		t.Fatal(err)
	}
	if st.Ino != st2.Ino || st.Uid != 12 || st.Mode&0o7777 != 0o4755 || st.Mtim.Sec != 1e9 {
		t.Errorf("f is %+v, hard is %+v", st, st2)
	}
	b := make([]byte, 100)
	for name, want := range map[string]string{"security.capability": capability, "user.a": "b"} {
		if n, err := unix.Getxattr(dirs[0]+"/f", name, b); err != nil || string(b[:n]) != want {
			t.Errorf("%s: %q %v", name, b[:max(n, 0)], err)
		}
	}
	if _, err := unix.Getxattr(dirs[0]+"/f", "trusted.overlay.redirect", b); !errors.Is(err, syscall.ENODATA) {
		t.Errorf("an image could set overlay's attribute: %v", err)
	}
	if fi, err := os.Stat(dirs[0] + "/tmp"); err != nil || fi.Mode()&fs.ModeSticky == 0 {
		t.Errorf("tmp: %v %v", fi, err)
	}
}

// Whatever a layer tries, nothing outside its folder changes.
func TestHostileLayers(t *testing.T) {
	requireRoot(t)
	for _, c := range []struct {
		name    string
		entries []entry
	}{
		{"dots", []entry{{name: "../../escaped", text: "x"}}},
		{"absolute", []entry{{name: "/escaped", text: "x"}}},
		{"through a link", []entry{{name: "out", kind: tar.TypeSymlink, link: "../"}, {name: "out/escaped", text: "x"}}},
		{"through an absolute link", []entry{{name: "out", kind: tar.TypeSymlink, link: "TOP"}, {name: "out/escaped", text: "x"}}},
		{"through two links", []entry{{name: "a", kind: tar.TypeSymlink, link: "b"}, {name: "b", kind: tar.TypeSymlink, link: "../.."}, {name: "a/escaped", text: "x"}}},
		{"hard link out", []entry{{name: "h", kind: tar.TypeLink, link: "../victim"}, {name: "h", text: "changed"}}},
		{"hard link through a link", []entry{{name: "out", kind: tar.TypeSymlink, link: "TOP"}, {name: "h", kind: tar.TypeLink, link: "out/victim"}, {name: "h", text: "changed"}}},
		{"mark out", []entry{{name: "out", kind: tar.TypeSymlink, link: "TOP"}, {name: "out/.wh.victim"}}},
		{"mark of the parent", []entry{{name: "d/.wh..."}, {name: ".wh..."}}},
		{"opaque out", []entry{{name: "out", kind: tar.TypeSymlink, link: "TOP"}, {name: "out/.wh..wh..opq"}}},
		{"file over link", []entry{{name: "l", kind: tar.TypeSymlink, link: "TOP/victim"}, {name: "l", text: "changed"}}},
		{"link loop", []entry{{name: "a", kind: tar.TypeSymlink, link: "a"}, {name: "a/b", text: "x"}}},
		{"file as folder", []entry{{name: "a", text: "x"}, {name: "a/b", text: "x"}}},
		{"top as file", []entry{{name: ".", kind: tar.TypeReg, text: "x"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			top := t.TempDir()
			if err := os.WriteFile(filepath.Join(top, "victim"), []byte("whole"), 0o600); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(top, "layer")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for i := range c.entries {
				c.entries[i].link = strings.Replace(c.entries[i].link, "TOP", top, 1)
			}
			l := layerTar(t, c.entries...)
			_, err := extract(context.Background(), dir, bytes.NewReader(l), nil, digest.FromBytes(l))
			t.Log("result:", err)
			entries, err := os.ReadDir(top)
			if err != nil || len(entries) != 2 {
				t.Errorf("beside the layer: %v %v", entries, err)
			}
			if data, err := os.ReadFile(filepath.Join(top, "victim")); err != nil || string(data) != "whole" {
				t.Errorf("the file outside is %q, %v", data, err)
			}
			if _, err := os.Lstat("/escaped"); err == nil {
				t.Error("escaped to the top of this machine")
			}
			if _, err := unix.Getxattr(top, "trusted.overlay.opaque", nil); !errors.Is(err, syscall.ENODATA) {
				t.Error("marked a folder outside as opaque")
			}
		})
	}
}

func TestBrokenLayers(t *testing.T) {
	requireRoot(t)
	l := layerTar(t, entry{name: "a", text: strings.Repeat("a", 5000)})
	z := gzipped0(t, l)
	for name, data := range map[string][]byte{
		"cut short": l[:2000], "packed and cut short": z[:len(z)-10], "noise": bytes.Repeat([]byte("noise"), 1000), "mark without name": layerTar(t, entry{name: ".wh."}), "mark of the parent": layerTar(t, entry{name: "d/.wh..."}), "packed badly": append(z[:20:20], z[:20]...),
	} {
		if _, err := extract(context.Background(), t.TempDir(), bytes.NewReader(data), nil, digest.FromBytes(l)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	for name, data := range map[string][]byte{"plain": l, "gzip": z, "zstd": zstded(t, l), "empty": layerTar(t)} {
		want := digest.FromBytes(l)
		if name == "empty" {
			want = digest.FromBytes(data)
		}
		if _, err := extract(context.Background(), t.TempDir(), bytes.NewReader(data), nil, want); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzLayer(f *testing.F) {
	requireRoot(f)
	f.Add(layerTar(f, entry{name: "a/"}, entry{name: "a/.wh.b"}, entry{name: "a/.wh..wh..opq"}, entry{name: "l", kind: tar.TypeSymlink, link: "../.."}, entry{name: "l/x", text: "x"}))
	f.Add(layerTar(f, entry{name: "a", text: "a"}, entry{name: "b", kind: tar.TypeLink, link: "a"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		top := t.TempDir()
		dir := filepath.Join(top, "layer")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		_, _ = extract(context.Background(), dir, bytes.NewReader(data), nil, digest.FromBytes(data))
		if entries, err := os.ReadDir(top); err != nil || len(entries) != 1 {
			t.Fatalf("beside the layer: %v %v", entries, err)
		}
	})
}
