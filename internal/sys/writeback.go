package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// EagerBytes is how much is written back at once.
const EagerBytes = 4 << 20

// WriteBack has the disk begin to write the last EagerBytes of a file that has just grown to size at, if that many have come since the last
// time. Who syncs later then waits for less. It does not wait itself, and is a hint: errors are of no interest.
func WriteBack(fd int, at, n int64) {
	if from, to := (at-n)/EagerBytes, at/EagerBytes; to > from {
		unix.SyncFileRange(fd, from*EagerBytes, (to-from)*EagerBytes, unix.SYNC_FILE_RANGE_WRITE)
	}
}

// Eager writes to a file and has the disk begin at once. The file must be empty and written by it alone.
type Eager struct {
	*os.File
	at int64
}

// Write implements io.Writer.
func (e *Eager) Write(b []byte) (int, error) {
	n, err := e.File.Write(b)
	e.at += int64(n)
	WriteBack(int(e.Fd()), e.at, int64(n))
	return n, err
}
