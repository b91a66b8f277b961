package apiserver_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestDiscovery(t *testing.T) {
	f := start(t)
	_, lists, err := f.kube.Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, l := range lists {
		for _, r := range l.APIResources {
			got[l.GroupVersion+" "+r.Name] = r.Kind + " " + strings.Join(r.ShortNames, ",")
		}
	}
	for name, want := range map[string]string{
		"v1 pods": "Pod po", "v1 pods/log": "Pod ", "v1 pods/exec": "PodExecOptions ", "v1 pods/eviction": "Eviction ", "v1 pods/binding": "Binding ",
		"v1 pods/status": "Pod ", "v1 pods/ephemeralcontainers": "Pod ", "v1 pods/attach": "PodAttachOptions ", "v1 bindings": "Binding ",
		"v1 pods/portforward": "PodPortForwardOptions ", "v1 pods/proxy": "PodProxyOptions ", "v1 nodes/proxy": "NodeProxyOptions ",
		"v1 namespaces": "Namespace ns", "v1 namespaces/finalize": "Namespace ", "v1 namespaces/status": "Namespace ", "v1 nodes/status": "Node ",
		"v1 services": "Service svc", "v1 serviceaccounts/token": "TokenRequest ", "v1 events": "Event ev", "events.k8s.io/v1 events": "Event ev",
		"apps/v1 deployments": "Deployment deploy", "apps/v1 deployments/scale": "Scale ", "apps/v1 deployments/status": "Deployment ",
		"apps/v1 replicasets/scale": "Scale ", "apps/v1 controllerrevisions": "ControllerRevision ", "coordination.k8s.io/v1 leases": "Lease ",
		"discovery.k8s.io/v1 endpointslices": "EndpointSlice ", "authentication.k8s.io/v1 tokenreviews": "TokenReview ",
		"authorization.k8s.io/v1 selfsubjectaccessreviews": "SelfSubjectAccessReview ", "v1 configmaps": "ConfigMap cm", "v1 secrets": "Secret ",
		"node.k8s.io/v1 runtimeclasses": "RuntimeClass ", "v1 persistentvolumes": "PersistentVolume pv", "v1 persistentvolumes/status": "PersistentVolume ",
		"v1 persistentvolumeclaims": "PersistentVolumeClaim pvc", "v1 persistentvolumeclaims/status": "PersistentVolumeClaim ",
		"storage.k8s.io/v1 storageclasses": "StorageClass sc", "storage.k8s.io/v1 volumeattributesclasses": "VolumeAttributesClass vac",
		"storage.k8s.io/v1 csidrivers": "CSIDriver ", "storage.k8s.io/v1 csinodes": "CSINode ", "storage.k8s.io/v1 csinodes/status": "CSINode ",
		"storage.k8s.io/v1 csistoragecapacities": "CSIStorageCapacity ", "storage.k8s.io/v1 volumeattachments": "VolumeAttachment ",
		"storage.k8s.io/v1 volumeattachments/status": "VolumeAttachment ", "resource.k8s.io/v1 deviceclasses": "DeviceClass ",
		"resource.k8s.io/v1 resourceclaims": "ResourceClaim ", "resource.k8s.io/v1 resourceclaims/status": "ResourceClaim ",
		"resource.k8s.io/v1 resourceclaimtemplates": "ResourceClaimTemplate ", "resource.k8s.io/v1 resourceslices": "ResourceSlice ",
		"resource.k8s.io/v1 devicetaintrules": "DeviceTaintRule ", "resource.k8s.io/v1 devicetaintrules/status": "DeviceTaintRule ",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
}

func TestOpenAPI(t *testing.T) {
	f := start(t)
	v2, err := f.kube.Discovery().OpenAPISchema()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, d := range v2.Definitions.AdditionalProperties {
		found = found || d.Name == "io.k8s.api.core.v1.PodSpec"
	}
	if !found {
		t.Error("version 2 has no PodSpec")
	}
	paths, err := f.kube.Discovery().OpenAPIV3().Paths()
	if err != nil {
		t.Fatal(err)
	}
	names := slices.Sorted(maps.Keys(paths))
	for _, want := range []string{"api/v1", "apis/apps/v1", "apis/events.k8s.io/v1"} {
		if !slices.Contains(names, want) {
			t.Errorf("version 3 has no %s: %v", want, names)
		}
	}
	raw, err := paths["apis/apps/v1"].Schema("application/json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Info       struct{ Title, Version string }
		Components struct {
			Schemas map[string]json.RawMessage
		}
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Info.Title != "Kubernetes" || doc.Components.Schemas["io.k8s.api.apps.v1.Deployment"] == nil {
		t.Errorf("%+v, %d schemas", doc.Info, len(doc.Components.Schemas))
	}
	again, err := paths["apis/apps/v1"].Schema("application/json")
	if err != nil || !bytes.Equal(raw, again) {
		t.Errorf("not the same twice: %v", err)
	}
}

// TestEventsOfBothGroups writes one event in each group's form and reads both in the other's.
func TestEventsOfBothGroups(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	old, young := f.kube.CoreV1().Events("default"), f.kube.EventsV1().Events("default")
	about := corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "p", APIVersion: "v1"}
	must[*corev1.Event](t)(old.Create(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "a"}, InvolvedObject: about, Reason: "Old", Message: "m", Type: "Normal",
		Source: corev1.EventSource{Component: "c"}, FirstTimestamp: metav1.Now(), LastTimestamp: metav1.Now(), Count: 1,
	}, metav1.CreateOptions{}))
	must[*eventsv1.Event](t)(young.Create(ctx, &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "b"}, Regarding: about, Reason: "Young", Note: "n", Type: "Normal", EventTime: metav1.NowMicro(),
		ReportingController: "c", ReportingInstance: "i", Action: "Do",
	}, metav1.CreateOptions{}))
	if e := must[*eventsv1.Event](t)(young.Get(ctx, "a", metav1.GetOptions{})); e.Note != "m" || e.Regarding.Name != "p" || e.DeprecatedCount != 1 {
		t.Errorf("%+v", e)
	}
	if e := must[*corev1.Event](t)(old.Get(ctx, "b", metav1.GetOptions{})); e.Message != "n" || e.InvolvedObject.Name != "p" {
		t.Errorf("%+v", e)
	}
	if l := must[*corev1.EventList](t)(old.List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=p,reason=Young"})); len(l.Items) != 1 {
		t.Errorf("%d by the old selector", len(l.Items))
	}
	if l := must[*eventsv1.EventList](t)(young.List(ctx, metav1.ListOptions{FieldSelector: "regarding.name=p"})); len(l.Items) != 2 {
		t.Errorf("%d by the young selector", len(l.Items))
	}
	if _, err := young.Patch(ctx, "b", types.MergePatchType, []byte(`{"note":"changed"}`), metav1.PatchOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("a note is immutable in events.k8s.io, got %v", err)
	}
	if _, err := young.Patch(ctx, "b", types.MergePatchType, []byte(`{"metadata":{"labels":{"k":"v"}}}`), metav1.PatchOptions{}); err != nil {
		t.Error(err)
	}
	if e := must[*corev1.Event](t)(old.Get(ctx, "b", metav1.GetOptions{})); e.Labels["k"] != "v" {
		t.Errorf("%+v", e)
	}
}

func TestScale(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	one := int32(1)
	labels := map[string]string{"app": "x"}
	api := f.kube.AppsV1().Deployments("default")
	d := must[*appsv1.Deployment](t)(api.Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "d"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &one, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: newPod("d").Spec},
		},
	}, metav1.CreateOptions{FieldManager: "maker"}))
	s := must[*autoscalingv1.Scale](t)(api.GetScale(ctx, "d", metav1.GetOptions{}))
	if s.Spec.Replicas != 1 || s.Status.Selector != "app=x" || s.UID != d.UID || s.ResourceVersion != d.ResourceVersion {
		t.Errorf("%+v", s)
	}
	s.Spec.Replicas = 3
	s = must[*autoscalingv1.Scale](t)(api.UpdateScale(ctx, "d", s, metav1.UpdateOptions{FieldManager: "scaler"}))
	if s.Spec.Replicas != 3 {
		t.Errorf("%+v", s)
	}
	d = must[*appsv1.Deployment](t)(api.Get(ctx, "d", metav1.GetOptions{}))
	owners := map[string]string{}
	for _, m := range d.ManagedFields {
		if strings.Contains(string(m.FieldsV1.Raw), `"f:replicas"`) {
			owners[m.Manager] = m.Subresource
		}
	}
	if diff := cmp.Diff(map[string]string{"scaler": "scale"}, owners); diff != "" || *d.Spec.Replicas != 3 || d.Generation != 2 {
		t.Errorf("generation %d, owners of replicas %s", d.Generation, diff)
	}
	s.ResourceVersion, s.Spec.Replicas = "1", 4
	if _, err := api.UpdateScale(ctx, "d", s, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("stale: %v", err)
	}
	if _, err := api.Patch(ctx, "d", types.MergePatchType, []byte(`{"spec":{"replicas":-1}}`), metav1.PatchOptions{}, "scale"); !apierrors.IsInvalid(err) {
		t.Errorf("negative: %v", err)
	}
	if _, err := api.GetScale(ctx, "none", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("none: %v", err)
	}
	if _, err := api.Patch(ctx, "none", types.MergePatchType, []byte(`{"spec":{"replicas":1}}`), metav1.PatchOptions{}, "scale"); !apierrors.IsNotFound(err) {
		t.Errorf("patch none: %v", err)
	}
	status := must[*appsv1.Deployment](t)(api.Patch(ctx, "d", types.MergePatchType, []byte(`{"spec":{"replicas":9},"status":{"replicas":2}}`), metav1.PatchOptions{}, "status"))
	if *status.Spec.Replicas != 3 || status.Status.Replicas != 2 || status.Generation != 2 {
		t.Errorf("status wrote %d %+v", *status.Spec.Replicas, status.Status)
	}
}
