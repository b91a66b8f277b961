// Package metrics serves metrics.k8s.io: what nodes and Pods use now, as `kubectl top` and autoscalers ask. Nothing is stored and nothing is
// sampled while nobody asks: each request has the agents of the nodes it is about measure. An agent that has not been asked for two minutes takes
// a second for that.
//
// It imports api/registry and k8s.io/metrics.
package metrics

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"carob.dev/carob/internal/apiserver/registry/pod"
)

const (
	// patience is how long a node may take to measure.
	patience = 10 * time.Second
	// window is in the header of an agent's answer: over which time its rates are.
	window = "Carob-Window"
)

// Source asks the agents of nodes.
type Source struct {
	Transport pod.NodeTransport
	Log       *slog.Logger
}

// measured is what an agent has told.
type measured struct {
	stats.Summary
	window time.Duration
}

// ask asks the agents of the nodes, all at the same time. Nodes that do not answer are left out.
func (s Source) ask(ctx context.Context, nodes map[string]bool) map[string]measured {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex // guards out
		out = map[string]measured{}
	)
	for name := range nodes {
		wg.Go(func() {
			m, err := s.askOne(ctx, name)
			if err != nil {
				s.Log.Info("a node does not tell what it uses", "node", name, "error", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			out[name] = m
		})
	}
	wg.Wait()
	return out
}

func (s Source) askOne(ctx context.Context, node string) (m measured, err error) {
	base, transport, err := s.Transport(ctx, node)
	if err != nil {
		return m, err
	}
	at := *base
	at.Path, at.RawQuery = pod.JoinPath(at.Path, "/stats/summary"), "only_cpu_and_memory=true"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return m, err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return m, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return m, fmt.Errorf("it answers with %s", resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(&m.Summary); err != nil {
		return m, fmt.Errorf("it answers with no statistics: %w", err)
	}
	if m.window, err = time.ParseDuration(resp.Header.Get(window)); err != nil {
		m.window = span
	}
	return m, nil
}

// span stands for the window of an agent that does not tell it: kubelet's own.
const span = 10 * time.Second

// usage is processor and memory in the API's form; nil while either is not known.
func usage(cpu *stats.CPUStats, mem *stats.MemoryStats) corev1.ResourceList {
	if cpu == nil || mem == nil || cpu.UsageNanoCores == nil || mem.WorkingSetBytes == nil {
		return nil
	}
	return corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewScaledQuantity(int64(*cpu.UsageNanoCores), resource.Nano),
		corev1.ResourceMemory: *resource.NewQuantity(int64(*mem.WorkingSetBytes), resource.BinarySI),
	}
}

// objectMeta is that of the metrics of a node or Pod.
func objectMeta(of metav1.ObjectMeta, now metav1.Time) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: of.Name, Namespace: of.Namespace, Labels: of.Labels, CreationTimestamp: now}
}
