package app

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Bursts (a start, a rollout, kubectl's first questions) leave a heap several times as large as what is held, and Go's own pace gives it back
// over many minutes. So once it is quiet again it is given back at once; while it is busy nothing is done.
const (
	// trimEvery is how often the heap is looked at. A look reads four counters, some microseconds.
	trimEvery = 10 * time.Second
	// trimQuiet is how many bytes may be allocated between two looks of a quiet process.
	trimQuiet = 4 << 20
	// trimWorth is what must be there to gain. It is worth a garbage collection, about 30 ms of processor time.
	trimWorth = 4 << 20
	// growth is how much the heap may grow beyond what lives before it is collected, in percent. Go's 100 leaves more holes behind after a
	// burst; 50 takes a tenth more processor time in one. The environment's GOGC has the last word.
	growth = 50
)

// heap is what a look sees, in bytes: allocated is a running total, live what the last collection found alive, objects what lives or is
// not yet known to be dead, unused whole pages that could be given back.
type heap struct{ allocated, live, objects, unused uint64 }

// worthTrimming says whether memory should be given back now.
func worthTrimming(before, now heap) bool {
	return now.allocated-before.allocated < trimQuiet && now.objects+now.unused > now.live+trimWorth
}

// keepHeapSmall is called before anything else.
func keepHeapSmall() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(growth)
	}
}

// trimHeap runs until ctx ends.
func trimHeap(ctx context.Context) error {
	debug.FreeOSMemory() // after the start, the greatest burst
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}}
	look := func() heap {
		metrics.Read(samples)
		v := func(i int) uint64 {
			if samples[i].Value.Kind() != metrics.KindUint64 {
				return 0
			}
			return samples[i].Value.Uint64()
		}
		return heap{allocated: v(0), live: v(1), objects: v(2), unused: v(3)}
	}
	t := time.NewTicker(trimEvery)
	defer t.Stop()
	last := look()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		now := look()
		if worthTrimming(last, now) {
			debug.FreeOSMemory()
			now = look()
		}
		last = now
	}
}
