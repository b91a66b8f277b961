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

// BenchmarkUnpack unpacks a gzip layer of about 200 MB in 4,000 files of half-compressible content, and beside it reads and
// writes the same bytes without any unpacking: what the disk takes at least.
func BenchmarkUnpack(b *testing.B) {
	requireRoot(b)
	var entries []entry
	block := make([]byte, 0, 50<<10)
	for i := range 4000 {
		block = block[:0]
		sum := sha256.Sum256([]byte(fmt.Sprint(i)))
		for len(block) < 50<<10 {
			sum = sha256.Sum256(sum[:])
			block = append(block, sum[:]...)
			block = append(block, "the same words again and again.."...)
		}
		entries = append(entries, entry{name: fmt.Sprintf("d%d/f%d", i%50, i), text: string(block)})
	}
	plain := layerTar(b, entries...)
	packed := gzipped0(b, plain)
	id := digest.FromBytes(plain)
	b.Run("unpack", func(b *testing.B) {
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
	b.Run("floor", func(b *testing.B) {
		b.SetBytes(int64(len(plain)))
		for b.Loop() {
			dir := b.TempDir()
			for i, e := range entries {
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte(e.text), 0o644); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
