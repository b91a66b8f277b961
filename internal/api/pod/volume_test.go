package pod

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

func TestValidateVolumeSource(t *testing.T) {
	for _, tc := range []struct {
		name   string
		source corev1.VolumeSource
		want   []string
	}{
		{"image", corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "x:1", PullPolicy: corev1.PullAlways}}, []string{}},
		{"image without a reference", corev1.VolumeSource{Image: &corev1.ImageVolumeSource{PullPolicy: "Sometimes"}}, []string{
			"v.image.pullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"", "v.image.reference: Required value"}},
		{"nfs", corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{Path: "x"}}, []string{
			"v.nfs.path: Invalid value: \"x\": must be an absolute path", "v.nfs.server: Required value"}},
		{"claim", corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{}}, []string{"v.persistentVolumeClaim.claimName: Required value"}},
		{"driver", corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "-", NodePublishSecretRef: &corev1.LocalObjectReference{}}}, []string{
			"v.csi.driver: Invalid value: \"-\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an " +
				"alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
			"v.csi.nodePublishSecretRef.name: Required value"}},
		{"no template", corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}, []string{"v.ephemeral.volumeClaimTemplate: Required value"}},
		{"empty template", corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{}}}, []string{
			"v.ephemeral.volumeClaimTemplate.spec.accessModes: Required value: at least 1 access mode is required",
			"v.ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value"}},
		{"trust and certificate", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{Name: ptr.To("example.com:mine:x"), Path: "a"}},
			{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{SignerName: ptr.To("example.com/mine"), Path: "b", Optional: ptr.To(true)}},
			{PodCertificate: &corev1.PodCertificateProjection{SignerName: "example.com/mine", KeyType: "ED25519", KeyPath: "c", CertificateChainPath: "d"}},
		}}}, []string{}},
		{"trust of nobody", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{Path: "../x"}},
			{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{Name: ptr.To("a"), LabelSelector: &metav1.LabelSelector{}, Path: "p"}},
		}}}, []string{
			`v.projected.sources[0].clusterTrustBundle.path: Invalid value: "../x": must not contain '..'`,
			`v.projected.sources[0].clusterTrustBundle: Required value: either name or signerName must be specified`,
			`v.projected.sources[1].clusterTrustBundle.labelSelector: Invalid value: {}: labelSelector must be unset if name is specified`}},
		{"certificate of nothing", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{PodCertificate: &corev1.PodCertificateProjection{SignerName: "kubernetes.io/mine", KeyType: "DSA", MaxExpirationSeconds: ptr.To[int32](100000)}},
			{PodCertificate: &corev1.PodCertificateProjection{SignerName: "x.io/mine", KeyType: "RSA3072", MaxExpirationSeconds: ptr.To[int32](10), KeyPath: "k", CertificateChainPath: "k"}},
		}}}, []string{
			`v.projected.sources[0].podCertificate.keyType: Unsupported value: "DSA": supported values: "RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"`,
			`v.projected.sources[0].podCertificate.maxExpirationSeconds: Invalid value: 100000: if provided, maxExpirationSeconds must be <= 86400`,
			`v.projected.sources[0].podCertificate: Required value: specify at least one of credentialBundlePath, keyPath, and certificateChainPath`,
			`v.projected.sources[1].podCertificate.maxExpirationSeconds: Invalid value: 10: if provided, maxExpirationSeconds must be >= 3600`,
			`v.projected: Invalid value: "k": conflicting duplicate paths`}},
		{"two", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}, Image: &corev1.ImageVolumeSource{Reference: "x"}}, []string{
			"v.image: Forbidden: may not specify more than 1 volume type"}},
	} {
		if diff := cmp.Diff(tc.want, lines(validateVolumeSource(field.NewPath("v"), &tc.source))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

func TestClaimsOfPod(t *testing.T) {
	ephemeral := corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}
	got := lines(claimsOfPod(field.NewPath("volumes"), "p", []corev1.Volume{{Name: "a", VolumeSource: ephemeral}, {Name: "b_", VolumeSource: ephemeral},
		{Name: "c", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "p-a"}}}}))
	want := []string{
		"volumes[1].name: Invalid value: \"b_\": PVC name \"p-b_\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must " +
			"start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
		"volumes[2].persistentVolumeClaim.claimName: Invalid value: \"p-a\": must not reference a PVC that gets created for an ephemeral volume"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestValidateDevices(t *testing.T) {
	volumes := volumeSet{"claim": true, "empty": false}
	for _, tc := range []struct {
		name      string
		container corev1.Container
		want      []string
	}{
		{"as it is", corev1.Container{VolumeDevices: []corev1.VolumeDevice{{Name: "claim", DevicePath: "/dev/x"}}}, []string{}},
		{"nothing", corev1.Container{VolumeDevices: []corev1.VolumeDevice{{}}}, []string{
			`d[0].devicePath: Required value`, `d[0].name: Not found: ""`, `d[0].name: Required value`}},
		{"no claim", corev1.Container{VolumeDevices: []corev1.VolumeDevice{{Name: "empty", DevicePath: "/dev/../x"}}}, []string{
			`d[0].devicePath: Invalid value: "/dev/../x": can not contain backsteps ('..')`,
			`d[0].name: Invalid value: "empty": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode`}},
		{"twice", corev1.Container{VolumeDevices: []corev1.VolumeDevice{{Name: "claim", DevicePath: "/dev/x"}, {Name: "claim", DevicePath: "/dev/x"}}}, []string{
			`d[1].devicePath: Invalid value: "/dev/x": must be unique`, `d[1].name: Invalid value: "claim": must be unique`}},
		{"mounted too", corev1.Container{VolumeMounts: []corev1.VolumeMount{{Name: "claim", MountPath: "/dev/x"}}, VolumeDevices: []corev1.VolumeDevice{{Name: "claim", DevicePath: "/dev/x"}}},
			[]string{`d[0].devicePath: Invalid value: "/dev/x": must not already exist as a path in volumeMounts`, `d[0].name: Invalid value: "claim": must not already exist in volumeMounts`}},
	} {
		if diff := cmp.Diff(tc.want, lines(validateDevices(field.NewPath("d"), &tc.container, volumes))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}
