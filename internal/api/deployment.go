package api

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
)

func deploymentKind() *Kind {
	doc := appsv1.DeploymentStatus{}.SwaggerDoc()
	return &Kind{
		GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("Deployment"),
		Resource:         "deployments", Singular: "deployment", ShortNames: []string{"deploy"}, Categories: []string{"all"},
		Namespaced: true,
		New:        func() runtime.Object { return &appsv1.Deployment{} },
		NewList:    func() runtime.Object { return &appsv1.DeploymentList{} },

		AllowUnconditionalUpdate: true,

		Columns: []metav1.TableColumnDefinition{
			nameColumn(),
			column("Ready", "string", "Number of the pod with ready state"),
			column("Up-to-date", "string", doc["updatedReplicas"]),
			column("Available", "string", doc["availableReplicas"]),
			ageColumn(),
			wide("Containers", "Names of each container in the template."),
			wide("Images", "Images referenced by each container in the template."),
			wide("Selector", appsv1.DeploymentSpec{}.SwaggerDoc()["selector"]),
		},
		Row: row(deploymentRow),
		Scale: &Scale{
			Get: func(obj runtime.Object) (int32, int32, string, error) {
				d := obj.(*appsv1.Deployment)
				selector, err := selectorString(d.Spec.Selector)
				return ptr.Deref(d.Spec.Replicas, 1), d.Status.Replicas, selector, err
			},
			Set: func(obj runtime.Object, replicas int32) { obj.(*appsv1.Deployment).Spec.Replicas = &replicas },
		},
	}
}

func deploymentRow(d *appsv1.Deployment, now time.Time) []any {
	selector, err := selectorString(d.Spec.Selector)
	if err != nil {
		selector = "<invalid>"
	}
	names, images := containerCells(d.Spec.Template.Spec.Containers)
	return []any{
		d.Name, fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, ptr.Deref(d.Spec.Replicas, 1)),
		int64(d.Status.UpdatedReplicas), int64(d.Status.AvailableReplicas), age(d.CreationTimestamp, now),
		names, images, selector,
	}
}

// selectorString writes a label selector in the form that requests take.
func selectorString(s *metav1.LabelSelector) (string, error) {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return "", err
	}
	return selector.String(), nil
}
