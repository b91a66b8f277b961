package criconf

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"carob.dev/carob/internal/sys"
)

func TestCgroups(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "a-b"}}
	for _, c := range []struct {
		names                       Cgroups
		all, level, pod, parent, in string
	}{
		{Cgroups{Root: "carob-1"}, "/carob-1/kubepods", "/carob-1/kubepods/besteffort", "/carob-1/kubepods/besteffort/poda-b",
			"/carob-1/kubepods/besteffort/poda-b", "/carob-1/kubepods/besteffort/poda-b/c"},
		{Cgroups{Root: "carob-1", Systemd: true}, "/carob_1.slice/carob_1-kubepods.slice",
			"/carob_1.slice/carob_1-kubepods.slice/carob_1-kubepods-besteffort.slice",
			"/carob_1.slice/carob_1-kubepods.slice/carob_1-kubepods-besteffort.slice/carob_1-kubepods-besteffort-poda_b.slice",
			"carob_1-kubepods-besteffort-poda_b.slice",
			"/carob_1.slice/carob_1-kubepods.slice/carob_1-kubepods-besteffort.slice/carob_1-kubepods-besteffort-poda_b.slice/carob-c.scope"},
	} {
		n := c.names
		got := [...]string{n.Level(corev1.PodQOSGuaranteed), n.Level(corev1.PodQOSBestEffort), n.Pod(pod), n.Parent(pod), n.Container(n.Pod(pod), "c")}
		if want := [...]string{c.all, c.level, c.pod, c.parent, c.in}; got != want {
			t.Errorf("%+v:\n%q\nwant\n%q", n, got, want)
		}
		if path, err := sys.SlicePath(n.Parent(pod)); n.Systemd && (err != nil || path != n.Pod(pod)) {
			t.Errorf("systemd has it at %s: %v", path, err)
		}
	}
}
