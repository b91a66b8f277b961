package api

import (
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
)

func replicaSetKind() *Kind {
	doc, status := appsv1.ReplicaSetSpec{}.SwaggerDoc(), appsv1.ReplicaSetStatus{}.SwaggerDoc()
	return &Kind{
		GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("ReplicaSet"),
		Resource:         "replicasets", Singular: "replicaset", ShortNames: []string{"rs"}, Categories: []string{"all"},
		Namespaced: true,
		New:        func() runtime.Object { return &appsv1.ReplicaSet{} },
		NewList:    func() runtime.Object { return &appsv1.ReplicaSetList{} },

		AllowUnconditionalUpdate: true,

		Columns: []metav1.TableColumnDefinition{
			nameColumn(),
			column("Desired", "integer", doc["replicas"]),
			column("Current", "integer", status["replicas"]),
			column("Ready", "integer", status["readyReplicas"]),
			ageColumn(),
			wide("Containers", "Names of each container in the template."),
			wide("Images", "Images referenced by each container in the template."),
			wide("Selector", doc["selector"]),
		},
		Row: row(func(r *appsv1.ReplicaSet, now time.Time) []any {
			names, images := containerCells(r.Spec.Template.Spec.Containers)
			return []any{
				r.Name, int64(ptr.Deref(r.Spec.Replicas, 1)), int64(r.Status.Replicas), int64(r.Status.ReadyReplicas), age(r.CreationTimestamp, now),
				names, images, metav1.FormatLabelSelector(r.Spec.Selector),
			}
		}),
		Fields: selectable(func(r *appsv1.ReplicaSet) fields.Set {
			return fields.Set{"status.replicas": strconv.Itoa(int(r.Status.Replicas))}
		}),
		Scale: &Scale{
			Get: func(obj runtime.Object) (int32, int32, string, error) {
				r := obj.(*appsv1.ReplicaSet)
				selector, err := selectorString(r.Spec.Selector)
				return ptr.Deref(r.Spec.Replicas, 1), r.Status.Replicas, selector, err
			},
			Set: func(obj runtime.Object, replicas int32) { obj.(*appsv1.ReplicaSet).Spec.Replicas = &replicas },
		},
	}
}
