package scheduler

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
)

// How long a Pod that did not fit waits, as in Kubernetes: after a change that might help, backoff doubling from the first to the last of the
// bounds since it failed; without any, five minutes.
const (
	firstBackoff = time.Second
	lastBackoff  = 10 * time.Second
	parkedFor    = 5 * time.Minute
)

func backoff(attempts int) time.Duration {
	d := firstBackoff
	for i := 1; i < attempts && d < lastBackoff; i++ {
		d *= 2
	}
	return min(d, lastBackoff)
}

// item is one Pod that waits for a node.
type item struct {
	pod      *corev1.Pod
	added    time.Time
	attempts int
	failed   time.Time
	ready    time.Time // not tried before
	parked   bool      // did not fit, and nothing changed since
}

func priority(p *corev1.Pod) int32 {
	if p.Spec.Priority != nil {
		return *p.Spec.Priority
	}
	return 0
}

// queue hands out waiting Pods, those of higher priority first, then those that wait longer.
type queue struct {
	clock clock.Clock
	wakeC chan struct{} // capacity 1

	mu    sync.Mutex // guards what follows
	items map[types.UID]*item
	moves int // how often wake ran: a failure that an event overtook is not parked
}

func newQueue(c clock.Clock) *queue {
	return &queue{clock: c, wakeC: make(chan struct{}, 1), items: map[types.UID]*item{}}
}

func (q *queue) signal() {
	select {
	case q.wakeC <- struct{}{}:
	default:
	}
}

// put adds a Pod, or takes over its newer form; retry says that the change may make it fit.
func (q *queue) put(p *corev1.Pod, retry bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.clock.Now()
	it := q.items[p.UID]
	if it == nil {
		it = &item{added: now, ready: now}
		q.items[p.UID] = it
	} else if retry && it.parked {
		it.parked, it.ready = false, now
	}
	it.pod = p
	q.signal()
}

func (q *queue) remove(uid types.UID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.items, uid)
}

// wake lets the parked Pods that match try again, after their back-off.
func (q *queue) wake(match func(*corev1.Pod) bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.moves++
	for _, it := range q.items {
		if it.parked && (match == nil || match(it.pod)) {
			it.parked, it.ready = false, it.failed.Add(backoff(it.attempts))
		}
	}
	q.signal()
}

// next takes the Pod to try now off the queue, waiting for one; false when ctx ends.
func (q *queue) next(ctx context.Context) (it *item, moves int, ok bool) {
	for {
		it, moves, wait := q.pick()
		if it != nil {
			return it, moves, true
		}
		var after <-chan time.Time
		var stop func() bool
		if wait > 0 {
			t := q.clock.NewTimer(wait)
			after, stop = t.C(), t.Stop
		}
		select {
		case <-ctx.Done():
		case <-q.wakeC:
		case <-after:
		}
		if stop != nil {
			stop()
		}
		if ctx.Err() != nil {
			return nil, 0, false
		}
	}
}

// pick chooses; without a choice it says how long until there is one, 0 for none in sight.
func (q *queue) pick() (best *item, moves int, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.clock.Now()
	for _, it := range q.items {
		if d := it.ready.Sub(now); d > 0 {
			if wait == 0 || d < wait {
				wait = d
			}
			continue
		}
		if best == nil || before(it, best) {
			best = it
		}
	}
	if best != nil {
		delete(q.items, best.pod.UID)
	}
	return best, q.moves, wait
}

func before(a, b *item) bool {
	if pa, pb := priority(a.pod), priority(b.pod); pa != pb {
		return pa > pb
	}
	return a.added.Before(b.added)
}

// back returns a Pod that did not get a node. moves is what next gave with it; retry says to try again after the back-off in any case.
func (q *queue) back(it *item, moves int, retry bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it.attempts++
	it.failed = q.clock.Now()
	if newer := q.items[it.pod.UID]; newer != nil { // changed while it was tried
		newer.attempts, newer.failed, newer.added = it.attempts, it.failed, it.added
		return
	}
	if it.parked = !retry && moves == q.moves; it.parked {
		it.ready = it.failed.Add(parkedFor)
	} else {
		it.ready = it.failed.Add(backoff(it.attempts))
	}
	q.items[it.pod.UID] = it
	q.signal()
}
