package pod

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
)

// NodeTransport leads to a node's agent: the base URL of its server and how to reach it. To be upgraded, the transport must be an
// *http.Transport or wrap one.
type NodeTransport func(ctx context.Context, node string) (base *url.URL, transport http.RoundTripper, err error)

// Agents finds the agent of a Pod's node.
type Agents struct {
	Store     *genericregistry.Store
	Transport NodeTransport
}

func (a Agents) pod(ctx context.Context, name string) (*corev1.Pod, error) {
	obj, err := a.Store.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return nil, fmt.Errorf("unexpected object: %T", obj)
	}
	return pod, nil
}

// locate gives the address of a path on the agent of the Pod's node.
func (a Agents) locate(ctx context.Context, pod *corev1.Pod, query url.Values, path ...string) (*url.URL, http.RoundTripper, error) {
	base, transport, err := a.Transport(ctx, pod.Spec.NodeName)
	if err != nil {
		return nil, nil, apierrors.NewInternalError(fmt.Errorf("reach the agent of node %s: %w", pod.Spec.NodeName, err))
	}
	at := *base
	at.Path = strings.TrimSuffix(at.Path, "/") + "/" + strings.Join(path, "/")
	at.RawQuery = query.Encode()
	return &at, transport, nil
}

func notAssigned(pod *corev1.Pod) error {
	return apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", pod.Name))
}

// container checks the name of a container, or chooses the only one.
func container(pod *corev1.Pod, name string) (string, error) {
	var all []string
	for _, c := range pod.Spec.InitContainers {
		all = append(all, c.Name)
	}
	for _, c := range pod.Spec.Containers {
		all = append(all, c.Name)
	}
	for _, c := range pod.Spec.EphemeralContainers {
		all = append(all, c.Name)
	}
	if name == "" {
		switch len(pod.Spec.Containers) {
		case 1:
			return pod.Spec.Containers[0].Name, nil
		case 0:
			return "", apierrors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s", pod.Name))
		}
		return "", apierrors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s, choose one of: %s", pod.Name, all))
	}
	for _, n := range all {
		if n == name {
			return name, nil
		}
	}
	return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, pod.Name))
}
