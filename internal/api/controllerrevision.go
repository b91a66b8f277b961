package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

func controllerRevisionKind() *Kind {
	return &Kind{
		GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("ControllerRevision"),
		Resource:         "controllerrevisions", Singular: "controllerrevision",
		Namespaced: true,
		New:        func() runtime.Object { return &appsv1.ControllerRevision{} },
		NewList:    func() runtime.Object { return &appsv1.ControllerRevisionList{} },

		Validate: check(func(r *appsv1.ControllerRevision) field.ErrorList {
			return append(validateControllerRevision(r), revisionData(r.Data.Raw)...)
		}),
		ValidateUpdate: checkUpdate(func(r, old *appsv1.ControllerRevision) field.ErrorList {
			errs := append(rule.MetaUpdate(&r.ObjectMeta, &old.ObjectMeta), validateControllerRevision(r)...)
			return append(errs, rule.Immutable(field.NewPath("data"), r.Data, old.Data)...)
		}),
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

func validateControllerRevision(r *appsv1.ControllerRevision) field.ErrorList {
	errs := rule.Meta(&r.ObjectMeta, true, apivalidation.NameIsDNSSubdomain)
	return append(errs, rule.NonNegative(field.NewPath("revision"), r.Revision)...)
}

// revisionData wants a JSON object.
func revisionData(raw []byte) field.ErrorList {
	at := field.NewPath("data")
	if raw == nil {
		return field.ErrorList{field.Required(at, "data is mandatory")}
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return field.ErrorList{field.Invalid(at, "<value omitted>", fmt.Sprintf("error parsing data: %v", err))}
	}
	switch v.(type) {
	case nil:
		return field.ErrorList{field.Required(at, "data is mandatory")}
	case map[string]any:
		return nil
	}
	return field.ErrorList{field.Required(at, "data must be a valid JSON object")}
}
