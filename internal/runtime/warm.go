package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/failpoint"
	"carob.dev/carob/internal/network"
	"carob.dev/carob/internal/network/ipam"
	"carob.dev/carob/internal/sys"
)

const (
	// warmMemory is how long a Pod that was asked for has a warm sandbox kept for the next one.
	warmMemory = time.Minute
	// warmQuiet is how long nothing must have been started before warm sandboxes are made: they must not slow down what is wanted now.
	warmQuiet = 20 * time.Millisecond
	// warmPause is how long no warm sandbox is made after one could not be made.
	warmPause = 10 * time.Second
)

// kind is what sandboxes differ by before they are a Pod's.
type kind struct{ sharedPID bool }

// kinds are all there are, those that matter more first.
var kinds = []kind{{false}, {true}}

// kindOf is the kind of warm sandbox that can become this Pod's. Host ports go with the address, so a Pod with some has its own made.
func kindOf(c *runtimeapi.PodSandboxConfig) (k kind, ok bool) {
	opt := c.GetLinux().GetSecurityContext().GetNamespaceOptions()
	for _, p := range c.GetPortMappings() {
		if p.GetHostPort() != 0 {
			return k, false
		}
	}
	users := opt.GetUsernsOptions()
	return kind{sharedPID: opt.GetPid() == runtimeapi.NamespaceMode_POD}, opt.GetNetwork() == runtimeapi.NamespaceMode_POD &&
		opt.GetIpc() == runtimeapi.NamespaceMode_POD && (users == nil || users.GetMode() == runtimeapi.NamespaceMode_NODE)
}

func (k kind) namespaces() []string {
	if k.sharedPID {
		return []string{"net", "uts", "ipc", "pid"}
	}
	return []string{"net", "uts", "ipc"}
}

// least is how many of a kind are kept when nothing happens.
func (k kind) least() int {
	if k.sharedPID {
		return 0
	}
	return 1
}

// wanted is how many warm sandboxes there should be when Pods were asked for at these times, oldest first: as many as in the last
// warmMemory, least at least, limit at most. until is when that may change.
func wanted(now time.Time, asked []time.Time, least, limit int) (n int, until time.Time) {
	for i, at := range asked {
		if end := at.Add(warmMemory); now.Before(end) {
			n, until = len(asked)-i, end
			break
		}
	}
	return min(max(n, least), limit), until
}

// warm keeps sandboxes ready that are nobody's: shim, pause, namespaces, link, address, /dev/shm. A Pod that takes one needs its name and its
// files only. It does nothing while Pods are being started, and holds a timer only while it has more than the least. Methods of a nil warm
// do nothing.
//
// A warm sandbox's record says that it was not made: after a crash it is taken apart as any unfinished sandbox.
type warm struct {
	r     *Runtime
	limit int
	wake  chan struct{}
	end   context.CancelFunc
	ended chan struct{}

	mu     sync.Mutex // guards what follows
	ready  map[kind][]*sandbox
	asked  map[kind][]time.Time
	busy   int       // verbs at work that start something
	idle   time.Time // since when busy is 0
	paused time.Time // until when none is made
}

// newWarm begins to keep up to limit sandboxes ready.
func newWarm(r *Runtime, limit int) *warm {
	if limit == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &warm{r: r, limit: limit, wake: make(chan struct{}, 1), end: cancel, ended: make(chan struct{}),
		ready: map[kind][]*sandbox{}, asked: map[kind][]time.Time{}}
	go w.keep(ctx)
	return w
}

// close ends the keeping and takes the warm sandboxes apart.
func (w *warm) close() error {
	if w == nil {
		return nil
	}
	w.end()
	<-w.ended
	return w.discard(w.takeAll())
}

// starting says that something is being started, until the returned function is called.
func (w *warm) starting() (done func()) {
	if w == nil {
		return func() {}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.busy--
		w.idle = w.r.cfg.Clock.Now()
		w.poke()
	}
}

func (w *warm) poke() {
	if w == nil {
		return
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take returns a warm sandbox of the kind that lives, nil if there is none, and remembers that one was asked for.
func (w *warm) take(k kind) *sandbox {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked[k] = append(w.asked[k], w.r.cfg.Clock.Now())
	if n := len(w.asked[k]) - w.limit; n > 0 {
		w.asked[k] = w.asked[k][n:]
	}
	for i, sb := range w.ready[k] {
		if w.r.alive(sb) {
			w.ready[k] = append(w.ready[k][:i:i], w.ready[k][i+1:]...)
			return sb
		}
	}
	return nil
}

func (w *warm) takeAll() (all []*sandbox) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, list := range w.ready {
		all = append(all, list...)
	}
	clear(w.ready)
	return all
}

func (w *warm) discard(list []*sandbox) error {
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, sb := range list {
		wg.Go(func() { errs[i] = w.r.destroySandbox(context.Background(), sb) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// alive says whether a sandbox has its pause and its shim.
func (r *Runtime) alive(sb *sandbox) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !sb.dead && sb.client != nil
}

// keep works until ctx ends.
func (w *warm) keep(ctx context.Context) {
	defer close(w.ended)
	for {
		now := w.r.cfg.Clock.Now()
		lack, any, surplus, at := w.plan(now)
		if err := w.discard(surplus); err != nil {
			w.r.cfg.Log.Warn("a warm sandbox could not be taken apart", "error", err)
		}
		if any {
			sb, err := w.r.makeWarm(ctx, lack)
			w.put(lack, sb, err)
			continue
		}
		var due <-chan time.Time
		stop := func() bool { return false }
		if !at.IsZero() {
			timer := w.r.cfg.Clock.NewTimer(at.Sub(now))
			due, stop = timer.C(), timer.Stop
		}
		select {
		case <-ctx.Done():
			stop()
			return
		case <-w.wake:
			stop()
		case <-due:
		}
	}
}

// plan decides what there is to do: whether one of the kind lack is to be made, which are too many or dead, and when to look again.
func (w *warm) plan(now time.Time) (lack kind, any bool, surplus []*sandbox, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	sooner := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	left := w.limit
	for _, k := range kinds {
		n, until := wanted(now, w.asked[k], k.least(), left)
		left -= n
		var living []*sandbox
		for _, sb := range w.ready[k] {
			if len(living) < n && w.r.alive(sb) {
				living = append(living, sb)
			} else {
				surplus = append(surplus, sb)
			}
		}
		w.ready[k] = living
		sooner(until)
		if len(living) < n && !any {
			lack, any = k, true
		}
	}
	if !any {
		return lack, false, surplus, at
	}
	free := w.idle.Add(warmQuiet)
	if free.Before(w.paused) {
		free = w.paused
	}
	switch {
	case w.busy > 0:
		return lack, false, surplus, at // the end of that wakes
	case now.Before(free):
		sooner(free)
		return lack, false, surplus, at
	}
	return lack, true, surplus, at
}

// put takes in what makeWarm returned.
func (w *warm) put(k kind, sb *sandbox, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.ready[k] = append(w.ready[k], sb)
		return
	}
	w.paused = w.r.cfg.Clock.Now().Add(warmPause)
	if !errors.Is(err, ipam.ErrExhausted) && !errors.Is(err, context.Canceled) {
		w.r.cfg.Log.Warn("a warm sandbox could not be made; Pods have theirs made when they come", "error", err)
	}
}

// makeWarm makes a sandbox that is nobody's yet. On an error nothing is left.
func (r *Runtime) makeWarm(ctx context.Context, k kind) (*sandbox, error) {
	sb := r.newSandbox()
	err := r.raiseSandbox(ctx, sb, k.namespaces())
	if err == nil {
		err = sys.InNamespaces(sb.rec.PausePID, []string{"net"}, func() error { openToAll(); return nil })
	}
	if err == nil {
		err = r.connectWarm(ctx, &sb.rec)
	}
	if err != nil {
		return nil, errors.Join(err, r.destroySandbox(context.WithoutCancel(ctx), sb))
	}
	failpoint.Hit("runtime/warm/ready")
	return sb, nil
}

func (r *Runtime) connectWarm(ctx context.Context, rec *sandboxRecord) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", rec.PausePID))
	if err != nil {
		return err
	}
	defer ns.Close()
	result, err := r.cfg.Network.Attach(ctx, network.Request{SandboxID: rec.ID, NetNS: ns})
	rec.IPs = result.IPs
	return err
}

// attach connects a Pod. Where the node has no address left, the warm sandboxes give theirs back.
func (r *Runtime) attach(ctx context.Context, req network.Request) (network.Result, error) {
	result, err := r.cfg.Network.Attach(ctx, req)
	if r.warm == nil || !errors.Is(err, ipam.ErrExhausted) {
		return result, err
	}
	spare := r.warm.takeAll()
	if len(spare) == 0 {
		return result, err
	}
	if err := r.warm.discard(spare); err != nil {
		r.cfg.Log.Warn("a warm sandbox could not be taken apart", "error", err)
	}
	// An address is free once its link is gone, some ten milliseconds after its namespace.
	for range 100 {
		t := r.cfg.Clock.NewTimer(10 * time.Millisecond)
		select {
		case <-t.C():
		case <-ctx.Done():
			t.Stop()
			return result, ctx.Err()
		}
		if result, err = r.cfg.Network.Attach(ctx, req); !errors.Is(err, ipam.ErrExhausted) {
			break
		}
	}
	return result, err
}
