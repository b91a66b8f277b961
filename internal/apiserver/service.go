package apiserver

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

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
	for _, ip := range *s.advertise.Load() {
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

// Advertise says that Pods reach this server at other addresses now. The endpoints of the Service kubernetes follow.
func (s *Server) Advertise(ips []netip.Addr) {
	s.advertise.Store(&ips)
	select {
	case s.advertised <- struct{}{}:
	default:
	}
}

// keepService makes the Service kubernetes and its endpoints again when somebody deletes or changes them, or the addresses change, until ctx ends.
func (s *Server) keepService(ctx context.Context, client kubernetes.Interface) {
	const pause = time.Second // after what could not be done, and between watches
	for ctx.Err() == nil {
		if err := s.keepWatched(ctx, client); err != nil && ctx.Err() == nil {
			s.cfg.Log.Warn("the Service kubernetes could not be kept as it should be", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// keepWatched does it until a watch ends, as each does after a time.
func (s *Server) keepWatched(ctx context.Context, client kubernetes.Interface) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	opt := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, serviceName).String()}
	var seen [3]<-chan watch.Event
	for i, open := range []func(context.Context, metav1.ListOptions) (watch.Interface, error){
		client.CoreV1().Services(metav1.NamespaceDefault).Watch, client.CoreV1().Endpoints(metav1.NamespaceDefault).Watch,
		client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).Watch,
	} {
		w, err := open(ctx, opt)
		if err != nil {
			return err
		}
		defer w.Stop()
		seen[i] = w.ResultChan()
	}
	for {
		if err := s.ensureService(ctx, client); err != nil {
			return err
		}
		ok := true
		select {
		case <-ctx.Done():
			return nil
		case <-s.advertised:
		case _, ok = <-seen[0]:
		case _, ok = <-seen[1]:
		case _, ok = <-seen[2]:
		}
		if !ok {
			return nil
		}
	}
}
