package volume

import (
	"fmt"
	"net"
	"path"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

// source checks the one source of a volume. Sources that no node of Carob mounts are checked too: they are objects like any other, which
// other drivers may take over. at is the path of the spec, name that of the volume.
func source(at *field.Path, s *corev1.PersistentVolumeSpec, name string) field.ErrorList {
	var errs field.ErrorList
	count := 0
	one := func(name string, set bool, check func(at *field.Path) field.ErrorList) {
		switch {
		case !set:
		case count > 0:
			errs = append(errs, field.Forbidden(at.Child(name), "may not specify more than 1 volume type"))
		default:
			count++
			errs = append(errs, check(at.Child(name))...)
		}
	}
	one("hostPath", s.HostPath != nil, func(at *field.Path) field.ErrorList { return hostPath(at, s.HostPath) })
	one("gcePersistentDisk", s.GCEPersistentDisk != nil, func(*field.Path) field.ErrorList {
		d := s.GCEPersistentDisk
		return disk(at.Child("persistentDisk"), "pdName", d.PDName, d.Partition) // reported so by Kubernetes
	})
	one("awsElasticBlockStore", s.AWSElasticBlockStore != nil, func(at *field.Path) field.ErrorList {
		return disk(at, "volumeID", s.AWSElasticBlockStore.VolumeID, s.AWSElasticBlockStore.Partition)
	})
	one("glusterfs", s.Glusterfs != nil, func(at *field.Path) field.ErrorList { return glusterfs(at, s.Glusterfs) })
	one("flocker", s.Flocker != nil, func(at *field.Path) field.ErrorList { return flocker(at, s.Flocker) })
	one("nfs", s.NFS != nil, func(at *field.Path) field.ErrorList {
		errs := append(required(at.Child("server"), s.NFS.Server), required(at.Child("path"), s.NFS.Path)...)
		if !path.IsAbs(s.NFS.Path) {
			errs = append(errs, field.Invalid(at.Child("path"), s.NFS.Path, "must be an absolute path"))
		}
		return errs
	})
	one("rbd", s.RBD != nil, func(at *field.Path) field.ErrorList {
		return append(some(at.Child("monitors"), s.RBD.CephMonitors), required(at.Child("image"), s.RBD.RBDImage)...)
	})
	one("quobyte", s.Quobyte != nil, func(at *field.Path) field.ErrorList { return quobyte(at, s.Quobyte) })
	one("cephFS", s.CephFS != nil, func(*field.Path) field.ErrorList {
		return some(at.Child("cephfs", "monitors"), s.CephFS.Monitors)
	})
	one("iscsi", s.ISCSI != nil, func(at *field.Path) field.ErrorList { return iscsi(at, s.ISCSI, name) })
	one("cinder", s.Cinder != nil, func(at *field.Path) field.ErrorList {
		return append(required(at.Child("volumeID"), s.Cinder.VolumeID), reference(at.Child("secretRef"), s.Cinder.SecretRef)...)
	})
	one("fc", s.FC != nil, func(at *field.Path) field.ErrorList { return fibreChannel(at, s.FC) })
	if s.FlexVolume != nil { // beside another source Kubernetes lets it pass
		count++
		errs = append(errs, flexVolume(at.Child("flexVolume"), s.FlexVolume)...)
	}
	one("azureFile", s.AzureFile != nil, func(at *field.Path) field.ErrorList {
		f := s.AzureFile
		errs := append(required(at.Child("secretName"), f.SecretName), required(at.Child("shareName"), f.ShareName)...)
		if f.SecretNamespace != nil {
			errs = append(errs, required(at.Child("secretNamespace"), *f.SecretNamespace)...)
		}
		return errs
	})
	one("vsphereVolume", s.VsphereVolume != nil, func(at *field.Path) field.ErrorList {
		return required(at.Child("volumePath"), s.VsphereVolume.VolumePath)
	})
	one("photonPersistentDisk", s.PhotonPersistentDisk != nil, func(at *field.Path) field.ErrorList {
		return required(at.Child("pdID"), s.PhotonPersistentDisk.PdID)
	})
	one("portworxVolume", s.PortworxVolume != nil, func(at *field.Path) field.ErrorList {
		return required(at.Child("volumeID"), s.PortworxVolume.VolumeID)
	})
	one("azureDisk", s.AzureDisk != nil, func(at *field.Path) field.ErrorList { return azureDisk(at, s.AzureDisk) })
	one("scaleIO", s.ScaleIO != nil, func(at *field.Path) field.ErrorList {
		return slices.Concat(required(at.Child("gateway"), s.ScaleIO.Gateway), required(at.Child("system"), s.ScaleIO.System),
			required(at.Child("volumeName"), s.ScaleIO.VolumeName))
	})
	one("local", s.Local != nil, func(local *field.Path) field.ErrorList {
		errs := required(local.Child("path"), s.Local.Path)
		if s.Local.Path != "" {
			errs = append(errs, noBacksteps(local.Child("path"), s.Local.Path)...)
		}
		if s.NodeAffinity == nil {
			errs = append(errs, field.Required(at.Child("nodeAffinity"), "Local volume requires node affinity"))
		}
		return errs
	})
	one("storageos", s.StorageOS != nil, func(at *field.Path) field.ErrorList { return storageOS(at, s.StorageOS) })
	one("csi", s.CSI != nil, func(at *field.Path) field.ErrorList { return csi(at, s.CSI) })
	if count == 0 {
		errs = append(errs, field.Required(at, "must specify a volume type"))
	}
	return errs
}

func some(at *field.Path, list []string) field.ErrorList {
	if len(list) == 0 {
		return field.ErrorList{field.Required(at, "")}
	}
	return nil
}

func noBacksteps(at *field.Path, p string) field.ErrorList {
	if slices.Contains(strings.Split(p, "/"), "..") {
		return field.ErrorList{field.Invalid(at, p, "must not contain '..'")}
	}
	return nil
}

func hostPath(at *field.Path, h *corev1.HostPathVolumeSource) field.ErrorList {
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

func disk(at *field.Path, idName, id string, partition int32) field.ErrorList {
	errs := required(at.Child(idName), id)
	if partition < 0 || partition > 255 {
		errs = append(errs, field.Invalid(at.Child("partition"), partition, validation.InclusiveRangeError(1, 255)))
	}
	return errs
}

func lun(at *field.Path, n int32) field.ErrorList {
	if n < 0 || n > 255 {
		return field.ErrorList{field.Invalid(at, n, validation.InclusiveRangeError(0, 255))}
	}
	return nil
}

func reference(at *field.Path, r *corev1.SecretReference) field.ErrorList {
	if r == nil {
		return nil
	}
	return append(required(at.Child("name"), r.Name), required(at.Child("namespace"), r.Namespace)...)
}

func glusterfs(at *field.Path, g *corev1.GlusterfsPersistentVolumeSource) field.ErrorList {
	errs := append(required(at.Child("endpoints"), g.EndpointsName), required(at.Child("path"), g.Path)...)
	switch ns := g.EndpointsNamespace; {
	case ns == nil:
	case *ns == "":
		errs = append(errs, field.Invalid(at.Child("endpointsNamespace"), *ns, "if the endpointnamespace is set, it must be a valid namespace name"))
	default:
		errs = append(errs, rule.Messages(at.Child("endpointsNamespace"), *ns, apivalidation.ValidateNamespaceName(*ns, false))...)
	}
	return errs
}

func flocker(at *field.Path, f *corev1.FlockerVolumeSource) field.ErrorList {
	var errs field.ErrorList
	switch name, id := f.DatasetName != "", f.DatasetUUID != ""; {
	case !name && !id:
		errs = append(errs, field.Required(at, "one of datasetName and datasetUUID is required"))
	case name && id:
		errs = append(errs, field.Invalid(at, "resource", "datasetName and datasetUUID can not be specified simultaneously"))
	}
	if strings.Contains(f.DatasetName, "/") {
		errs = append(errs, field.Invalid(at.Child("datasetName"), f.DatasetName, "must not contain '/'"))
	}
	return errs
}

func quobyte(at *field.Path, q *corev1.QuobyteVolumeSource) field.ErrorList {
	const pairs = "must be a host:port pair or multiple pairs separated by commas"
	var errs field.ErrorList
	switch {
	case q.Registry == "":
		errs = append(errs, field.Required(at.Child("registry"), pairs))
	case len(q.Tenant) >= 65:
		errs = append(errs, field.Required(at.Child("tenant"), "must be a UUID and may not exceed a length of 64 characters"))
	default:
		for pair := range strings.SplitSeq(q.Registry, ",") {
			if _, _, err := net.SplitHostPort(pair); err != nil {
				errs = append(errs, field.Invalid(at.Child("registry"), q.Registry, pairs))
			}
		}
	}
	return append(errs, required(at.Child("volume"), q.Volume)...)
}

func fibreChannel(at *field.Path, f *corev1.FCVolumeSource) field.ErrorList {
	var errs field.ErrorList
	names, ids := len(f.TargetWWNs) > 0, len(f.WWIDs) > 0
	switch {
	case !names && !ids:
		errs = append(errs, field.Required(at.Child("targetWWNs"), "must specify either targetWWNs or wwids, but not both"))
	case names && ids:
		errs = append(errs, field.Invalid(at.Child("targetWWNs"), f.TargetWWNs, "targetWWNs and wwids can not be specified simultaneously"))
	}
	switch {
	case !names:
	case f.Lun == nil:
		errs = append(errs, field.Required(at.Child("lun"), "lun is required if targetWWNs is specified"))
	default:
		errs = append(errs, lun(at.Child("lun"), *f.Lun)...)
	}
	return errs
}

func flexVolume(at *field.Path, f *corev1.FlexPersistentVolumeSource) field.ErrorList {
	errs := required(at.Child("driver"), f.Driver)
	for key := range f.Options {
		space, _, _ := strings.Cut(key, "/")
		space = "." + strings.ToLower(space)
		if strings.HasSuffix(space, ".kubernetes.io") || strings.HasSuffix(space, ".k8s.io") {
			errs = append(errs, field.Invalid(at.Child("options").Key(key), key, "kubernetes.io and k8s.io namespaces are reserved"))
		}
	}
	return errs
}

func azureDisk(at *field.Path, d *corev1.AzureDiskVolumeSource) field.ErrorList {
	errs := append(required(at.Child("diskName"), d.DiskName), required(at.Child("diskURI"), d.DataDiskURI)...)
	if d.CachingMode != nil {
		errs = append(errs, rule.Known(at.Child("cachingMode"), *d.CachingMode,
			corev1.AzureDataDiskCachingNone, corev1.AzureDataDiskCachingReadOnly, corev1.AzureDataDiskCachingReadWrite)...)
	}
	if d.Kind == nil {
		return errs
	}
	errs = append(errs, rule.Known(at.Child("kind"), *d.Kind, corev1.AzureDedicatedBlobDisk, corev1.AzureManagedDisk, corev1.AzureSharedBlobDisk)...)
	managed := *d.Kind == corev1.AzureManagedDisk
	if managed && !strings.HasPrefix(d.DataDiskURI, "/subscriptions/") {
		errs = append(errs, field.NotSupported(at.Child("diskURI"), d.DataDiskURI,
			[]string{"/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"}))
	}
	if !managed && !strings.HasPrefix(d.DataDiskURI, "https://") {
		errs = append(errs, field.NotSupported(at.Child("diskURI"), d.DataDiskURI,
			[]string{"https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"}))
	}
	return errs
}

func storageOS(at *field.Path, s *corev1.StorageOSPersistentVolumeSource) field.ErrorList {
	var errs field.ErrorList
	if s.VolumeName == "" {
		errs = append(errs, field.Required(at.Child("volumeName"), ""))
	} else {
		errs = append(errs, rule.DNSLabel(at.Child("volumeName"), s.VolumeName)...)
	}
	if s.VolumeNamespace != "" {
		errs = append(errs, rule.DNSLabel(at.Child("volumeNamespace"), s.VolumeNamespace)...)
	}
	if r := s.SecretRef; r != nil {
		errs = append(errs, required(at.Child("secretRef", "name"), r.Name)...)
		errs = append(errs, required(at.Child("secretRef", "namespace"), r.Namespace)...)
	}
	return errs
}

func csi(at *field.Path, c *corev1.CSIPersistentVolumeSource) field.ErrorList {
	errs := rule.DriverName(at.Child("driver"), c.Driver)
	errs = append(errs, required(at.Child("volumeHandle"), c.VolumeHandle)...)
	for _, s := range []struct {
		name string
		ref  *corev1.SecretReference
	}{
		{"controllerPublishSecretRef", c.ControllerPublishSecretRef}, {"controllerExpandSecretRef", c.ControllerExpandSecretRef},
		{"nodePublishSecretRef", c.NodePublishSecretRef}, {"nodeExpandSecretRef", c.NodeExpandSecretRef},
	} {
		if s.ref == nil {
			continue
		}
		errs = append(errs, reference(at.Child(s.name), s.ref)...)
		if s.ref.Name != "" {
			errs = append(errs, rule.Subdomain(at.Child(s.name, "name"), s.ref.Name)...)
		}
		if s.ref.Namespace != "" {
			errs = append(errs, rule.DNSLabel(at.Child(s.name, "namespace"), s.ref.Namespace)...)
		}
	}
	return errs
}

// qualifiedNames are the three forms of names of iSCSI targets and initiators, each with the pattern of the whole.
var qualifiedNames = map[string]*regexp.Regexp{
	"iqn": regexp.MustCompile(`iqn\.\d{4}-\d{2}\.([[:alnum:]-.]+)(:[^,;*&$|\s]+)$`),
	"eui": regexp.MustCompile(`^eui.[[:alnum:]]{16}$`),
	"naa": regexp.MustCompile(`^naa.[[:alnum:]]{32}$`),
}

// qualified checks the name of a target or an initiator; form is the message for one that is of none of the three forms.
func qualified(at *field.Path, name, form string) field.ErrorList {
	for prefix, pattern := range qualifiedNames {
		if strings.HasPrefix(name, prefix) {
			if pattern.MatchString(name) {
				return nil
			}
			return field.ErrorList{field.Invalid(at, name, "must be valid format")}
		}
	}
	return field.ErrorList{field.Invalid(at, name, form)}
}

func iscsi(at *field.Path, s *corev1.ISCSIPersistentVolumeSource, name string) field.ErrorList {
	errs := required(at.Child("targetPortal"), s.TargetPortal)
	if s.InitiatorName != nil && len(fmt.Sprintf("%s:%s", name, s.TargetPortal)) > 64 {
		errs = append(errs, field.Invalid(at.Child("targetportal"), s.TargetPortal,
			"Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified."))
	}
	if s.IQN == "" {
		errs = append(errs, field.Required(at.Child("iqn"), ""))
	} else {
		errs = append(errs, qualified(at.Child("iqn"), s.IQN, "must be valid format")...)
	}
	errs = append(errs, lun(at.Child("lun"), s.Lun)...)
	if (s.DiscoveryCHAPAuth || s.SessionCHAPAuth) && s.SecretRef == nil {
		errs = append(errs, field.Required(at.Child("secretRef"), ""))
	}
	if s.SecretRef != nil {
		errs = append(errs, required(at.Child("secretRef", "name"), s.SecretRef.Name)...)
	}
	if s.InitiatorName != nil {
		errs = append(errs, qualified(at.Child("initiatorname"), *s.InitiatorName, "must be valid format starting with iqn, eui, or naa")...)
	}
	return errs
}
