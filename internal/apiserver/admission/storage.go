package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"

	"carob.dev/carob/internal/api/device"
	"carob.dev/carob/internal/api/volume"
)

// storage protects what may be in use by finalizers, gives claims for volumes the default class, and lets only those grow whose class allows it.
type storage struct {
	*admission.Handler
	objects Lookup
}

func newStorage(objects Lookup) *storage {
	return &storage{Handler: admission.NewHandler(admission.Create, admission.Update), objects: objects}
}

// Admit implements admission.MutationInterface.
func (p *storage) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetSubresource() != "" || a.GetOperation() != admission.Create {
		return nil
	}
	switch obj := a.GetObject().(type) {
	case *corev1.PersistentVolume:
		protect(&obj.ObjectMeta, "kubernetes.io/pv-protection")
	case *storagev1.VolumeAttributesClass:
		protect(&obj.ObjectMeta, "kubernetes.io/vac-protection")
	case *corev1.PersistentVolumeClaim:
		protect(&obj.ObjectMeta, "kubernetes.io/pvc-protection")
		return p.setClass(ctx, a, obj)
	}
	return nil
}

func protect(meta *metav1.ObjectMeta, finalizer string) {
	if !slices.Contains(meta.Finalizers, finalizer) {
		meta.Finalizers = append(meta.Finalizers, finalizer)
	}
}

func (p *storage) setClass(ctx context.Context, a admission.Attributes, claim *corev1.PersistentVolumeClaim) error {
	if _, set := volume.ClassOf(claim); set {
		return nil
	}
	classes, err := p.objects.StorageClasses(ctx)
	if err != nil {
		return admission.NewForbidden(a, err)
	}
	if c := volume.DefaultClass(classes); c != nil {
		name := c.Name
		claim.Spec.StorageClassName = &name
	}
	return nil
}

// Validate implements admission.ValidationInterface.
func (p *storage) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	claim, ok := a.GetObject().(*corev1.PersistentVolumeClaim)
	old, hadOld := a.GetOldObject().(*corev1.PersistentVolumeClaim)
	if !ok || !hadOld || a.GetSubresource() != "" || a.GetOperation() != admission.Update {
		return nil
	}
	now, was := claim.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage]
	if now.Cmp(was) <= 0 {
		return nil
	}
	if old.Status.Phase != corev1.ClaimBound {
		return admission.NewForbidden(a, errors.New("Only bound persistent volume claims can be expanded")) //nolint:staticcheck // Kubernetes' words
	}
	classes, err := p.objects.StorageClasses(ctx)
	if err != nil {
		return admission.NewForbidden(a, err)
	}
	if !mayGrow(claim, old, classes) {
		return admission.NewForbidden(a, errors.New(
			"only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"))
	}
	return nil
}

func mayGrow(claim, old *corev1.PersistentVolumeClaim, classes []*storagev1.StorageClass) bool {
	name, _ := volume.ClassOf(claim)
	was, _ := volume.ClassOf(old)
	for _, c := range classes {
		if c.Name == name && name == was {
			return c.AllowVolumeExpansion != nil && *c.AllowVolumeExpansion
		}
	}
	return false
}

// adminLabel, set to true, lets those who may write to a namespace ask for devices that others use.
const adminLabel = "resource.kubernetes.io/admin-access"

// adminAccess refuses requests for devices that others use outside the namespaces that are meant for it.
type adminAccess struct {
	*admission.Handler
	objects Lookup
}

func newAdminAccess(objects Lookup) *adminAccess {
	return &adminAccess{Handler: admission.NewHandler(admission.Create, admission.Update), objects: objects}
}

// Validate implements admission.ValidationInterface.
func (p *adminAccess) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	at := wantsAdmin(a)
	if at == nil {
		return nil
	}
	ns, err := p.objects.Namespace(ctx, a.GetNamespace(), false)
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("could not retrieve namespace to verify admin access: %w", err))
	}
	if ns.Labels[adminLabel] == "true" {
		return nil
	}
	return apierrors.NewInvalid(a.GetKind().GroupKind(), a.GetName(), field.ErrorList{field.Forbidden(at, fmt.Sprintf(
		"admin access to devices requires the `%s: true` label on the containing namespace", adminLabel))})
}

// wantsAdmin is the field by which a request asks for access that it had not before; nil if it does not.
func wantsAdmin(a admission.Attributes) *field.Path {
	switch obj := a.GetObject().(type) {
	case *resourcev1.ResourceClaimTemplate:
		if a.GetOperation() == admission.Create {
			return device.AdminAccess(field.NewPath("spec", "spec"), &obj.Spec.Spec)
		}
	case *resourcev1.ResourceClaim:
		switch {
		case a.GetOperation() == admission.Create:
			return device.AdminAccess(field.NewPath("spec"), &obj.Spec)
		case a.GetSubresource() == "status":
			if old, ok := a.GetOldObject().(*resourcev1.ResourceClaim); ok && device.AdminAllocated(&old.Status) == nil {
				return device.AdminAllocated(&obj.Status)
			}
		}
	}
	return nil
}
