package pod

import (
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// onlyForSidecars refuses what an init container that ends cannot have.
func onlyForSidecars(at *field.Path, c *corev1.Container) field.ErrorList {
	var errs field.ErrorList
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"lifecycle", c.Lifecycle != nil},
		{"livenessProbe", c.LivenessProbe != nil},
		{"readinessProbe", c.ReadinessProbe != nil},
		{"startupProbe", c.StartupProbe != nil},
	} {
		if f.set {
			errs = append(errs, field.Forbidden(at.Child(f.name), "may not be set for init containers without restartPolicy=Always"))
		}
	}
	return errs
}

// validateEphemeral checks ephemeral containers. Whatever would make others rely on them is refused.
func validateEphemeral(path *field.Path, s *corev1.PodSpec, volumes volumeSet, main, init map[string]bool) field.ErrorList {
	var errs field.ErrorList
	taken := map[string]bool{}
	for i := range s.EphemeralContainers {
		c, at := &s.EphemeralContainers[i], path.Index(i)
		errs = append(errs, validateContainer(at, (*corev1.Container)(&c.EphemeralContainerCommon), volumes, s.RestartPolicy)...)
		if main[c.Name] || init[c.Name] || taken[c.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
		}
		taken[c.Name] = true
		if t := c.TargetContainerName; t != "" && !main[t] && !init[t] {
			errs = append(errs, field.NotFound(at.Child("targetContainerName"), t))
		}
		errs = append(errs, notEphemeral(at, &c.EphemeralContainerCommon)...)
		for j, m := range c.VolumeMounts {
			mount := at.Child("volumeMounts").Index(j)
			if m.SubPath != "" {
				errs = append(errs, field.Forbidden(mount.Child("subPath"), "cannot be set for an Ephemeral Container"))
			}
			if m.SubPathExpr != "" {
				errs = append(errs, field.Forbidden(mount.Child("subPathExpr"), "cannot be set for an Ephemeral Container"))
			}
		}
	}
	return errs
}

// notEphemeral refuses the fields that ephemeral containers cannot have. It names those that they can, so that a field which is new
// in the API is refused until somebody thinks about it.
func notEphemeral(at *field.Path, c *corev1.EphemeralContainerCommon) field.ErrorList {
	var errs field.ErrorList
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		switch name {
		case "name", "image", "command", "args", "workingDir", "envFrom", "env", "volumeMounts", "volumeDevices", "terminationMessagePath",
			"terminationMessagePolicy", "imagePullPolicy", "securityContext", "stdin", "stdinOnce", "tty":
			continue
		}
		if !v.Field(i).IsZero() {
			errs = append(errs, field.Forbidden(at.Child(name), "cannot be set for an Ephemeral Container"))
		}
	}
	return errs
}
