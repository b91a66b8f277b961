package logs

import (
	"bufio"
	"io"
)

// seekTail leaves out files, and moves in the first that stays, so that the last n lines are left. A line's entries stay together unless
// the other stream wrote between them.
func (r *reader) seekTail(n int64) error {
	n = max(n, 0)
	newest := true
	for i := len(r.files) - 1; i >= 0; i-- {
		seek := (*file).lastLines
		if r.files[i].unpack != nil {
			seek = (*file).lastPackedLines
		}
		found, whole, err := seek(r.files[i], n, newest)
		if err != nil {
			return err
		}
		newest = false
		if n -= found; !whole {
			closeAll(r.files[:i])
			r.files = r.files[i:]
			return nil
		}
	}
	return nil
}

// lastLines moves to where the last n lines begin, and says how many there are, and whether it is all that the file has, so that an older
// one may have more. In the newest file a line that is not complete counts as one.
func (f *file) lastLines(n int64, newest bool) (found int64, whole bool, err error) {
	none := newest && n == 0
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, false, err
	}
	const block = 32 << 10
	buf, head := make([]byte, block), make([]byte, maxHead)
	next := int64(-1) // where the entry begins that was found last, or the end of the last whole one
	last := false     // it is that end
	for end > 0 {
		begin := max(end-block, 0)
		b := buf[:end-begin]
		if _, err := f.ReadAt(b, begin); err != nil && err != io.EOF {
			return 0, false, err
		}
		for i := len(b) - 1; i >= -1; i-- {
			start := begin + int64(i) + 1
			if i >= 0 && b[i] != '\n' || i < 0 && begin > 0 {
				continue
			}
			if next < 0 && i >= 0 {
				next, last = start, true
				continue
			}
			if next < 0 {
				break // there is no whole entry
			}
			k, err := f.ReadAt(head, start)
			if err != nil && err != io.EOF {
				return 0, false, err
			}
			if ok, ends := endsLine(head[:k]); ends || ok && last && newest {
				if found == n && (ends || none) {
					_, err := f.Seek(next, io.SeekStart)
					return found, false, err
				}
				found++
			}
			next, last = start, false
		}
		end = begin
	}
	_, err = f.Seek(0, io.SeekStart)
	return found, !none, err
}

// lastPackedLines is lastLines for a file that can only be read from its beginning: it counts first.
func (f *file) lastPackedLines(n int64, _ bool) (found int64, whole bool, err error) {
	total := int64(0)
	buf := bufio.NewReaderSize(f, 32<<10)
	for {
		ends, more, err := nextEntry(buf)
		if err != nil {
			return 0, false, err
		}
		if ends {
			total++
		}
		if !more {
			break
		}
	}
	if err := f.rewind(); err != nil {
		return 0, false, err
	}
	f.skip = max(total-n, 0)
	return min(total, n), total <= n, nil
}

// nextEntry reads over an entry. It says whether the entry ends a line, and whether there may be more.
func nextEntry(b *bufio.Reader) (ends, more bool, err error) {
	line, err := b.ReadSlice('\n')
	_, ends = endsLine(line[:min(len(line), maxHead)])
	for err == bufio.ErrBufferFull {
		_, err = b.ReadSlice('\n')
	}
	if err == io.EOF {
		return false, false, nil
	}
	return ends, true, err
}
