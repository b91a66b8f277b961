package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	policy "carob.dev/carob/internal/apiserver/auth/bootstrap"
)

// bootstrap makes what every cluster has: its namespaces, its roles and the Service kubernetes, which leads to this server.
func (s *Server) bootstrap(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(s.generic.LoopbackClientConfig)
	if err != nil {
		return fmt.Errorf("API server: %w", err)
	}
	namespaces := []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease}
	errs := make([]error, len(namespaces))
	var wg sync.WaitGroup
	for i, name := range namespaces {
		wg.Go(func() { errs[i] = ensureNamespace(ctx, client, name) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("API server: make the first namespaces: %w", err)
	}
	if err := policy.Default().Ensure(client); err != nil {
		return fmt.Errorf("API server: make the first roles: %w", err)
	}
	if err := s.policy.Start(ctx); err != nil {
		return fmt.Errorf("API server: %w", err)
	}
	if err := s.ensureService(ctx, client); err != nil {
		return fmt.Errorf("API server: make the service kubernetes: %w", err)
	}
	return nil
}

func ensureNamespace(ctx context.Context, client kubernetes.Interface, name string) error {
	api := client.CoreV1().Namespaces()
	_, err := api.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = api.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	}
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

const (
	serviceName = "kubernetes"
	portName    = "https"
)

func (s *Server) ensureService(ctx context.Context, client kubernetes.Interface) error {
	port, err := s.port()
	if err != nil {
		return err
	}
	api := client.CoreV1().Services(metav1.NamespaceDefault)
	old, err := api.Get(ctx, serviceName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = api.Create(ctx, s.service(port), metav1.CreateOptions{})
	case err == nil && len(old.Spec.Ports) == 1 && old.Spec.Ports[0].TargetPort.IntVal != port:
		old.Spec.Ports[0].TargetPort = intstr.FromInt32(port)
		_, err = api.Update(ctx, old, metav1.UpdateOptions{})
	}
	if err != nil {
		return err
	}
	return s.ensureEndpoints(ctx, client, port)
}

func (s *Server) port() (int32, error) {
	_, text, err := net.SplitHostPort(s.tcp.Addr().String())
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	return int32(n), err
}

func (s *Server) service(port int32) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: serviceName, Labels: map[string]string{"component": "apiserver", "provider": "kubernetes"}},
		Spec: corev1.ServiceSpec{
			Type:            corev1.ServiceTypeClusterIP,
			ClusterIP:       s.cfg.ServiceCIDR.Masked().Addr().Next().String(),
			SessionAffinity: corev1.ServiceAffinityNone,
			Ports:           []corev1.ServicePort{{Name: portName, Port: 443, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(port)}},
		},
	}
}

// ensureEndpoints says where the server is, in both the old and the new form, as in Kubernetes.
func (s *Server) ensureEndpoints(ctx context.Context, client kubernetes.Interface, port int32) error {
	endpoints, slice := s.endpoints(port)
	old, err := client.CoreV1().Endpoints(metav1.NamespaceDefault).Get(ctx, serviceName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = client.CoreV1().Endpoints(metav1.NamespaceDefault).Create(ctx, endpoints, metav1.CreateOptions{})
	case err == nil && !equality.Semantic.DeepEqual(old.Subsets, endpoints.Subsets):
		old.Subsets = endpoints.Subsets
		_, err = client.CoreV1().Endpoints(metav1.NamespaceDefault).Update(ctx, old, metav1.UpdateOptions{})
	}
	if err != nil {
		return err
	}
	slices := client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault)
	oldSlice, err := slices.Get(ctx, serviceName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = slices.Create(ctx, slice, metav1.CreateOptions{})
	case err == nil && oldSlice.AddressType != slice.AddressType: // it cannot be changed
		if err = slices.Delete(ctx, serviceName, metav1.DeleteOptions{}); err == nil {
			_, err = slices.Create(ctx, slice, metav1.CreateOptions{})
		}
	case err == nil && !(equality.Semantic.DeepEqual(oldSlice.Endpoints, slice.Endpoints) && equality.Semantic.DeepEqual(oldSlice.Ports, slice.Ports)):
		oldSlice.Endpoints, oldSlice.Ports = slice.Endpoints, slice.Ports
		_, err = slices.Update(ctx, oldSlice, metav1.UpdateOptions{})
	}
	return err
}

func (s *Server) endpoints(port int32) (*corev1.Endpoints, *discoveryv1.EndpointSlice) {
	name, protocol, ready := portName, corev1.ProtocolTCP, true
	endpoints := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{
		Name: serviceName, Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"},
	}}
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: serviceName, Labels: map[string]string{discoveryv1.LabelServiceName: serviceName}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{},
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Protocol: &protocol, Port: &port}},
	}
	subset := corev1.EndpointSubset{Ports: []corev1.EndpointPort{{Name: name, Port: port, Protocol: protocol}}}
	if s.cfg.ServiceCIDR.Addr().Is6() {
		slice.AddressType = discoveryv1.AddressTypeIPv6
	}
	for _, ip := range s.cfg.Advertise {
		if ip.IsLoopback() || ip.Is4() != s.cfg.ServiceCIDR.Addr().Is4() {
			continue
		}
		subset.Addresses = append(subset.Addresses, corev1.EndpointAddress{IP: ip.String()})
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{ip.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		})
	}
	if len(subset.Addresses) > 0 {
		endpoints.Subsets = []corev1.EndpointSubset{subset}
	}
	return endpoints, slice
}
