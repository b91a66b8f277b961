package sys

import "testing"

func TestSlicePath(t *testing.T) {
	for name, want := range map[string]string{
		"a.slice":                        "/a.slice",
		"kubepods-burstable-pod_1.slice": "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod_1.slice",
		"":                               "", ".slice": "", "-.slice": "", "a--b.slice": "", "-a.slice": "", "a-.slice": "", "a": "", "a/b.slice": "", "/a.slice": "", "a.scope": "",
	} {
		got, err := SlicePath(name)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", name, got, err, want)
		}
	}
}
