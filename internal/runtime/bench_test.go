package runtime

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"
)

// BenchmarkPod measures one Pod from nothing to a started container and back; the medians of its steps are reported in milliseconds.
func BenchmarkPod(b *testing.B) {
	t := newBench(b)
	ctx := context.Background()
	steps := map[string][]time.Duration{}
	b.ResetTimer()
	for i := range b.N {
		cfg := t.podConfig(fmt.Sprintf("p%d", i))
		at := time.Now()
		lap := func(step string) {
			now := time.Now()
			steps[step] = append(steps[step], now.Sub(at))
			at = now
		}
		pod := t.pod(cfg)
		lap("run")
		id := t.create(pod, containerConfig("c", "sleep", "1000"))
		lap("create")
		if err := t.StartContainer(ctx, id); err != nil {
			b.Fatal(err)
		}
		lap("start")
		if err := t.StopPodSandbox(ctx, pod); err != nil {
			b.Fatal(err)
		}
		lap("stop")
		if err := t.RemovePodSandbox(ctx, pod); err != nil {
			b.Fatal(err)
		}
		lap("remove")
	}
	for step, list := range steps {
		slices.Sort(list)
		b.ReportMetric(float64(list[len(list)/2].Microseconds())/1000, step+"-ms")
	}
}
