package admission

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/api/volume"
)

type storageObjects struct {
	Lookup
	classes []*storagev1.StorageClass
	labels  map[string]string
}

func (o storageObjects) StorageClasses(context.Context) ([]*storagev1.StorageClass, error) {
	return o.classes, nil
}

func (o storageObjects) Namespace(context.Context, string, bool) (*corev1.Namespace, error) {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Labels: o.labels}}, nil
}

func about(gvk schema.GroupVersionKind, resource, sub string, obj, old runtime.Object, op admission.Operation) admission.Attributes {
	return admission.NewAttributesRecord(obj, old, gvk, "n", "x", gvk.GroupVersion().WithResource(resource), sub, op, nil, false, &user.DefaultInfo{})
}

func claim(class *string, size string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: class, Resources: corev1.VolumeResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}}}}
}

func class(name string, usual, grows bool) *storagev1.StorageClass {
	c := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, AllowVolumeExpansion: &grows}
	if usual {
		c.Annotations = map[string]string{volume.DefaultClassAnnotation: "true"}
	}
	return c
}

func TestDefaultClass(t *testing.T) {
	gvk := corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim")
	for _, tt := range []struct {
		name    string
		classes []*storagev1.StorageClass
		given   *string
		want    *string
	}{
		{"no class at all", nil, nil, nil},
		{"none that is the default", []*storagev1.StorageClass{class("a", false, false)}, nil, nil},
		{"the default", []*storagev1.StorageClass{class("a", false, false), class("b", true, false)}, nil, ptr.To("b")},
		{"its own", []*storagev1.StorageClass{class("b", true, false)}, ptr.To("a"), ptr.To("a")},
		{"none by its own will", []*storagev1.StorageClass{class("b", true, false)}, ptr.To(""), ptr.To("")},
	} {
		c := claim(tt.given, "1")
		a := about(gvk, "persistentvolumeclaims", "", c, nil, admission.Create)
		if err := newStorage(storageObjects{classes: tt.classes}).Admit(t.Context(), a, nil); err != nil || !ptr.Equal(c.Spec.StorageClassName, tt.want) {
			t.Errorf("%s: %v, %v", tt.name, ptr.Deref(c.Spec.StorageClassName, "<nil>"), err)
		}
	}
}

func TestProtection(t *testing.T) {
	p := newStorage(storageObjects{})
	for _, tt := range []struct {
		obj  runtime.Object
		want []string
	}{
		{claim(nil, "1"), []string{"kubernetes.io/pvc-protection"}},
		{&corev1.PersistentVolume{}, []string{"kubernetes.io/pv-protection"}},
		{&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Finalizers: []string{"a/b", "kubernetes.io/pv-protection"}}}, []string{"a/b", "kubernetes.io/pv-protection"}},
		{&storagev1.VolumeAttributesClass{}, []string{"kubernetes.io/vac-protection"}},
		{&storagev1.StorageClass{}, nil},
	} {
		a := about(schema.GroupVersionKind{Kind: "X"}, "xs", "", tt.obj, nil, admission.Create)
		if err := p.Admit(t.Context(), a, nil); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(tt.want, tt.obj.(metav1.Object).GetFinalizers()); diff != "" {
			t.Errorf("%T: %s", tt.obj, diff)
		}
	}
}

func TestClaimsThatGrow(t *testing.T) {
	gvk := corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim")
	p := newStorage(storageObjects{classes: []*storagev1.StorageClass{class("fixed", false, false), class("grows", false, true)}})
	for _, tt := range []struct {
		name, class, size, err string
		pending                bool
	}{
		{name: "the same", class: "fixed", size: "1Gi"},
		{name: "more", class: "grows", size: "2Gi"},
		{name: "less", class: "grows", size: "1Mi"},
		{name: "more of what does not grow", class: "fixed", size: "2Gi", err: "only dynamically provisioned pvc can be resized"},
		{name: "more of no class", size: "2Gi", err: "only dynamically provisioned pvc can be resized"},
		{name: "more of what is not there yet", class: "grows", size: "2Gi", pending: true, err: "Only bound persistent volume claims can be expanded"},
	} {
		old := claim(&tt.class, "1Gi")
		if !tt.pending {
			old.Status.Phase = corev1.ClaimBound
		}
		err := p.Validate(t.Context(), about(gvk, "persistentvolumeclaims", "", claim(&tt.class, tt.size), old, admission.Update), nil)
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestAdminAccess(t *testing.T) {
	gvk := resourcev1.SchemeGroupVersion.WithKind("ResourceClaim")
	spec := func(admin bool) resourcev1.ResourceClaimSpec {
		return resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{
			{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{AdminAccess: &admin}}}}}
	}
	given := &resourcev1.ResourceClaim{Status: resourcev1.ResourceClaimStatus{Allocation: &resourcev1.AllocationResult{
		Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{{AdminAccess: ptr.To(true)}}}}}}
	for _, tt := range []struct {
		name     string
		a        admission.Attributes
		labelled bool
		refused  string
	}{
		{"plain", about(gvk, "resourceclaims", "", &resourcev1.ResourceClaim{Spec: spec(false)}, nil, admission.Create), false, ""},
		{"admin", about(gvk, "resourceclaims", "", &resourcev1.ResourceClaim{Spec: spec(true)}, nil, admission.Create), false,
			"spec.devices.requests[0].adminAccess: Forbidden: admin access to devices requires"},
		{"admin where it may", about(gvk, "resourceclaims", "", &resourcev1.ResourceClaim{Spec: spec(true)}, nil, admission.Create), true, ""},
		{"template", about(gvk.GroupVersion().WithKind("ResourceClaimTemplate"), "resourceclaimtemplates", "", &resourcev1.ResourceClaimTemplate{
			Spec: resourcev1.ResourceClaimTemplateSpec{Spec: spec(true)}}, nil, admission.Create), false, "spec.spec.devices.requests[0].adminAccess: Forbidden"},
		{"allocated", about(gvk, "resourceclaims", "status", given, &resourcev1.ResourceClaim{}, admission.Update), false,
			"status.allocation.devices.results[0].adminAccess: Forbidden"},
		{"allocated before", about(gvk, "resourceclaims", "status", given, given, admission.Update), false, ""},
	} {
		objects := storageObjects{}
		if tt.labelled {
			objects.labels = map[string]string{adminLabel: "true"}
		}
		err := newAdminAccess(objects).Validate(t.Context(), tt.a, nil)
		if (err == nil) != (tt.refused == "") || err != nil && !strings.Contains(err.Error(), tt.refused) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
