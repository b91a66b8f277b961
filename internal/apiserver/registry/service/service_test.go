package service

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestAddresses(t *testing.T) {
	for _, tt := range []struct {
		cidr        string
		size        int
		first, last string
	}{
		{"10.43.0.0/16", 65534, "10.43.0.1", "10.43.255.254"},
		{"10.43.0.128/29", 6, "10.43.0.129", "10.43.0.134"},
		{"10.0.0.0/8", maxAddresses - 1, "10.0.0.1", "10.15.255.255"},
		{"fd00::/112", 65535, "fd00::1", "fd00::ffff"},
		{"fd00::/64", maxAddresses - 1, "fd00::1", "fd00::f:ffff"},
	} {
		a, err := newAddresses(netip.MustParsePrefix(tt.cidr))
		if err != nil {
			t.Fatal(err)
		}
		got := []string{fmt.Sprint(a.pool.size), a.at(0).String(), a.at(a.pool.size - 1).String()}
		if diff := cmp.Diff([]string{fmt.Sprint(tt.size), tt.first, tt.last}, got); diff != "" {
			t.Errorf("%s: %s", tt.cidr, diff)
		}
		for _, n := range []int{0, 1, a.pool.size - 1} {
			if back, ok := a.number(a.at(n)); !ok || back != n {
				t.Errorf("%s: %d → %s → %d", tt.cidr, n, a.at(n), back)
			}
		}
		for _, out := range []netip.Addr{a.prefix.Addr(), netip.MustParseAddr("192.0.2.1"), a.at(a.pool.size - 1).Next()} {
			if n, ok := a.number(out); ok {
				t.Errorf("%s: %s is number %d", tt.cidr, out, n)
			}
		}
	}
	if _, err := newAddresses(netip.MustParsePrefix("10.0.0.0/31")); err == nil {
		t.Error("a range without room")
	}
}

func TestPool(t *testing.T) {
	p := newPool(10, 3)
	for i := range 10 {
		n, err := p.next()
		if err != nil {
			t.Fatal(err)
		}
		if i < 7 && n < 3 {
			t.Errorf("number %d of the lower part while the upper has some", n)
		}
	}
	if _, err := p.next(); err != errFull {
		t.Errorf("an eleventh: %v", err)
	}
	p.release(4)
	if n, err := p.next(); n != 4 || err != nil {
		t.Errorf("%d %v", n, err)
	}
}

func TestFamilies(t *testing.T) {
	single, prefer, require := corev1.IPFamilyPolicySingleStack, corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack
	v4, v6 := corev1.IPv4Protocol, corev1.IPv6Protocol
	type spec = corev1.ServiceSpec
	for _, tt := range []struct {
		name   string
		in     spec
		policy *corev1.IPFamilyPolicy
		want   []corev1.IPFamily
		err    string
	}{
		{"nothing said", spec{}, &single, []corev1.IPFamily{v4}, ""},
		{"rather two", spec{IPFamilyPolicy: &prefer}, &prefer, []corev1.IPFamily{v4}, ""},
		{"two or none", spec{IPFamilyPolicy: &require}, &require, []corev1.IPFamily{v4}, "this cluster is not configured for dual-stack services"},
		{"the other", spec{IPFamilies: []corev1.IPFamily{v6}}, &single, []corev1.IPFamily{v6}, "not configured on this cluster"},
		{"another name", spec{Type: corev1.ServiceTypeExternalName, IPFamilies: []corev1.IPFamily{v4}}, nil, nil, ""},
		{"headless", spec{ClusterIPs: []string{"None"}, Selector: map[string]string{"a": "b"}}, &single, []corev1.IPFamily{v4}, ""},
		{"headless without selector", spec{ClusterIPs: []string{"None"}}, &require, []corev1.IPFamily{v4, v6}, ""},
	} {
		s := &corev1.Service{Spec: tt.in}
		errs := setFamilies(s, v4)
		if diff := cmp.Diff(tt.policy, s.Spec.IPFamilyPolicy); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
		if diff := cmp.Diff(tt.want, s.Spec.IPFamilies); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
		if got := fmt.Sprint(errs.ToAggregate()); tt.err == "" && len(errs) > 0 || !strings.Contains(got, tt.err) {
			t.Errorf("%s: %s", tt.name, got)
		}
	}
}

func TestSyncClusterIPs(t *testing.T) {
	type ips struct {
		IP  string
		IPs []string
	}
	for _, tt := range []struct {
		name     string
		old      *ips
		in, want ips
	}{
		{"new, none", nil, ips{"", nil}, ips{"", nil}},
		{"new, old form", nil, ips{"a", nil}, ips{"a", []string{"a"}}},
		{"new, both", nil, ips{"a", []string{"a"}}, ips{"a", []string{"a"}}},
		{"unchanged", &ips{"a", []string{"a"}}, ips{"a", []string{"a"}}, ips{"a", []string{"a"}}},
		{"by a client of the old form", &ips{"a", []string{"a"}}, ips{"a", nil}, ips{"a", []string{"a"}}},
		{"changed in the old form", &ips{"a", []string{"a"}}, ips{"b", []string{"a"}}, ips{"b", []string{"b"}}},
		{"cleared in the old form", &ips{"a", []string{"a"}}, ips{"", []string{"a"}}, ips{"", nil}},
	} {
		s := &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: tt.in.IP, ClusterIPs: tt.in.IPs}}
		var old *corev1.Service
		if tt.old != nil {
			old = &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: tt.old.IP, ClusterIPs: tt.old.IPs}}
		}
		syncClusterIPs(s, old)
		if diff := cmp.Diff(tt.want, ips{s.Spec.ClusterIP, s.Spec.ClusterIPs}); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

func TestNodePortsShareANumberAcrossProtocols(t *testing.T) {
	a, err := NewAllocator(netip.MustParsePrefix("10.43.0.0/24"), func(context.Context) ([]corev1.Service, error) { return nil, nil })
	if err != nil {
		t.Fatal(err)
	}
	s := &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{
		{Name: "a", Port: 53, Protocol: corev1.ProtocolUDP}, {Name: "b", Port: 53, Protocol: corev1.ProtocolTCP}, {Name: "c", Port: 54, Protocol: corev1.ProtocolTCP},
	}}}
	got, errs, err := a.allocate(t.Context(), s, nil)
	if err != nil || len(errs) > 0 {
		t.Fatal(errs, err)
	}
	p := s.Spec.Ports
	if p[0].NodePort != p[1].NodePort || p[0].NodePort == p[2].NodePort || len(got.ports) != 2 || len(got.ips) != 1 {
		t.Errorf("%+v, took %+v", p, got)
	}
	a.giveBack(got)
	if len(a.ports.used) != 0 || len(a.ips.pool.used) != 0 {
		t.Errorf("left: %v %v", a.ports.used, a.ips.pool.used)
	}
	bad := &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Port: 1}, {Port: 2, NodePort: 7}}}}
	if _, errs, _ := a.allocate(t.Context(), bad, nil); len(errs) != 1 || len(a.ports.used) != 0 || len(a.ips.pool.used) != 0 {
		t.Errorf("a refused Service keeps %v %v: %v", a.ports.used, a.ips.pool.used, errs)
	}
}
