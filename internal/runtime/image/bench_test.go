package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
)

// benchLayers are layers of about 200 MB, half compressible: one of files as big as programs are, one of many small ones.
var benchLayers = []struct {
	name string
	make func(testing.TB) []byte
}{
	{"4000 files", func(t testing.TB) []byte { return benchLayer(t, 4000, 50<<10) }},
	{"25000 files", func(t testing.TB) []byte { return benchLayer(t, 25000, 8<<10) }},
}

func benchLayer(t testing.TB, files, size int) []byte {
	var entries []entry
	for i := range 50 {
		entries = append(entries, entry{name: fmt.Sprintf("usr/share/d%d/", i)})
	}
	block := make([]byte, 0, size)
	for i := range files {
		block = block[:0]
		sum := sha256.Sum256([]byte(fmt.Sprint(i)))
		for len(block) < size {
			sum = sha256.Sum256(sum[:])
			block = append(block, sum[:]...)
			block = append(block, "the same words again and again.."...)
		}
		entries = append(entries, entry{name: fmt.Sprintf("usr/share/d%d/f%d", i*50/files, i), text: string(block)})
	}
	return layerTar(t, entries...)
}

// BenchmarkUnpack unpacks gzip layers, and beside it writes the same bytes without any unpacking: what the disk takes at least.
func BenchmarkUnpack(b *testing.B) {
	requireRoot(b)
	for _, c := range benchLayers {
		plain := c.make(b)
		packed := gzipped0(b, plain)
		id := digest.FromBytes(plain)
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			for b.Loop() {
				dir, err := os.MkdirTemp(b.TempDir(), "")
				if err != nil {
					b.Fatal(err)
				}
				if _, err := extract(context.Background(), dir, bytes.NewReader(packed), nil, id); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				os.RemoveAll(dir)
				b.StartTimer()
			}
		})
		b.Run(c.name+" floor", func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			for b.Loop() {
				if err := os.WriteFile(filepath.Join(b.TempDir(), "layer"), plain, 0o644); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
