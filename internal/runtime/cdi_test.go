package runtime

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const cdiSpec = `
cdiVersion: 0.5.0
kind: example.com/device
containerEdits: {env: [VENDOR=example]}
devices:
- name: zero
  containerEdits:
    env: [ZERO=yes]
    deviceNodes: [{path: /dev/vendor-zero, hostPath: /dev/zero, permissions: rw}]
    mounts: [{hostPath: DIR, containerPath: /vendor, options: [ro, rbind]}]
`

func TestCDI(t *testing.T) {
	b := newBench(t)
	top := filepath.Dir(b.cfg.Root)
	b.Runtime.cfg.CDISpecDirs = []string{filepath.Join(top, "none"), filepath.Join(top, "cdi")}
	for _, d := range []string{"cdi", "vendor"} {
		if err := os.Mkdir(filepath.Join(top, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range map[string]string{"cdi/example.yaml": strings.ReplaceAll(cdiSpec, "DIR", filepath.Join(top, "vendor")), "vendor/f": "of the vendor\n", "cdi/broken.json": "{"} {
		if err := os.WriteFile(filepath.Join(top, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	pod := b.pod(b.podConfig("cdi"))
	c := containerConfig("a", "sh", "-c", "echo $VENDOR $ZERO; cat /vendor/f; head -c 3 /dev/vendor-zero | od -An -tx1; (echo >/vendor/g) 2>/dev/null || echo read-only")
	c.CDIDevices = []*runtimeapi.CDIDevice{{Name: "example.com/device=zero"}}
	want := "example yes\nof the vendor\n 00 00 00\nread-only\n"
	if got := b.output(pod, c); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for name, text := range map[string]string{"": "a device has no name", "example.com/device=one": "unresolvable CDI devices example.com/device=one", "nonsense": "nonsense"} {
		err := injectCDI(b.Runtime.cfg.CDISpecDirs, &specs.Spec{}, []*runtimeapi.CDIDevice{{Name: name}})
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
