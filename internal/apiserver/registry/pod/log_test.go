package pod

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// TestLogEndsApart: the last of a log is not lost on those who look at the error before they look at what was read.
func TestLogEndsApart(t *testing.T) {
	for _, log := range []string{"", "one line\n", strings.Repeat("many lines\n", 1000)} {
		r := endsApart{io.NopCloser(iotest.DataErrReader(strings.NewReader(log)))}
		var got strings.Builder
		for buf := make([]byte, 100); ; {
			n, err := r.Read(buf)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got.Write(buf[:n])
		}
		if got.String() != log {
			t.Errorf("of %d bytes %d arrived", len(log), got.Len())
		}
	}
}
