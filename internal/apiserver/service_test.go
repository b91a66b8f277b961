package apiserver_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestServiceIsKept: the Service kubernetes and its endpoints come back when somebody deletes or changes them, and follow the server's addresses.
func TestServiceIsKept(t *testing.T) {
	f := start(t)
	services, endpoints, slices := f.kube.CoreV1().Services("default"), f.kube.CoreV1().Endpoints("default"), f.kube.DiscoveryV1().EndpointSlices("default")
	is := func(ip string) func() bool {
		return func() bool {
			s, err := services.Get(t.Context(), "kubernetes", metav1.GetOptions{})
			e, err2 := endpoints.Get(t.Context(), "kubernetes", metav1.GetOptions{})
			l, err3 := slices.Get(t.Context(), "kubernetes", metav1.GetOptions{})
			return errors.Join(err, err2, err3) == nil && s.Spec.ClusterIP == "10.43.0.1" && len(e.Subsets) == 1 && e.Subsets[0].Addresses[0].IP == ip &&
				len(l.Endpoints) == 1 && l.Endpoints[0].Addresses[0] == ip
		}
	}
	eventually(t, "at first", is("192.0.2.1"))
	for what, remove := range map[string]func(context.Context, string, metav1.DeleteOptions) error{"the Service": services.Delete, "Endpoints": endpoints.Delete, "the EndpointSlice": slices.Delete} {
		if err := remove(t.Context(), "kubernetes", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "after the end of "+what, is("192.0.2.1"))
	}
	e := must[*corev1.Endpoints](t)(endpoints.Get(t.Context(), "kubernetes", metav1.GetOptions{}))
	e.Subsets = nil
	must[*corev1.Endpoints](t)(endpoints.Update(t.Context(), e, metav1.UpdateOptions{}))
	eventually(t, "after a change", is("192.0.2.1"))
	f.Advertise([]netip.Addr{netip.MustParseAddr("192.0.2.7")})
	eventually(t, "at another address", is("192.0.2.7"))
}
