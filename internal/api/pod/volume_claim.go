package pod

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

func validateNFS(at *field.Path, n *corev1.NFSVolumeSource) field.ErrorList {
	errs := required(at.Child("server"), n.Server)
	errs = append(errs, required(at.Child("path"), n.Path)...)
	if !path.IsAbs(n.Path) {
		errs = append(errs, field.Invalid(at.Child("path"), n.Path, "must be an absolute path"))
	}
	return errs
}

// validateCSI reports a wrong name of a secret under the volume, as Kubernetes does.
func validateCSI(at *field.Path, c *corev1.CSIVolumeSource) field.ErrorList {
	errs := rule.DriverName(at.Child("driver"), c.Driver)
	switch ref := c.NodePublishSecretRef; {
	case ref == nil:
	case ref.Name == "":
		errs = append(errs, field.Required(at.Child("nodePublishSecretRef", "name"), ""))
	default:
		errs = append(errs, rule.Messages(at.Child("name"), ref.Name, apivalidation.NameIsDNSSubdomain(ref.Name, false))...)
	}
	return errs
}

// claimsOfPod checks what the claims that are made for a Pod's ephemeral volumes will be called. name is the Pod's.
func claimsOfPod(at *field.Path, name string, volumes []corev1.Volume) field.ErrorList {
	var errs field.ErrorList
	made := map[string]bool{}
	for i, v := range volumes {
		if v.Ephemeral == nil || v.Name == "" {
			continue
		}
		claim := name + "-" + v.Name
		made[claim] = true
		for _, msg := range apivalidation.NameIsDNSSubdomain(claim, false) {
			errs = append(errs, field.Invalid(at.Index(i).Child("name"), v.Name, "PVC name \""+claim+"\": "+msg))
		}
	}
	for i, v := range volumes {
		if c := v.PersistentVolumeClaim; c != nil && made[c.ClaimName] {
			errs = append(errs, field.Invalid(at.Index(i).Child("persistentVolumeClaim", "claimName"), c.ClaimName,
				"must not reference a PVC that gets created for an ephemeral volume"))
		}
	}
	return errs
}

// validateDevices checks the volumes that a container has as block devices.
func validateDevices(path *field.Path, c *corev1.Container, volumes volumeSet) field.ErrorList {
	var errs field.ErrorList
	names, paths := map[string]bool{}, map[string]bool{}
	for i, d := range c.VolumeDevices {
		at := path.Index(i)
		errs = append(errs, required(at.Child("name"), d.Name)...)
		if names[d.Name] {
			errs = append(errs, field.Invalid(at.Child("name"), d.Name, "must be unique"))
		}
		switch claim, ok := volumes[d.Name]; {
		case !ok:
			errs = append(errs, field.NotFound(at.Child("name"), d.Name))
		case !claim:
			errs = append(errs, field.Invalid(at.Child("name"), d.Name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"))
		}
		errs = append(errs, required(at.Child("devicePath"), d.DevicePath)...)
		if paths[d.DevicePath] {
			errs = append(errs, field.Invalid(at.Child("devicePath"), d.DevicePath, "must be unique"))
		}
		if slices.Contains(strings.Split(d.DevicePath, "/"), "..") {
			errs = append(errs, field.Invalid(at.Child("devicePath"), d.DevicePath, "can not contain backsteps ('..')"))
		} else {
			paths[d.DevicePath] = true
		}
		for _, m := range c.VolumeMounts {
			if m.Name == d.Name {
				errs = append(errs, field.Invalid(at.Child("name"), d.Name, "must not already exist in volumeMounts"))
			}
			if m.MountPath == d.DevicePath {
				errs = append(errs, field.Invalid(at.Child("devicePath"), d.DevicePath, "must not already exist as a path in volumeMounts"))
			}
		}
		names[d.Name] = d.Name != ""
	}
	return errs
}
