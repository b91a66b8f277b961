package unpack

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Packing is how a blob is compressed.
type Packing int

// The ways that layers are packed.
const (
	Plain Packing = iota
	Gzip
	Zstd
)

// HeadBytes is how much PackingOf wants to see.
const HeadBytes = 4

// maxZstdWindow bounds, in bytes, what unpacking zstd keeps in memory. zstd itself uses up to 128 MiB at its highest levels.
const maxZstdWindow = 128 << 20

// PackingOf tells by a blob's first bytes. Whoever names a media type may be wrong, the bytes are not.
func PackingOf(head []byte) Packing {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return Gzip
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}), // a frame
		len(head) == 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:], []byte{0x2a, 0x4d, 0x18}): // one that may be skipped
		return Zstd
	}
	return Plain
}

// Decompress undoes gzip or zstd; anything else passes as it is.
func Decompress(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 1<<16)
	head, err := b.Peek(HeadBytes)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch PackingOf(head) {
	case Gzip:
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return z, nil
	case Zstd:
		z, err := zstd.NewReader(b, zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(b), nil
}
