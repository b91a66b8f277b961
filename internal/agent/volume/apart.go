package volume

import (
	"context"
	"sync/atomic"
)

// apart runs f beside the caller and waits for it until ctx ends: the kernel keeps who asks a server that is away for as long as it pleases. Before f
// does what must not happen unseen it asks live whether anybody waits still; once that has said yes, f is waited for.
func apart(ctx context.Context, f func(live func() bool) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var settled atomic.Bool
	live := func() bool { return settled.CompareAndSwap(false, true) }
	done := make(chan error, 1)
	go func() { done <- f(live) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		if live() {
			return ctx.Err()
		}
		return <-done
	}
}
