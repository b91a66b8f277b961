package tree

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"carob.dev/carob/internal/agent/processes"
)

// silent are kinds that own nothing and are owned by nothing that a user would look for in a tree.
var silent = []string{"Event", "Lease", "Node", "Namespace", "ComponentStatus", "PodTemplate", "Endpoints"}

// Clients are the ways to the API that Fetch uses.
type Clients struct {
	Kube      kubernetes.Interface
	Dynamic   dynamic.Interface
	Discovery discovery.DiscoveryInterface
}

// Fetch reads every object of every kind that can own or be owned, in the namespace (empty for all), and asks each node's agent for
// its processes. What could not be read is in the warnings; only a list of Pods that fails is an error.
func Fetch(ctx context.Context, c Clients, namespace string) (Input, []string, error) {
	var warnings []string
	lists, err := discovery.ServerPreferredNamespacedResources(c.Discovery)
	if err != nil && len(lists) == 0 {
		return Input{}, nil, fmt.Errorf("discover the kinds: %w", err)
	}
	if err != nil {
		warnings = append(warnings, fmt.Sprintf("some API groups did not answer: %v", err))
	}
	var (
		mu sync.Mutex
		wg sync.WaitGroup
		in Input
	)
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			continue
		}
		for _, r := range l.APIResources {
			if !slices.Contains(r.Verbs, "list") || slices.Contains(silent, r.Kind) {
				continue
			}
			wg.Go(func() {
				objects, err := list(ctx, c.Dynamic, gv.WithResource(r.Name), namespace)
				mu.Lock()
				defer mu.Unlock()
				if err != nil && !apierrors.IsNotFound(err) {
					warnings = append(warnings, fmt.Sprintf("list %s: %v", r.Name, err))
				}
				in.Objects = append(in.Objects, objects...)
			})
		}
	}
	wg.Wait()
	nodes, err := c.Kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return in, append(warnings, fmt.Sprintf("list nodes: %v", err)), nil
	}
	for _, n := range nodes.Items {
		report, err := fetchReport(ctx, c.Kube, n.Name)
		if err != nil {
			warnings = append(warnings, fmt.Sprintf("no processes from node %s: %v", n.Name, err))
			continue
		}
		in.Reports = append(in.Reports, report)
	}
	slices.Sort(warnings)
	return in, warnings, nil
}

// fetchReport asks through the API server's proxy, so that it works from anywhere the API does.
func fetchReport(ctx context.Context, c kubernetes.Interface, node string) (processes.Report, error) {
	var r processes.Report
	raw, err := c.CoreV1().RESTClient().Get().Resource("nodes").Name(node).SubResource("proxy").Suffix("carob", "processes").DoRaw(ctx)
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(raw, &r)
}

func list(ctx context.Context, c dynamic.Interface, gvr schema.GroupVersionResource, namespace string) ([]Object, error) {
	var out []Object
	opts := metav1.ListOptions{Limit: 500}
	for {
		page, err := c.Resource(gvr).Namespace(namespace).List(ctx, opts)
		if err != nil {
			return out, err
		}
		for i := range page.Items {
			o, err := FromUnstructured(&page.Items[i])
			if err != nil {
				return out, err
			}
			out = append(out, o)
		}
		if opts.Continue = page.GetContinue(); opts.Continue == "" {
			return out, nil
		}
	}
}

// FromUnstructured takes out of any object what the tree shows of it.
func FromUnstructured(u *unstructured.Unstructured) (Object, error) {
	o := Object{APIVersion: u.GetAPIVersion(), Kind: u.GetKind()}
	meta, _, err := unstructured.NestedMap(u.Object, "metadata")
	if err != nil {
		return o, err
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(meta, &o.ObjectMeta); err != nil {
		return o, err
	}
	o.Ready, o.Reason = readiness(u)
	if want, ok, _ := unstructured.NestedInt64(u.Object, "spec", "replicas"); ok {
		have, _, _ := unstructured.NestedInt64(u.Object, "status", "readyReplicas")
		o.Replicas = fmt.Sprintf("%d/%d", have, want)
	}
	if u.GetKind() == "Pod" && u.GetAPIVersion() == "v1" {
		o.Pod = &corev1.Pod{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, o.Pod); err != nil {
			return o, errors.Join(fmt.Errorf("pod %s/%s", o.Namespace, o.Name), err)
		}
	}
	return o, nil
}

// readiness is the Ready condition, else Available.
func readiness(u *unstructured.Unstructured) (status, reason string) {
	conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	for _, want := range []string{"Ready", "Available"} {
		for _, c := range conditions {
			m, ok := c.(map[string]any)
			if !ok || m["type"] != want {
				continue
			}
			status, _ = m["status"].(string)
			reason, _ = m["reason"].(string)
			return status, reason
		}
	}
	return "", ""
}
