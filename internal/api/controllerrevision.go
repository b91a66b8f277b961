package api

import (
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func controllerRevisionKind() *Kind {
	return &Kind{
		GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("ControllerRevision"),
		Resource:         "controllerrevisions", Singular: "controllerrevision",
		Namespaced: true,
		New:        func() runtime.Object { return &appsv1.ControllerRevision{} },
		NewList:    func() runtime.Object { return &appsv1.ControllerRevisionList{} },

		AllowUnconditionalUpdate: true,

		Columns: []metav1.TableColumnDefinition{
			nameColumn(),
			column("Controller", "string", "Controller of the object"),
			column("Revision", "string", appsv1.ControllerRevision{}.SwaggerDoc()["revision"]),
			ageColumn(),
		},
		Row: row(controllerRevisionRow),
	}
}

// controllerRevisionRow names the controller as kubectl does: daemonset.apps/name.
func controllerRevisionRow(r *appsv1.ControllerRevision, now time.Time) []any {
	owner := "<none>"
	if ref := metav1.GetControllerOf(r); ref != nil {
		kind := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind).GroupKind()
		owner = strings.ToLower(kind.String()) + "/" + ref.Name
	}
	return []any{r.Name, owner, r.Revision, age(r.CreationTimestamp, now)}
}
