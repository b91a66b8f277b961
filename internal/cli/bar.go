package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"carob.dev/carob/internal/cli/admin"
)

// line is a line of a terminal that is drawn over and over. A nil one draws nothing.
type line struct {
	w     io.Writer
	shown string
}

// newLine returns a line if w is a terminal, else nil.
func newLine(w io.Writer) *line {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return &line{w: w}
}

func (l *line) draw(s string) {
	if l == nil || s == l.shown {
		return
	}
	l.shown = s
	fmt.Fprint(l.w, "\r", s, "\x1b[K")
}

func (l *line) clear() {
	if l == nil || l.shown == "" {
		return
	}
	l.shown = ""
	fmt.Fprint(l.w, "\r\x1b[K")
}

// drawn is how far something has come, as text.
func drawn(name string, done, total int64) string {
	const width = 30
	pct := int64(0)
	if total > 0 {
		pct = min(max(done*100/total, 0), 100)
	}
	filled := int(pct * width / 100)
	return fmt.Sprintf("%s [%s%s] %3d%%", name, strings.Repeat("=", filled), strings.Repeat(" ", width-filled), pct)
}

// pullBar draws the progress of a pull, on a terminal only.
func pullBar(w io.Writer) (func(admin.Progress), *line) {
	l := newLine(w)
	return func(p admin.Progress) {
		l.draw(fmt.Sprintf("%s %s, %d of %d layers", drawn(p.Image, p.Bytes, p.Total), megabytes(uint64(max(p.Total, 0))), p.Unpacked, p.Layers))
	}, l
}

// progress draws how much of r was read, on a terminal only.
func progress(r io.Reader, size int64, name string, w io.Writer) io.Reader {
	l := newLine(w)
	if l == nil || size <= 0 {
		return r
	}
	return &bar{r: r, size: size, name: name, line: l}
}

// bar is a reader that draws how far it has come.
type bar struct {
	r          io.Reader
	size, done int64
	name       string
	line       *line
}

// Read implements io.Reader.
func (b *bar) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.done += int64(n)
	b.line.draw(drawn(b.name, b.done, b.size))
	if err == io.EOF {
		b.line.clear()
	}
	return n, err
}
