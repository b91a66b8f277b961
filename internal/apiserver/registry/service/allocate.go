package service

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Allocator gives Services their addresses and ports.
type Allocator struct {
	list func(context.Context) ([]corev1.Service, error)

	mu     sync.Mutex // guards all below
	loaded bool
	ips    *addresses
	ports  *pool // offset from firstNodePort
}

// NewAllocator makes an Allocator for a range of addresses. list returns all Services; it is asked before the first allocation.
func NewAllocator(cidr netip.Prefix, list func(context.Context) ([]corev1.Service, error)) (*Allocator, error) {
	ips, err := newAddresses(cidr)
	if err != nil {
		return nil, err
	}
	const ports = lastNodePort - firstNodePort + 1
	return &Allocator{list: list, ips: ips, ports: newPool(ports, min(max(16, ports/32), 128))}, nil
}

// load learns what is given out already.
func (a *Allocator) load(ctx context.Context) error {
	if a.loaded {
		return nil
	}
	services, err := a.list(ctx)
	if err != nil {
		return fmt.Errorf("list what is allocated: %w", err)
	}
	for i := range services {
		s := &services[i]
		for _, ip := range s.Spec.ClusterIPs {
			if addr, err := netip.ParseAddr(ip); err == nil {
				if n, ok := a.ips.number(addr); ok {
					_ = a.ips.pool.take(n) // two that have the same already: both keep it
				}
			}
		}
		for _, p := range nodePorts(s) {
			if n := int(p) - firstNodePort; n >= 0 && n < a.ports.size {
				_ = a.ports.take(n)
			}
		}
	}
	a.loaded = true
	return nil
}

// nodePorts are the ports that a Service has on every node.
func nodePorts(s *corev1.Service) []int32 {
	var out []int32
	for _, p := range s.Spec.Ports {
		if p.NodePort != 0 {
			out = append(out, p.NodePort)
		}
	}
	if p := s.Spec.HealthCheckNodePort; p != 0 {
		out = append(out, p)
	}
	return out
}

// taken is what one request took.
type taken struct {
	ips   []int
	ports []int
}

func (a *Allocator) giveBack(t taken) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range t.ips {
		a.ips.pool.release(n)
	}
	for _, n := range t.ports {
		a.ports.release(n)
	}
}

// held is what a Service has: numbers of the pools.
func (a *Allocator) held(s *corev1.Service) taken {
	var t taken
	for _, ip := range s.Spec.ClusterIPs {
		if addr, err := netip.ParseAddr(ip); err == nil {
			if n, ok := a.ips.number(addr); ok {
				t.ips = append(t.ips, n)
			}
		}
	}
	for _, p := range nodePorts(s) {
		if n := int(p) - firstNodePort; n >= 0 && n < a.ports.size {
			t.ports = append(t.ports, n)
		}
	}
	return t
}

// allocate gives s what it needs and old does not have yet. old is nil for a new Service. After an error nothing is taken.
func (a *Allocator) allocate(ctx context.Context, s, old *corev1.Service) (t taken, errs field.ErrorList, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.load(ctx); err != nil {
		return taken{}, nil, err
	}
	have := map[string]bool{}
	oldPorts := map[int32]bool{}
	if old != nil {
		for _, ip := range old.Spec.ClusterIPs {
			have[ip] = true
		}
		for _, p := range nodePorts(old) {
			oldPorts[p] = true
		}
	}
	if !noAddress(s) && !headless(s) {
		errs = append(errs, a.allocateIPs(s, have, &t)...)
	}
	if needsNodePorts(s) {
		errs = append(errs, a.allocatePorts(s, oldPorts, &t)...)
	}
	if len(errs) > 0 {
		for _, n := range t.ips {
			a.ips.pool.release(n)
		}
		for _, n := range t.ports {
			a.ports.release(n)
		}
		return taken{}, errs, nil
	}
	return t, nil, nil
}

func (a *Allocator) allocateIPs(s *corev1.Service, have map[string]bool, t *taken) field.ErrorList {
	path := field.NewPath("spec", "clusterIPs")
	if len(s.Spec.ClusterIPs) == 0 {
		n, err := a.ips.pool.next()
		if err != nil {
			return field.ErrorList{field.InternalError(path, fmt.Errorf("failed to allocate a serviceIP: %w", err))}
		}
		t.ips = append(t.ips, n)
		s.Spec.ClusterIPs = []string{a.ips.at(n).String()}
	} else {
		for _, ip := range s.Spec.ClusterIPs {
			if have[ip] {
				continue
			}
			addr, err := netip.ParseAddr(ip)
			if err != nil {
				return nil // validation says so
			}
			n, ok := a.ips.number(addr)
			if !ok {
				return field.ErrorList{field.Invalid(path, s.Spec.ClusterIPs, fmt.Sprintf(
					"failed to allocate IP %s: the provided IP (%s) is not in the valid range. The range of valid IPs is %s", ip, ip, a.ips.prefix))}
			}
			if err := a.ips.pool.take(n); err != nil {
				return field.ErrorList{field.Invalid(path, s.Spec.ClusterIPs,
					fmt.Sprintf("failed to allocate IP %s: provided IP is already allocated", ip))}
			}
			t.ips = append(t.ips, n)
		}
	}
	s.Spec.ClusterIP = s.Spec.ClusterIPs[0]
	return nil
}

// needsNodePorts says whether the Service's type has ports on nodes.
func needsNodePorts(s *corev1.Service) bool {
	switch s.Spec.Type {
	case corev1.ServiceTypeNodePort:
		return true
	case corev1.ServiceTypeLoadBalancer:
		return s.Spec.AllocateLoadBalancerNodePorts == nil || *s.Spec.AllocateLoadBalancerNodePorts
	}
	return false
}

// needsHealthCheckPort says whether load balancers ask the nodes which of them have endpoints.
func needsHealthCheckPort(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

func (a *Allocator) allocatePorts(s *corev1.Service, have map[int32]bool, t *taken) field.ErrorList {
	var errs field.ErrorList
	mine := map[int32][]corev1.Protocol{} // one number serves several protocols of a Service
	claim := func(path *field.Path, want int32) (int32, bool) {
		n := int(want) - firstNodePort
		var err error
		switch {
		case want == 0:
			n, err = a.ports.next()
		case have[want]:
			return want, true
		case n < 0 || n >= a.ports.size:
			errs = append(errs, field.Invalid(path, want, fmt.Sprintf(
				"provided port is not in the valid range. The range of valid ports is %d-%d", firstNodePort, lastNodePort)))
			return 0, false
		default:
			err = a.ports.take(n)
		}
		switch {
		case errors.Is(err, errTaken):
			errs = append(errs, field.Invalid(path, want, "provided port is already allocated"))
			return 0, false
		case err != nil:
			errs = append(errs, field.InternalError(path, fmt.Errorf("failed to allocate a nodePort: %w", err)))
			return 0, false
		}
		t.ports = append(t.ports, n)
		return int32(n) + firstNodePort, true
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		want := p.NodePort
		if want == 0 { // the same port in another protocol shares its number
			for j := range i {
				if q := s.Spec.Ports[j]; q.Port == p.Port && q.Protocol != p.Protocol && q.NodePort != 0 && !holds(mine[q.NodePort], p.Protocol) {
					want = q.NodePort
				}
			}
		}
		if want != 0 && len(mine[want]) > 0 {
			p.NodePort = want
		} else if got, ok := claim(field.NewPath("spec", "ports").Index(i).Child("nodePort"), want); ok {
			p.NodePort = got
		}
		mine[p.NodePort] = append(mine[p.NodePort], p.Protocol)
	}
	if needsHealthCheckPort(s) {
		if got, ok := claim(field.NewPath("spec", "healthCheckNodePort"), s.Spec.HealthCheckNodePort); ok {
			s.Spec.HealthCheckNodePort = got
		}
	}
	return errs
}

func holds(list []corev1.Protocol, p corev1.Protocol) bool {
	for _, q := range list {
		if q == p {
			return true
		}
	}
	return false
}
