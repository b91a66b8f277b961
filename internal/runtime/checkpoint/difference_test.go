package checkpoint

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestDifference lets a shell work in an overlay and compares what is written of it.
func TestDifference(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	const below = "mkdir -p 1/etc 1/d/sub 1/gone 2/d; echo a >1/etc/a; echo b >1/etc/b; echo c >1/d/c; echo e >1/d/e; echo f >2/d/f; mknod 2/d/e c 0 0; echo g >1/gone/g; echo h >1/h"
	for name, tc := range map[string]struct {
		script        string
		want, deleted []string
	}{
		"nothing":            {"true", nil, []string{}},
		"add and change":     {"echo new >etc/a; echo n >n; chmod 640 n; chown 5:6 n", []string{"etc/ 755", "etc/a 644 new", "n 640 5:6 n"}, []string{}},
		"remove":             {"rm etc/a h; rm -r gone", []string{"etc/ 755"}, []string{"/etc/a", "/gone", "/h"}},
		"remove and anew":    {"rm -r d; mkdir d; echo new >d/f", []string{"d/ 755", "d/f 644 new"}, []string{"/d/c", "/d/sub"}},
		"file for folder":    {"rm -r d; echo d >d", []string{"d 644 d"}, []string{}},
		"folder for file":    {"rm h; mkdir h; echo x >h/x", []string{"h/ 755", "h/x 644 x"}, []string{}},
		"links":              {"echo l >l1; ln l1 l2; ln -s ../../etc/shadow s", []string{"l1 644 l", "l2 -> l1", "s => ../../etc/shadow"}, []string{}},
		"special":            {"mkfifo p; mknod n c 1 3", []string{"n c 1:3", "p p"}, []string{}},
		"attribute":          {"echo x >x; setfattr -n user.k -v val x 2>/dev/null || python3 -c 'import os; os.setxattr(\"x\", \"user.k\", b\"val\")'", []string{"x 644 x [user.k=val]"}, []string{}},
		"set-uid and sticky": {"echo x >x; chmod 4755 x; mkdir t; chmod 1777 t", []string{"t/ 1777", "x 4755 x"}, []string{}},
		"deep and removed":   {"mkdir -p a/b; echo c >a/b/c; rm -r a/b; mkdir a/b", []string{"a/ 755", "a/b/ 755"}, []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if out, err := shell(dir, "mkdir 1 2 upper work merged; "+below); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			at := func(name string) string { return filepath.Join(dir, name) }
			options := fmt.Sprintf("lowerdir=%s:%s,upperdir=%s,workdir=%s,redirect_dir=off", at("2"), at("1"), at("upper"), at("work"))
			if err := unix.Mount("overlay", at("merged"), "overlay", 0, options); err != nil {
				t.Fatal(err)
			}
			out, err := shell(at("merged"), tc.script)
			if e := unix.Unmount(at("merged"), unix.MNT_DETACH); e != nil || err != nil {
				t.Fatalf("%v, %v\n%s", err, e, out)
			}
			var b bytes.Buffer
			deleted, err := writeDifference(&b, at("upper"), []string{at("2"), at("1")})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, list(t, &b)); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(tc.deleted, deleted); d != "" {
				t.Error(d)
			}
		})
	}
}

func shell(dir, script string) ([]byte, error) {
	cmd := exec.Command("sh", "-ec", "umask 022; "+script)
	cmd.Dir = dir
	return cmd.CombinedOutput()
}

func list(t *testing.T, r io.Reader) (lines []string) {
	t.Helper()
	for r := tar.NewReader(r); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%s %o", h.Name, h.Mode)
		if h.Uid+h.Gid > 0 {
			line += fmt.Sprintf(" %d:%d", h.Uid, h.Gid)
		}
		switch h.Typeflag {
		case tar.TypeReg:
			line += " " + strings.TrimSpace(string(text))
		case tar.TypeLink:
			line = h.Name + " -> " + h.Linkname
		case tar.TypeSymlink:
			line = h.Name + " => " + h.Linkname
		case tar.TypeChar:
			line = fmt.Sprintf("%s c %d:%d", h.Name, h.Devmajor, h.Devminor)
		case tar.TypeFifo:
			line = h.Name + " p"
		}
		for k, v := range h.PAXRecords {
			if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
				line += " [" + name + "=" + v + "]"
			}
		}
		lines = append(lines, line)
	}
}

// TestRedirect holds that what the format cannot tell is an error, not a loss.
func TestRedirect(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(dir+"/d", 0o755), unix.Setxattr(dir+"/d", "trusted.overlay.redirect", []byte("/old"), 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := writeDifference(io.Discard, dir, nil); err == nil || !strings.Contains(err.Error(), "/d:") {
		t.Error(err)
	}
}
