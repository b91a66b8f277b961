package device

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/dynamic-resource-allocation/cel"

	"carob.dev/carob/internal/api/rule"
)

// Class checks a class of devices; old is nil for a new one. What was in old already is not compiled again.
func Class(c, old *resourcev1.DeviceClass) field.ErrorList {
	errs := rule.Meta(&c.ObjectMeta, false, apivalidation.NameIsDNSSubdomain)
	selectorsKept, configKept := false, false
	if old != nil {
		errs = append(errs, rule.MetaUpdate(&c.ObjectMeta, &old.ObjectMeta)...)
		selectorsKept = equality.Semantic.DeepEqual(c.Spec.Selectors, old.Spec.Selectors)
		configKept = equality.Semantic.DeepEqual(c.Spec.Config, old.Spec.Config)
	}
	spec := field.NewPath("spec")
	errs = append(errs, selectors(spec.Child("selectors"), c.Spec.Selectors, selectorsKept)...)
	errs = append(errs, each(spec.Child("config"), c.Spec.Config, resourcev1.DeviceConfigMaxSize,
		func(at *field.Path, c resourcev1.DeviceClassConfiguration) field.ErrorList {
			return configuration(at, &c.DeviceConfiguration, configKept)
		})...)
	if name := c.Spec.ExtendedResourceName; name != nil && !extended(*name) {
		errs = append(errs, field.Invalid(spec.Child("extendedResourceName"), *name, "must be a valid extended resource name"))
	}
	return errs
}

// extended says whether a name is a resource of an operator's own.
func extended(name string) bool {
	if !strings.Contains(name, "/") || strings.Contains(name, corev1.ResourceDefaultNamespacePrefix) ||
		strings.HasPrefix(name, corev1.DefaultResourceRequestsPrefix) {
		return false
	}
	return len(validation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+name)) == 0
}

func selectors(at *field.Path, list []resourcev1.DeviceSelector, stored bool) field.ErrorList {
	return each(at, list, resourcev1.DeviceSelectorsMaxSize, func(at *field.Path, s resourcev1.DeviceSelector) field.ErrorList {
		if s.CEL == nil {
			return field.ErrorList{field.Required(at.Child("cel"), "")}
		}
		if stored { // it was right when it was stored
			return nil
		}
		return expression(at.Child("cel", "expression"), s.CEL.Expression)
	})
}

func expression(at *field.Path, text string) field.ErrorList {
	if len(text) > resourcev1.CELSelectorExpressionMaxLength {
		return field.ErrorList{field.TooLong(at, "", resourcev1.CELSelectorExpressionMaxLength)}
	}
	env := environment.NewExpressions
	result := cel.GetCompiler(cel.Features{EnableConsumableCapacity: true}).CompileCELExpression(text, cel.Options{EnvType: &env})
	if result.Error != nil {
		var wrong *apiservercel.Error
		if !errors.As(result.Error, &wrong) {
			return field.ErrorList{field.InternalError(at, fmt.Errorf("unsupported error type: %w", result.Error))}
		}
		switch wrong.Type {
		case apiservercel.ErrorTypeRequired:
			return field.ErrorList{field.Required(at, wrong.Detail)}
		case apiservercel.ErrorTypeInvalid:
			return field.ErrorList{field.Invalid(at, text, wrong.Detail)}
		}
		return field.ErrorList{field.InternalError(at, wrong)}
	}
	if result.MaxCost > resourcev1.CELSelectorExpressionMaxCost {
		return field.ErrorList{field.Forbidden(at, "too complex, exceeds cost limit")}
	}
	return nil
}

func configuration(at *field.Path, c *resourcev1.DeviceConfiguration, stored bool) field.ErrorList {
	if c.Opaque == nil {
		return field.ErrorList{field.Required(at.Child("opaque"), "")}
	}
	errs := rule.DriverName(at.Child("opaque", "driver"), c.Opaque.Driver)
	return append(errs, object(at.Child("opaque", "parameters"), c.Opaque.Parameters, stored, resourcev1.OpaqueParametersMaxLength)...)
}

// object wants a JSON object of at most limit bytes; one that is stored already may be longer.
func object(at *field.Path, raw runtime.RawExtension, stored bool, limit int) field.ErrorList {
	if len(raw.Raw) == 0 {
		return field.ErrorList{field.Required(at, "")}
	}
	if !stored && len(raw.Raw) > limit {
		return field.ErrorList{field.TooLong(at, "", limit)}
	}
	var v any
	if err := json.Unmarshal(raw.Raw, &v); err != nil {
		return field.ErrorList{field.Invalid(at, "<value omitted>", fmt.Sprintf("error parsing data as JSON: %v", err))}
	}
	if v == nil {
		return field.ErrorList{field.Required(at, "")}
	}
	if _, ok := v.(map[string]any); !ok {
		return field.ErrorList{field.Invalid(at, "<value omitted>", "must be a valid JSON object")}
	}
	return nil
}
