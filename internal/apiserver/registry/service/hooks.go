package service

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/util/dryrun"

	"carob.dev/carob/internal/apiserver/registry"
)

// Lister lists all Services of a registry.
func Lister(s *registry.Store) func(context.Context) ([]corev1.Service, error) {
	return func(ctx context.Context) ([]corev1.Service, error) {
		ctx = request.WithNamespace(ctx, metav1.NamespaceAll)
		obj, err := s.List(ctx, &metainternalversion.ListOptions{})
		if err != nil {
			return nil, err
		}
		list, ok := obj.(*corev1.ServiceList)
		if !ok {
			return nil, apierrors.NewInternalError(nil)
		}
		return list.Items, nil
	}
}

// Install makes a registry of Services allocate.
func (a *Allocator) Install(s *registry.Store) {
	s.BeginCreate = func(ctx context.Context, obj runtime.Object, o *metav1.CreateOptions) (genericregistry.FinishFunc, error) {
		return a.begin(ctx, obj.(*corev1.Service), nil, dryrun.IsDryRun(o.DryRun))
	}
	s.BeginUpdate = func(ctx context.Context, obj, old runtime.Object, o *metav1.UpdateOptions) (genericregistry.FinishFunc, error) {
		return a.begin(ctx, obj.(*corev1.Service), old.(*corev1.Service), dryrun.IsDryRun(o.DryRun))
	}
	s.AfterDelete = func(obj runtime.Object, o *metav1.DeleteOptions) {
		if svc, ok := obj.(*corev1.Service); ok && !dryrun.IsDryRun(o.DryRun) {
			a.mu.Lock()
			loaded := a.loaded
			a.mu.Unlock()
			if loaded {
				a.giveBack(a.held(svc))
			}
		}
	}
}

func (a *Allocator) begin(ctx context.Context, s, old *corev1.Service, dry bool) (genericregistry.FinishFunc, error) {
	if old != nil {
		keep(s, old)
	}
	syncClusterIPs(s, old)
	drop(s, old)
	errs := setFamilies(s, family(a.ips.prefix))
	var t taken
	if len(errs) == 0 {
		var err error
		if t, errs, err = a.allocate(ctx, s, old); err != nil {
			return nil, apierrors.NewInternalError(err)
		}
	}
	if len(errs) > 0 {
		return nil, invalid(s.Name, errs)
	}
	has := a.held(s) // as it is now; the object may be changed by others later
	return func(_ context.Context, success bool) {
		switch {
		case !success || dry:
			a.giveBack(t)
		case old != nil:
			a.giveBack(a.held(old).without(has))
		}
	}, nil
}

func (t taken) without(keep taken) taken {
	t.ips = slices.DeleteFunc(slices.Clone(t.ips), func(n int) bool { return slices.Contains(keep.ips, n) })
	t.ports = slices.DeleteFunc(slices.Clone(t.ports), func(n int) bool { return slices.Contains(keep.ports, n) })
	return t
}

func invalid(name string, errs field.ErrorList) error {
	return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Service").GroupKind(), name, errs)
}

// keep copies what was allocated where a client left it out: those who replace a Service need not know it.
func keep(s, old *corev1.Service) {
	if !noAddress(s) && !noAddress(old) {
		if s.Spec.ClusterIP == "" && len(s.Spec.ClusterIPs) == 0 {
			s.Spec.ClusterIP, s.Spec.ClusterIPs = old.Spec.ClusterIP, slices.Clone(old.Spec.ClusterIPs)
		}
		if s.Spec.IPFamilyPolicy == nil {
			s.Spec.IPFamilyPolicy = old.Spec.IPFamilyPolicy
		}
		if len(s.Spec.IPFamilies) == 0 {
			s.Spec.IPFamilies = slices.Clone(old.Spec.IPFamilies)
		}
	}
	if needsNodePorts(s) && needsNodePorts(old) {
		type key struct {
			protocol corev1.Protocol
			port     int32
		}
		had, used := map[key]int32{}, map[int32]bool{}
		for _, p := range old.Spec.Ports {
			had[key{p.Protocol, p.Port}] = p.NodePort
		}
		for _, p := range s.Spec.Ports {
			used[p.NodePort] = true
		}
		for i := range s.Spec.Ports {
			p := &s.Spec.Ports[i]
			if n := had[key{p.Protocol, p.Port}]; p.NodePort == 0 && n != 0 && !used[n] {
				p.NodePort = n
			}
		}
	}
	if needsHealthCheckPort(s) && needsHealthCheckPort(old) && s.Spec.HealthCheckNodePort == 0 {
		s.Spec.HealthCheckNodePort = old.Spec.HealthCheckNodePort
	}
}

// drop takes away what the new type of a Service does not have, where the client left it as it was. What it set itself, validation refuses.
func drop(s, old *corev1.Service) {
	if old == nil {
		return
	}
	if noAddress(s) && !noAddress(old) && slices.Equal(s.Spec.ClusterIPs, old.Spec.ClusterIPs) {
		s.Spec.ClusterIP, s.Spec.ClusterIPs = "", nil
	}
	if needsNodePorts(old) && (s.Spec.Type == corev1.ServiceTypeClusterIP || noAddress(s)) {
		had := nodePorts(old)
		for i := range s.Spec.Ports {
			if slices.Contains(had, s.Spec.Ports[i].NodePort) {
				s.Spec.Ports[i].NodePort = 0
			}
		}
	}
	if needsHealthCheckPort(old) && !needsHealthCheckPort(s) && s.Spec.HealthCheckNodePort == old.Spec.HealthCheckNodePort {
		s.Spec.HealthCheckNodePort = 0
	}
}
