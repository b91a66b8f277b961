package apiserver_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// TestMetrics: metrics.k8s.io tells what the agents tell, and of nothing that they do not.
func TestMetrics(t *testing.T) {
	number := func(n uint64) *uint64 { return &n }
	var summary stats.Summary
	asked := 0
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.URL.RequestURI() != "/stats/summary?only_cpu_and_memory=true" {
			http.Error(w, "not this", http.StatusNotFound)
			return
		}
		w.Header().Set("Carob-Window", "11s")
		json.NewEncoder(w).Encode(summary)
	}))
	defer agent.Close()
	base := must[*url.URL](t)(url.Parse(agent.URL))
	f := start(t, withNode(base, http.DefaultTransport))
	ctx := t.Context()
	f.account(t, "default")
	for _, name := range []string{"n1", "away"} {
		must[*corev1.Node](t)(f.kube.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"is": name}}}, metav1.CreateOptions{}))
	}
	at := metav1.NewTime(time.Unix(1_700_000_000, 0))
	cpu := func(n uint64) *stats.CPUStats { return &stats.CPUStats{Time: at, UsageNanoCores: &n} }
	mem := func(n uint64) *stats.MemoryStats { return &stats.MemoryStats{Time: at, WorkingSetBytes: &n} }
	summary.Node = stats.NodeStats{NodeName: "n1", CPU: cpu(1_500_000_000), Memory: mem(3 << 20)}
	for _, name := range []string{"known", "fresh", "elsewhere", "pending"} {
		p := newPod(name)
		switch name {
		case "elsewhere":
			p.Spec.NodeName = "away"
		case "pending":
		default:
			p.Spec.NodeName = "n1"
		}
		p = f.pod(t, p)
		if name != "pending" {
			p.Status.Phase = corev1.PodRunning
			p = must[*corev1.Pod](t)(f.own.CoreV1().Pods("default").UpdateStatus(ctx, p, metav1.UpdateOptions{}))
		}
		s := stats.PodStats{PodRef: stats.PodReference{Name: p.Name, Namespace: p.Namespace, UID: string(p.UID)}}
		s.Containers = []stats.ContainerStats{{Name: "c", CPU: cpu(2_500_000), Memory: mem(5 << 20)}, {Name: "d", CPU: cpu(1_000_000), Memory: mem(1 << 20)}}
		if name == "fresh" { // no rate yet
			s.Containers[0].CPU = &stats.CPUStats{Time: at, UsageCoreNanoSeconds: number(1)}
		}
		if p.Spec.NodeName == "n1" {
			summary.Pods = append(summary.Pods, s)
		}
	}
	get := func(path string, into any) error {
		raw, err := f.kube.Discovery().RESTClient().Get().RequestURI("/apis/metrics.k8s.io/v1beta1" + path).DoRaw(ctx)
		if err == nil {
			err = json.Unmarshal(raw, into)
		}
		return err
	}
	var nodes metricsv1beta1.NodeMetricsList
	if err := get("/nodes", &nodes); err != nil || len(nodes.Items) != 1 {
		t.Fatalf("%+v %v", nodes, err)
	}
	n := nodes.Items[0]
	if n.Name != "n1" || n.Labels["is"] != "n1" || n.Usage.Cpu().String() != "1500m" || n.Usage.Memory().String() != "3Mi" || n.Window.Duration != 11*time.Second || !n.Timestamp.Equal(&at) {
		t.Errorf("%+v", n)
	}
	names := func(path string) []string {
		var pods metricsv1beta1.PodMetricsList
		if err := get(path, &pods); err != nil {
			t.Fatal(err)
		}
		list := []string{}
		for _, p := range pods.Items {
			list = append(list, p.Namespace+"/"+p.Name)
		}
		return list
	}
	for path, want := range map[string][]string{
		"/pods": {"default/known"}, "/namespaces/default/pods": {"default/known"}, "/namespaces/other/pods": {},
		"/pods?labelSelector=app%3Dknown": {"default/known"}, "/pods?labelSelector=app%3Dx": {}, "/pods?fieldSelector=metadata.name%3Dknown": {"default/known"},
	} {
		if diff := cmp.Diff(want, names(path)); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}
	var p metricsv1beta1.PodMetrics
	if err := get("/namespaces/default/pods/known", &p); err != nil || len(p.Containers) != 2 || p.Containers[0].Usage.Cpu().String() != "2500u" {
		t.Errorf("%+v %v", p, err)
	}
	before := asked
	for _, path := range []string{"/namespaces/default/pods/none", "/nodes/none", "/nodes/away", "/namespaces/default/pods/pending"} {
		if err := get(path, &struct{}{}); !apierrors.IsNotFound(err) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if asked != before {
		t.Errorf("an agent was asked %d times for what is not on it", asked-before)
	}
	table := must[[]byte](t)(f.kube.Discovery().RESTClient().Get().AbsPath("/apis/metrics.k8s.io/v1beta1/pods").
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(ctx))
	if !strings.Contains(string(table), `"cells":["known","3500u","6Mi","11s"]`) {
		t.Errorf("%s", table)
	}
	if _, err := f.as(t, "nobody").Discovery().RESTClient().Get().AbsPath("/apis/metrics.k8s.io/v1beta1/nodes").DoRaw(ctx); !apierrors.IsForbidden(err) {
		t.Errorf("somebody without rights: %v", err)
	}
}
