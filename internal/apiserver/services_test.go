package apiserver_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func service(name, ip string, change ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			ClusterIP: ip, Selector: map[string]string{"app": name},
			Type: corev1.ServiceTypeClusterIP, SessionAffinity: corev1.ServiceAffinityNone,
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(80)}},
		},
	}
	for _, f := range change {
		f(s)
	}
	return s
}

func ofType(t corev1.ServiceType) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.Type = t }
}

func TestServiceAddresses(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	api := f.kube.CoreV1().Services("default")
	create := func(s *corev1.Service) (*corev1.Service, error) { return api.Create(ctx, s, metav1.CreateOptions{}) }
	refused := func(s *corev1.Service, want string) {
		t.Helper()
		if _, err := create(s); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
	a := must[*corev1.Service](t)(create(service("a", "")))
	if !strings.HasPrefix(a.Spec.ClusterIP, "10.43.") || len(a.Spec.ClusterIPs) != 1 || a.Spec.ClusterIPs[0] != a.Spec.ClusterIP ||
		len(a.Spec.IPFamilies) != 1 || *a.Spec.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack {
		t.Errorf("%+v", a.Spec)
	}
	refused(service("b", a.Spec.ClusterIP), "failed to allocate IP "+a.Spec.ClusterIP+": provided IP is already allocated")
	refused(service("c", "10.9.9.9"), "is not in the valid range. The range of valid IPs is 10.43.0.0/16")

	// A dry run and a refused Service take nothing.
	dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	must[*corev1.Service](t)(api.Create(ctx, service("d", "10.43.0.50"), dry))
	must[*corev1.Service](t)(create(service("d", "10.43.0.50")))
	if err := api.Delete(ctx, "d", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	must[*corev1.Service](t)(create(service("e", "10.43.0.50")))

	h := must[*corev1.Service](t)(create(service("headless", corev1.ClusterIPNone)))
	if h.Spec.ClusterIP != corev1.ClusterIPNone || len(h.Spec.ClusterIPs) != 1 {
		t.Errorf("headless: %+v", h.Spec)
	}

	// kubectl apply sends what it has, without the address.
	a.Spec.ClusterIP, a.Spec.ClusterIPs, a.Spec.Ports[0].Port = "", nil, 81
	if again, err := api.Update(ctx, a, metav1.UpdateOptions{}); err != nil || again.Spec.ClusterIP == "" {
		t.Errorf("an update without the address: %v %v", again, err)
	}
}

func TestServiceNodePorts(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	api := f.kube.CoreV1().Services("default")
	a := must[*corev1.Service](t)(api.Create(ctx, service("a", "", ofType(corev1.ServiceTypeNodePort)), metav1.CreateOptions{}))
	port := a.Spec.Ports[0].NodePort
	if port < 30000 || port > 32767 {
		t.Fatalf("node port %d", port)
	}
	b := service("b", "", ofType(corev1.ServiceTypeNodePort))
	b.Spec.Ports[0].NodePort = port
	if _, err := api.Create(ctx, b, metav1.CreateOptions{}); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "provided port is already allocated") {
		t.Errorf("the same port: %v", err)
	}
	b.Spec.Ports[0].NodePort = 80
	if _, err := api.Create(ctx, b, metav1.CreateOptions{}); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "The range of valid ports is 30000-32767") {
		t.Errorf("a low port: %v", err)
	}
	a.Spec.Type = corev1.ServiceTypeClusterIP
	a = must[*corev1.Service](t)(api.Update(ctx, a, metav1.UpdateOptions{}))
	if a.Spec.Ports[0].NodePort != 0 {
		t.Errorf("a ClusterIP with a node port: %+v", a.Spec)
	}
	b.Spec.Ports[0].NodePort = port
	must[*corev1.Service](t)(api.Create(ctx, b, metav1.CreateOptions{}))
}
