package runtime

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// BenchmarkPod measures one Pod from nothing to a started container and back; steps are reported in milliseconds.
func BenchmarkPod(b *testing.B) {
	t := newBench(b)
	ctx := context.Background()
	var run, create, start, stop, remove time.Duration
	b.ResetTimer()
	for i := range b.N {
		cfg := t.podConfig(fmt.Sprintf("p%d", i))
		at := time.Now()
		lap := func(d *time.Duration) {
			now := time.Now()
			*d += now.Sub(at)
			at = now
		}
		pod := t.pod(cfg)
		lap(&run)
		id := t.create(pod, containerConfig("c", "sleep", "1000"))
		lap(&create)
		if err := t.StartContainer(ctx, id); err != nil {
			b.Fatal(err)
		}
		lap(&start)
		if err := t.StopPodSandbox(ctx, pod); err != nil {
			b.Fatal(err)
		}
		lap(&stop)
		if err := t.RemovePodSandbox(ctx, pod); err != nil {
			b.Fatal(err)
		}
		lap(&remove)
	}
	for name, d := range map[string]time.Duration{"run": run, "create": create, "start": start, "stop": stop, "remove": remove} {
		b.ReportMetric(float64(d.Microseconds())/1000/float64(b.N), name+"-ms")
	}
}
