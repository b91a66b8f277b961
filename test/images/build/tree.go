package main

import (
	"archive/tar"
	"bytes"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// epoch is the time of every file and image.
var epoch = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// node is a file, folder or link of an image.
type node struct {
	kind     byte // as in tar
	mode     int64
	uid, gid int
	link     string
	data     []byte
}

// tree is the content of a layer, by path without leading slash.
type tree map[string]*node

// unwanted is what containers can do without.
var unwanted = []string{
	"usr/share/doc/", "usr/share/man/", "usr/share/info/", "usr/share/locale/", "usr/share/lintian/", "usr/share/bug/",
	"usr/share/bash-completion/", "usr/share/doc-base/", "usr/share/zsh/", "usr/lib/systemd/", "etc/init.d/", "etc/logrotate.d/", "etc/ufw/",
	"etc/cron.", "usr/lib/x86_64-linux-gnu/gconv/", "usr/share/i18n/",
}

// merged puts a path where Debian has it since /bin, /lib and /sbin are links into /usr.
func merged(name string) string {
	top, rest, ok := strings.Cut(name, "/")
	switch top {
	case "bin", "sbin", "lib", "lib32", "lib64", "libx32":
		if ok {
			return "usr/" + top + "/" + rest
		}
		return "usr/" + top
	}
	return name
}

// add takes an entry of a package.
func (t tree) add(h *tar.Header, data []byte) {
	name := merged(strings.TrimPrefix(path.Clean("/"+h.Name), "/"))
	if name == "" {
		return
	}
	for _, u := range unwanted {
		if strings.HasPrefix(name+"/", u) {
			return
		}
	}
	n := &node{kind: h.Typeflag, mode: h.Mode & 0o7777, uid: h.Uid, gid: h.Gid, link: h.Linkname, data: data}
	if n.kind == tar.TypeLink {
		n.link = merged(strings.TrimPrefix(path.Clean("/"+h.Linkname), "/"))
	}
	t[name] = n
}

func (t tree) dir(name string, mode int64) { t[name] = &node{kind: tar.TypeDir, mode: mode} }

func (t tree) file(name string, mode int64, text string) {
	t.parents(name)
	t[name] = &node{kind: tar.TypeReg, mode: mode, data: []byte(text)}
}

func (t tree) symlink(name, to string) {
	t.parents(name)
	t[name] = &node{kind: tar.TypeSymlink, mode: 0o777, link: to}
}

func (t tree) hardlink(name, to string) {
	t.parents(name)
	t[name] = &node{kind: tar.TypeLink, mode: 0o755, link: to}
}

// parents adds the folders that lead to a path.
func (t tree) parents(name string) {
	for d := path.Dir(name); d != "."; d = path.Dir(d) {
		if t[d] == nil {
			t.dir(d, 0o755)
		}
	}
}

// less is t without the folders that the layers below have already.
func (t tree) less(below tree) tree {
	out := maps.Clone(t)
	maps.DeleteFunc(out, func(name string, n *node) bool {
		b := below[name]
		return n.kind == tar.TypeDir && b != nil && b.kind == tar.TypeDir && b.mode == n.mode
	})
	return out
}

// tarball writes the tree: sorted, links last, all at one time.
func (t tree) tarball(w io.Writer) error {
	names := slices.SortedFunc(maps.Keys(t), func(a, b string) int {
		if la, lb := t[a].kind == tar.TypeLink, t[b].kind == tar.TypeLink; la != lb {
			if la {
				return 1
			}
			return -1
		}
		return strings.Compare(a, b)
	})
	tw := tar.NewWriter(w)
	for _, name := range names {
		n := t[name]
		h := &tar.Header{
			Typeflag: n.kind, Name: name, Linkname: n.link, Mode: n.mode, Uid: n.uid, Gid: n.gid, Size: int64(len(n.data)),
			ModTime: epoch, Format: tar.FormatPAX,
		}
		if n.kind == tar.TypeDir {
			h.Name += "/"
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(tw, bytes.NewReader(n.data)); err != nil {
			return err
		}
	}
	return tw.Close()
}
