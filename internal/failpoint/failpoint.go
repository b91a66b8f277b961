// Package failpoint lets a test kill this process between two side effects, to see what a crash leaves there.
//
// A place where a crash should be tried calls Hit with a name of its own. In ordinary use that is one load and one branch. With
// CAROB_FAILPOINT=name or name@n in the environment the process kills itself with SIGKILL when it comes there for the first or the
// n-th time; with CAROB_FAILPOINT_LIST=file each hit appends its name as a line to the file, from which a test learns what points
// there are. Both may be set. The environment is read once, at the first hit.
//
// It imports nothing of this project, and anything may import it.
package failpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// points is what the environment asks for.
type points struct {
	name string       // where to die
	left atomic.Int64 // hits of name until then
	list *os.File     // where to write names
}

// setting is nil when nothing is asked for.
var setting = sync.OnceValue(func() *points {
	p, err := read(os.Getenv("CAROB_FAILPOINT"), os.Getenv("CAROB_FAILPOINT_LIST"))
	if err != nil {
		// Only tests set these; one that cannot be understood must not pass as a test without a crash.
		panic(err)
	}
	return p
})

// Hit is a place where the process may be told to die. Names are like image/pull/blob-named: what is done, and how far it is.
func Hit(name string) {
	if p := setting(); p != nil {
		p.hit(name)
	}
}

func read(point, list string) (*points, error) {
	if point == "" && list == "" {
		return nil, nil
	}
	name, count, counted := strings.Cut(point, "@")
	p := &points{name: name}
	p.left.Store(1)
	if counted {
		n, err := strconv.ParseInt(count, 10, 64)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("CAROB_FAILPOINT=%s: want name or name@n with n of at least 1", point)
		}
		p.left.Store(n)
	}
	if list != "" {
		f, err := os.OpenFile(list, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_CLOEXEC, 0o600)
		if err != nil {
			return nil, fmt.Errorf("CAROB_FAILPOINT_LIST: %w", err)
		}
		p.list = f
	}
	return p, nil
}

func (p *points) hit(name string) {
	if p.list != nil {
		_, _ = p.list.WriteString(name + "\n") // one write each, so that lines of several goroutines do not mix
	}
	if name == p.name && p.left.Add(-1) == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal ends the process before anything more is done
	}
}
