package rule

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func texts(errs field.ErrorList) []string {
	out := []string{}
	for _, e := range errs {
		out = append(out, e.Error())
	}
	return out
}

func TestResources(t *testing.T) {
	list := func(pairs ...string) corev1.ResourceList {
		out := corev1.ResourceList{}
		for i := 0; i < len(pairs); i += 2 {
			out[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
		}
		return out
	}
	for _, tc := range []struct {
		name string
		r    corev1.ResourceRequirements
		want []string
	}{
		{"usual", corev1.ResourceRequirements{Limits: list("cpu", "1", "memory", "1Gi"), Requests: list("cpu", "500m")}, []string{}},
		{"negative", corev1.ResourceRequirements{Limits: list("cpu", "-1")},
			[]string{`r.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0`}},
		{"unknown", corev1.ResourceRequirements{Limits: list("disk", "1")}, []string{
			`r.limits[disk]: Invalid value: "disk": must be a standard resource type or fully qualified`,
			`r.limits[disk]: Invalid value: "disk": must be a standard resource for containers`,
		}},
		{"not for containers", corev1.ResourceRequirements{Limits: list("pods", "1")},
			[]string{`r.limits[pods]: Invalid value: "pods": must be a standard resource for containers`}},
		{"half a device", corev1.ResourceRequirements{Limits: list("a.b/c", "500m")},
			[]string{`r.limits[a.b/c]: Invalid value: "500m": must be an integer`}},
		{"device without limit", corev1.ResourceRequirements{Requests: list("a.b/c", "1")},
			[]string{"r.limits: Required value: Limit must be set for non overcommitable resources"}},
		{"device with another limit", corev1.ResourceRequirements{Limits: list("a.b/c", "2"), Requests: list("a.b/c", "1")},
			[]string{`r.requests: Invalid value: "1": must be equal to a.b/c limit of 2`}},
		{"huge pages alone", corev1.ResourceRequirements{Limits: list("hugepages-2Mi", "4Mi")}, []string{"r: Forbidden: HugePages require cpu or memory"}},
	} {
		if diff := cmp.Diff(tc.want, texts(Resources(field.NewPath("r"), &tc.r))); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", tc.name, diff)
		}
	}
}

func TestFinalizers(t *testing.T) {
	meta := &metav1.ObjectMeta{Name: "x", Finalizers: []string{"foregroundDeletion", "a.b/c", "mine"}}
	want := []string{`metadata.finalizers[2]: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified`}
	name := func(string, bool) []string { return nil }
	if diff := cmp.Diff(want, texts(Meta(meta, false, name))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEndpointIP(t *testing.T) {
	at := field.NewPath("ip")
	for ip, want := range map[string]string{
		"10.0.0.1":    "",
		"fd00::1":     "",
		"0.0.0.0":     `ip: Invalid value: "0.0.0.0": may not be unspecified (0.0.0.0)`,
		"::1":         `ip: Invalid value: "::1": may not be in the loopback range (127.0.0.0/8, ::1/128)`,
		"169.254.1.1": `ip: Invalid value: "169.254.1.1": may not be in the link-local range (169.254.0.0/16, fe80::/10)`,
		"224.0.0.1":   `ip: Invalid value: "224.0.0.1": may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)`,
		"x":           `ip: Invalid value: "x": must be a valid IP address`,
	} {
		got := ""
		if errs := EndpointIP(at, ip); len(errs) > 0 {
			got = errs[0].Error()
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", ip, got, want)
		}
	}
}
