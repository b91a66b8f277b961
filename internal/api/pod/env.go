package pod

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

func validateEnv(path *field.Path, vars []corev1.EnvVar) field.ErrorList {
	var errs field.ErrorList
	for i, v := range vars {
		at := path.Index(i)
		if v.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		} else {
			errs = append(errs, rule.Messages(at.Child("name"), v.Name, validation.IsRelaxedEnvVarName(v.Name))...)
		}
		if v.ValueFrom != nil {
			errs = append(errs, validateValueFrom(at.Child("valueFrom"), v)...)
		}
	}
	return errs
}

func validateValueFrom(at *field.Path, v corev1.EnvVar) field.ErrorList {
	var errs field.ErrorList
	count := 0
	from := v.ValueFrom
	if from.FieldRef != nil {
		count++
		errs = append(errs, fieldRef(at.Child("fieldRef"), from.FieldRef, envFields)...)
	}
	if from.ResourceFieldRef != nil {
		count++
		errs = append(errs, resourceFieldRef(at.Child("resourceFieldRef"), from.ResourceFieldRef, false)...)
	}
	if ref := from.ConfigMapKeyRef; ref != nil {
		count++
		errs = append(errs, keyRef(at.Child("configMapKeyRef"), ref.Name, ref.Key)...)
	}
	if ref := from.SecretKeyRef; ref != nil {
		count++
		errs = append(errs, keyRef(at.Child("secretKeyRef"), ref.Name, ref.Key)...)
	}
	if ref := from.FileKeyRef; ref != nil {
		count++
		errs = append(errs, fileKeyRef(at.Child("fileKeyRef"), ref)...)
	}
	switch {
	case count == 0:
		errs = append(errs, field.Invalid(at, "",
			"must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"))
	case v.Value != "":
		errs = append(errs, field.Invalid(at, "", "may not be specified when `value` is not empty"))
	case count > 1:
		errs = append(errs, field.Invalid(at, "", "may not have more than one field specified at a time"))
	}
	return errs
}

func keyRef(at *field.Path, name, key string) field.ErrorList {
	errs := rule.Messages(at.Child("name"), name, apivalidation.NameIsDNSSubdomain(name, false))
	if key == "" {
		return append(errs, field.Required(at.Child("key"), ""))
	}
	return append(errs, rule.ConfigMapKey(at.Child("key"), key)...)
}

func fileKeyRef(at *field.Path, ref *corev1.FileKeySelector) field.ErrorList {
	var errs field.ErrorList
	if ref.Key == "" {
		errs = append(errs, field.Required(at.Child("key"), ""))
	} else {
		errs = append(errs, rule.Messages(at.Child("key"), ref.Key, validation.IsRelaxedEnvVarName(ref.Key))...)
	}
	if ref.VolumeName == "" {
		errs = append(errs, field.Required(at.Child("volumeName"), ""))
	} else {
		errs = append(errs, rule.DNSLabel(at.Child("volumeName"), ref.VolumeName)...)
	}
	if ref.Path == "" {
		return append(errs, field.Required(at.Child("path"), ""))
	}
	return append(errs, noBacksteps(at.Child("path"), ref.Path)...)
}

// fileKeyVolumes wants an emptyDir wherever a variable is read from a file.
func fileKeyVolumes(path *field.Path, s *corev1.PodSpec) field.ErrorList {
	volumes := map[string]*corev1.VolumeSource{}
	for i := range s.Volumes {
		volumes[s.Volumes[i].Name] = &s.Volumes[i].VolumeSource
	}
	var errs field.ErrorList
	eachContainer(s, path, func(c *corev1.Container, path *field.Path) {
		for i, v := range c.Env {
			if v.ValueFrom == nil || v.ValueFrom.FileKeyRef == nil {
				continue
			}
			name := v.ValueFrom.FileKeyRef.VolumeName
			at := path.Child("env").Index(i).Child("valueFrom", "fileKeyRef", "volumeName")
			if source := volumes[name]; source == nil {
				errs = append(errs, field.NotFound(at, name))
			} else if source.EmptyDir == nil {
				errs = append(errs, field.Invalid(at, name, "referenced volume must be of type emptyDir"))
			}
		}
	})
	return errs
}

// validateEnvFrom reports a wrong number of sources at the list itself, as Kubernetes does.
func validateEnvFrom(path *field.Path, sources []corev1.EnvFromSource) field.ErrorList {
	var errs field.ErrorList
	for i, s := range sources {
		at := path.Index(i)
		if s.Prefix != "" {
			errs = append(errs, rule.Messages(at.Child("prefix"), s.Prefix, validation.IsRelaxedEnvVarName(s.Prefix))...)
		}
		if s.ConfigMapRef != nil {
			errs = append(errs, sourceName(at.Child("configMapRef", "name"), s.ConfigMapRef.Name)...)
		}
		if s.SecretRef != nil {
			errs = append(errs, sourceName(at.Child("secretRef", "name"), s.SecretRef.Name)...)
		}
		switch {
		case s.ConfigMapRef == nil && s.SecretRef == nil:
			errs = append(errs, field.Invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"))
		case s.ConfigMapRef != nil && s.SecretRef != nil:
			errs = append(errs, field.Invalid(path, "", "may not have more than one field specified at a time"))
		}
	}
	return errs
}

func sourceName(at *field.Path, name string) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	return rule.Messages(at, name, apivalidation.NameIsDNSSubdomain(name, true))
}

// envFields and volumeFields are the fields of the Pod that its containers can read, sorted.
var (
	envFields = []string{
		"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
		"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
	}
	volumeFields = []string{"metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"}
	// readable are fields that exist, of which envFields and volumeFields are the parts served in each place.
	readable = []string{
		"metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName",
		"spec.restartPolicy", "spec.serviceAccountName", "spec.schedulerName", "status.phase", "status.hostIP", "status.hostIPs",
		"status.podIP", "status.podIPs",
	}
)

// fieldRef checks a reference to a field of the Pod, one of fields or metadata.labels['key'] and metadata.annotations['key'].
func fieldRef(at *field.Path, ref *corev1.ObjectFieldSelector, fields []string) field.ErrorList {
	switch {
	case ref.APIVersion == "":
		return field.ErrorList{field.Required(at.Child("apiVersion"), "")}
	case ref.FieldPath == "":
		return field.ErrorList{field.Required(at.Child("fieldPath"), "")}
	case ref.APIVersion != "v1":
		return badFieldPath(at, ref, "unsupported pod version: "+ref.APIVersion)
	}
	if name, key, ok := subscript(ref.FieldPath); ok {
		switch name {
		case "metadata.labels":
			return rule.QualifiedName(at, key)
		case "metadata.annotations":
			return rule.QualifiedName(at, strings.ToLower(key))
		}
		return badFieldPath(at, ref, "field label does not support subscript: "+ref.FieldPath)
	}
	name := ref.FieldPath
	if name == "spec.host" { // an old name
		name = "spec.nodeName"
	}
	if !slices.Contains(readable, name) {
		return badFieldPath(at, ref, "field label not supported: "+ref.FieldPath)
	}
	if !slices.Contains(fields, name) {
		return field.ErrorList{field.NotSupported(at.Child("fieldPath"), name, fields)}
	}
	return nil
}

func badFieldPath(at *field.Path, ref *corev1.ObjectFieldSelector, why string) field.ErrorList {
	return field.ErrorList{field.Invalid(at.Child("fieldPath"), ref.FieldPath, "error converting fieldPath: "+why)}
}

// subscript splits "metadata.labels['key']" into its name and key.
func subscript(path string) (name, key string, ok bool) {
	rest, ok := strings.CutSuffix(path, "']")
	if !ok {
		return "", "", false
	}
	name, key, ok = strings.Cut(rest, "['")
	return name, key, ok && name != ""
}

// resources are the resource fields that containers can read, sorted; hugepages come beside them.
var resources = []string{
	"limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory",
}

// resourceFieldRef checks a reference to a container's resources; a volume must say which container's.
func resourceFieldRef(at *field.Path, ref *corev1.ResourceFieldSelector, volume bool) field.ErrorList {
	var errs field.ErrorList
	huge := strings.HasPrefix(ref.Resource, "requests.hugepages-") || strings.HasPrefix(ref.Resource, "limits.hugepages-")
	switch {
	case volume && ref.ContainerName == "":
		errs = append(errs, field.Required(at.Child("containerName"), ""))
	case ref.Resource == "":
		errs = append(errs, field.Required(at.Child("resource"), ""))
	case !huge && !slices.Contains(resources, ref.Resource):
		errs = append(errs, field.NotSupported(at.Child("resource"), ref.Resource, resources))
	}
	return append(errs, divisor(at.Child("divisor"), ref.Resource, ref.Divisor, huge)...)
}

// byteDivisors are the divisors of amounts in bytes.
var byteDivisors = []string{"1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"}

func divisor(at *field.Path, name string, q resource.Quantity, huge bool) field.ErrorList {
	if q.IsZero() {
		return nil
	}
	what := ""
	switch {
	case huge:
		what = "hugepages"
	case strings.HasSuffix(name, ".memory"):
		what = "memory"
	case strings.HasSuffix(name, ".ephemeral-storage"):
		what = "local ephemeral storage"
	case strings.HasSuffix(name, ".cpu"):
		if s := q.String(); s != "1m" && s != "1" {
			return field.ErrorList{field.Invalid(at, name, "only divisor's values 1m and 1 are supported with the cpu resource")}
		}
	}
	if what == "" || slices.Contains(byteDivisors, q.String()) {
		return nil
	}
	return field.ErrorList{field.Invalid(at, name,
		fmt.Sprintf("only divisor's values %s are supported with the %s resource", strings.Join(byteDivisors, ", "), what))}
}
