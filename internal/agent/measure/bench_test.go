package measure

import (
	"log/slog"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	critest "k8s.io/cri-api/pkg/apis/testing"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/agent/criconf"
)

// BenchmarkNode is what a look at what the node has left costs: the idle cost of eviction is one each ten seconds.
func BenchmarkNode(b *testing.B) {
	m := New(Config{Runtime: critest.NewFakeRuntimeService(), Images: critest.NewFakeImageService(), NodeName: "n", Cgroups: criconf.Cgroups{Root: "none"}, Root: "/", LogsDir: "/",
		PodDir: func(types.UID) string { return "/none" }, Log: slog.New(slog.DiscardHandler), Clock: clock.RealClock{}})
	for b.Loop() {
		if _, err := m.Node(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
