package pod

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
	"carob.dev/carob/internal/api/volume"
)

// volumeSet are volumes that containers may use, by name; true for those of a claim, which may be block devices.
type volumeSet map[string]bool

// validateVolumes also returns the volumes that are right.
func validateVolumes(path *field.Path, volumes []corev1.Volume) (names volumeSet, errs field.ErrorList) {
	names = volumeSet{}
	for i := range volumes {
		v, at := &volumes[i], path.Index(i)
		wrong := validateVolumeSource(at, &v.VolumeSource)
		if v.Name == "" {
			wrong = append(wrong, field.Required(at.Child("name"), ""))
		} else {
			wrong = append(wrong, rule.DNSLabel(at.Child("name"), v.Name)...)
		}
		if _, taken := names[v.Name]; taken {
			wrong = append(wrong, field.Duplicate(at.Child("name"), v.Name))
		}
		if len(wrong) == 0 {
			names[v.Name] = v.PersistentVolumeClaim != nil || v.Ephemeral != nil
		}
		errs = append(errs, wrong...)
	}
	return names, errs
}

// validateVolumeSource checks the one source of a volume. Sources that Carob does not serve are left to unsupportedVolume.
func validateVolumeSource(at *field.Path, v *corev1.VolumeSource) field.ErrorList {
	var errs field.ErrorList
	seen := false
	source := func(name string, set bool, check func(at *field.Path) field.ErrorList) {
		switch {
		case !set:
		case seen:
			errs = append(errs, field.Forbidden(at.Child(name), "may not specify more than 1 volume type"))
		default:
			seen = true
			errs = append(errs, check(at.Child(name))...)
		}
	}
	source("emptyDir", v.EmptyDir != nil, func(at *field.Path) field.ErrorList { return validateEmptyDir(at, v.EmptyDir) })
	source("hostPath", v.HostPath != nil, func(at *field.Path) field.ErrorList { return validateHostPath(at, v.HostPath) })
	source("secret", v.Secret != nil, func(at *field.Path) field.ErrorList {
		s := v.Secret
		return slices.Concat(required(at.Child("secretName"), s.SecretName), mode(at.Child("defaultMode"), s.DefaultMode),
			user(at.Child("defaultUser"), s.DefaultUser), keys(at.Child("items"), s.Items))
	})
	source("downwardAPI", v.DownwardAPI != nil, func(at *field.Path) field.ErrorList {
		d := v.DownwardAPI
		errs := append(mode(at.Child("defaultMode"), d.DefaultMode), user(at.Child("defaultUser"), d.DefaultUser)...)
		for i := range d.Items {
			errs = append(errs, validateDownwardFile(at, &d.Items[i])...)
		}
		return errs
	})
	source("configMap", v.ConfigMap != nil, func(at *field.Path) field.ErrorList {
		c := v.ConfigMap
		return slices.Concat(required(at.Child("name"), c.Name), mode(at.Child("defaultMode"), c.DefaultMode),
			user(at.Child("defaultUser"), c.DefaultUser), keys(at.Child("items"), c.Items))
	})
	source("projected", v.Projected != nil, func(at *field.Path) field.ErrorList { return validateProjected(at, v.Projected) })
	source("nfs", v.NFS != nil, func(at *field.Path) field.ErrorList { return validateNFS(at, v.NFS) })
	source("persistentVolumeClaim", v.PersistentVolumeClaim != nil, func(at *field.Path) field.ErrorList {
		return required(at.Child("claimName"), v.PersistentVolumeClaim.ClaimName)
	})
	source("csi", v.CSI != nil, func(at *field.Path) field.ErrorList { return validateCSI(at, v.CSI) })
	source("ephemeral", v.Ephemeral != nil, func(at *field.Path) field.ErrorList {
		if v.Ephemeral.VolumeClaimTemplate == nil {
			return field.ErrorList{field.Required(at.Child("volumeClaimTemplate"), "")}
		}
		return volume.ClaimTemplate(at.Child("volumeClaimTemplate"), v.Ephemeral.VolumeClaimTemplate)
	})
	source("image", v.Image != nil, func(at *field.Path) field.ErrorList {
		return append(required(at.Child("reference"), v.Image.Reference), pullPolicy(at.Child("pullPolicy"), v.Image.PullPolicy)...)
	})
	for _, name := range otherVolumes(v) {
		source(name, true, func(*field.Path) field.ErrorList { return nil })
	}
	if !seen {
		errs = append(errs, field.Required(at, "must specify a volume type"))
	}
	return errs
}

func validateEmptyDir(at *field.Path, e *corev1.EmptyDirVolumeSource) field.ErrorList {
	var errs field.ErrorList
	if e.SizeLimit != nil && e.SizeLimit.Sign() < 0 {
		errs = append(errs, field.Forbidden(at.Child("sizeLimit"), "SizeLimit field must be a valid resource quantity"))
	}
	if m := e.Mode; m != nil && (*m < 0 || *m > 0o1777) {
		errs = append(errs, field.Invalid(at.Child("mode"), *m, "must be a number between 0 and 01777 (octal), both inclusive"))
	}
	return errs
}

func validateHostPath(at *field.Path, h *corev1.HostPathVolumeSource) field.ErrorList {
	if h.Path == "" {
		return field.ErrorList{field.Required(at.Child("path"), "")}
	}
	errs := noBacksteps(at.Child("path"), h.Path)
	if h.Type != nil {
		errs = append(errs, rule.Known(at.Child("type"), *h.Type, corev1.HostPathUnset, corev1.HostPathBlockDev, corev1.HostPathCharDev,
			corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate, corev1.HostPathFile, corev1.HostPathFileOrCreate, corev1.HostPathSocket)...)
	}
	return errs
}

func pullPolicy(at *field.Path, p corev1.PullPolicy) field.ErrorList {
	return rule.OneOf(at, p, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
}

func required(at *field.Path, value string) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	return nil
}

func mode(at *field.Path, m *int32) field.ErrorList {
	if m != nil && (*m < 0 || *m > 0o777) {
		return field.ErrorList{field.Invalid(at, *m, "must be a number between 0 and 0777 (octal), both inclusive")}
	}
	return nil
}

func user(at *field.Path, uid *int64) field.ErrorList {
	if uid == nil {
		return nil
	}
	return rule.Messages(at, *uid, validation.IsValidUserID(*uid))
}

func keys(at *field.Path, items []corev1.KeyToPath) field.ErrorList {
	var errs field.ErrorList
	for i, k := range items {
		at := at.Index(i)
		errs = append(errs, required(at.Child("key"), k.Key)...)
		errs = append(errs, required(at.Child("path"), k.Path)...)
		errs = append(errs, filePath(at.Child("path"), k.Path)...)
		errs = append(errs, mode(at.Child("mode"), k.Mode)...)
		errs = append(errs, user(at.Child("user"), k.User)...)
	}
	return errs
}

// validateDownwardFile checks one file of a downward API volume; at is the volume's or the source's path, as Kubernetes reports it.
func validateDownwardFile(at *field.Path, f *corev1.DownwardAPIVolumeFile) field.ErrorList {
	errs := required(at.Child("path"), f.Path)
	errs = append(errs, filePath(at.Child("path"), f.Path)...)
	switch {
	case f.FieldRef != nil:
		errs = append(errs, fieldRef(at.Child("fieldRef"), f.FieldRef, volumeFields)...)
		if f.ResourceFieldRef != nil {
			errs = append(errs, field.Invalid(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"))
		}
	case f.ResourceFieldRef != nil:
		errs = append(errs, resourceFieldRef(at.Child("resourceFieldRef"), f.ResourceFieldRef, true)...)
	default:
		errs = append(errs, field.Required(at, "one of fieldRef and resourceFieldRef is required"))
	}
	errs = append(errs, mode(at.Child("mode"), f.Mode)...)
	return append(errs, user(at.Child("user"), f.User)...)
}

func validateProjected(at *field.Path, p *corev1.ProjectedVolumeSource) field.ErrorList {
	errs := append(mode(at.Child("defaultMode"), p.DefaultMode), user(at.Child("defaultUser"), p.DefaultUser)...)
	paths := map[string]bool{}
	unique := func(file, name string) {
		if file != "" && paths[file] {
			errs = append(errs, field.Invalid(at, name, "conflicting duplicate paths"))
		}
		paths[file] = true
	}
	for i, s := range p.Sources {
		from := at.Child("sources").Index(i)
		count := 0
		if s.Secret != nil {
			count++
			errs = append(errs, required(from.Child("secret", "name"), s.Secret.Name)...)
			errs = append(errs, keys(from.Child("secret", "items"), s.Secret.Items)...)
			for _, k := range s.Secret.Items {
				unique(k.Path, s.Secret.Name)
			}
		}
		if s.ConfigMap != nil {
			count++
			errs = append(errs, required(from.Child("configMap", "name"), s.ConfigMap.Name)...)
			errs = append(errs, keys(from.Child("configMap", "items"), s.ConfigMap.Items)...)
			for _, k := range s.ConfigMap.Items {
				unique(k.Path, s.ConfigMap.Name)
			}
		}
		if s.DownwardAPI != nil {
			count++
			for j := range s.DownwardAPI.Items {
				f := &s.DownwardAPI.Items[j]
				errs = append(errs, validateDownwardFile(from.Child("downwardAPI"), f)...)
				unique(f.Path, f.Path)
			}
		}
		if s.ServiceAccountToken != nil {
			count++
			errs = append(errs, validateToken(at, from.Child("serviceAccountToken"), s.ServiceAccountToken)...)
		}
		if c := s.ClusterTrustBundle; c != nil {
			count++
			errs = append(errs, validateTrust(from.Child("clusterTrustBundle"), c)...)
			unique(c.Path, c.Path)
		}
		if c := s.PodCertificate; c != nil {
			count++
			errs = append(errs, validateCertificate(from.Child("podCertificate"), c)...)
			for _, file := range []string{c.CredentialBundlePath, c.KeyPath, c.CertificateChainPath} {
				unique(file, file)
			}
		}
		if count > 1 {
			errs = append(errs, field.Forbidden(from, "may not specify more than 1 volume type per source"))
		}
	}
	return errs
}

// validateToken checks a token source. Kubernetes reports its file path under the volume, at, not under the source.
func validateToken(at, from *field.Path, t *corev1.ServiceAccountTokenProjection) field.ErrorList {
	var errs field.ErrorList
	switch exp := t.ExpirationSeconds; {
	case exp == nil:
		errs = append(errs, field.Required(from.Child("expirationSeconds"), ""))
	case *exp < 10*60:
		errs = append(errs, field.Invalid(from.Child("expirationSeconds"), *exp, "may not specify a duration less than 10 minutes"))
	case *exp > 1<<32:
		errs = append(errs, field.Invalid(from.Child("expirationSeconds"), *exp, "may not specify a duration larger than 2^32 seconds"))
	}
	errs = append(errs, required(at.Child("path"), t.Path)...)
	errs = append(errs, filePath(at.Child("path"), t.Path)...)
	return append(errs, user(from.Child("user"), t.User)...)
}

// filePath wants a relative path that stays inside its volume and does not take the names of the volume's own bookkeeping.
func filePath(at *field.Path, p string) field.ErrorList {
	errs := descending(at, p)
	if strings.HasPrefix(p, "..") && !strings.HasPrefix(p, "../") {
		errs = append(errs, field.Invalid(at, p, "must not start with '..'"))
	}
	return errs
}

// descending wants a relative path without "..".
func descending(at *field.Path, p string) field.ErrorList {
	if path.IsAbs(p) {
		return append(field.ErrorList{field.Invalid(at, p, "must be a relative path")}, noBacksteps(at, p)...)
	}
	return noBacksteps(at, p)
}

func noBacksteps(at *field.Path, p string) field.ErrorList {
	if slices.Contains(strings.Split(p, "/"), "..") {
		return field.ErrorList{field.Invalid(at, p, "must not contain '..'")}
	}
	return nil
}
