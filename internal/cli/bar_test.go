package cli

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"carob.dev/carob/internal/cli/admin"
)

func TestDrawn(t *testing.T) {
	for _, c := range []struct {
		done, total int64
		want        string
	}{
		{0, 0, "x [" + strings.Repeat(" ", 30) + "]   0%"},
		{50, 100, "x [" + strings.Repeat("=", 15) + strings.Repeat(" ", 15) + "]  50%"},
		{200, 100, "x [" + strings.Repeat("=", 30) + "] 100%"},
		{-1, 100, "x [" + strings.Repeat(" ", 30) + "]   0%"},
	} {
		if got := drawn("x", c.done, c.total); got != c.want {
			t.Errorf("%d of %d: %q", c.done, c.total, got)
		}
	}
}

// What is no terminal sees none of it.
func TestNoTerminal(t *testing.T) {
	var out bytes.Buffer
	draw, l := pullBar(&out)
	draw(admin.Progress{Image: "x", Bytes: 1, Total: 2})
	l.clear()
	if _, err := io.Copy(io.Discard, progress(strings.NewReader("abc"), 3, "x", &out)); err != nil || out.Len() > 0 {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func TestLine(t *testing.T) {
	var out bytes.Buffer
	l := &line{w: &out}
	l.draw("a")
	l.draw("a")
	l.draw("b")
	l.clear()
	l.clear()
	if got := out.String(); got != "\ra\x1b[K\rb\x1b[K\r\x1b[K" {
		t.Errorf("%q", got)
	}
}

func TestPrintImages(t *testing.T) {
	var out bytes.Buffer
	unique := uint64(1_000_000)
	if err := printImages(&out, []admin.Image{
		{ID: "sha256:0123456789abcdef", Tags: []string{"a:1", "b:2"}, SizeBytes: 12_340_000, UniqueBytes: &unique},
		{ID: "sha256:fedcba9876543210", SizeBytes: 50_000},
	}); err != nil {
		t.Fatal(err)
	}
	want := "IMAGE   ID            SIZE    UNIQUE\na:1     0123456789ab  12.3MB  1.0MB\nb:2     0123456789ab  12.3MB  1.0MB\n<none>  fedcba987654  0.1MB   -\n"
	if out.String() != want {
		t.Errorf("got\n%s", out.String())
	}
}
