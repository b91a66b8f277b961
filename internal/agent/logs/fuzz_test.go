package logs

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"testing"
)

func FuzzLogLine(f *testing.F) {
	for _, s := range []string{line(1), "2026-01-02T03:04:05Z stderr P:X a b\n", "2026-01-02T03:04:05Z stdout F \n", "2026-01-02T03:04:05Z stdout P ", "x y z\n",
		"  \n", "2026-01-02T03:04:05.000000000+02:00 stdout F \x00\xff\r\n", "2026-01-02T03:04:05Z stdout FP x\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, ok := parseEntry(raw)
		if !ok {
			return
		}
		name := "stdout"
		if e.stderr {
			name = "stderr"
		}
		if !bytes.HasPrefix(raw, append(append([]byte{}, e.stamp...), " "+name+" "...)) || !bytes.Contains(raw, e.text) {
			t.Errorf("%q became %+v", raw, e)
		}
		if !e.partial && !bytes.HasSuffix(raw, e.text) {
			t.Errorf("the text of %q is not its end: %q", raw, e.text)
		}
	})
}

// FuzzLogFile holds that any files read without an error, and that the last n lines are the end of all.
func FuzzLogFile(f *testing.F) {
	f.Add([]byte(line(1)+"x y z\n"), []byte(line(2)), int64(3), false)
	f.Add([]byte("2026-01-02T03:04:05Z stdout P a\n2026-01-02T03:04:05Z stdout F b\n"), []byte("2026-01-02T03:04:05Z stdout F c\n2026-01-02T"), int64(1), true)
	f.Add([]byte{}, []byte("\n\n"), int64(-1), true)
	f.Fuzz(func(t *testing.T, old, now []byte, n int64, packed bool) {
		path := filepath.Join(t.TempDir(), "0.log")
		name := path + ".20260102-030405.000"
		if packed {
			var b bytes.Buffer
			zip := gzip.NewWriter(&b)
			zip.Write(old)
			zip.Close()
			name, old = name+".gz", b.Bytes()
		}
		for file, raw := range map[string][]byte{name: old, path: now} {
			if err := os.WriteFile(file, raw, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		var all, tail, limited bytes.Buffer
		if err := Read(path, Options{}, &all, &all); err != nil {
			t.Fatal(err)
		}
		if err := Read(path, Options{Tail: &n}, &tail, &tail); err != nil {
			t.Fatal(err)
		}
		if !bytes.HasSuffix(all.Bytes(), tail.Bytes()) {
			t.Errorf("the last %d lines of %q are %q", n, all.Bytes(), tail.Bytes())
		}
		if err := Read(path, Options{Limit: &n, Timestamps: true}, &limited, &limited); err != nil {
			t.Fatal(err)
		}
		if n >= 0 && int64(limited.Len()) > n {
			t.Errorf("%d bytes, limit %d", limited.Len(), n)
		}
	})
}
