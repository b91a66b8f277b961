package pod

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
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
		{"two", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}, Image: &corev1.ImageVolumeSource{Reference: "x"}}, []string{
			"v.image: Forbidden: may not specify more than 1 volume type"}},
	} {
		if diff := cmp.Diff(tc.want, lines(validateVolumeSource(field.NewPath("v"), &tc.source))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}
