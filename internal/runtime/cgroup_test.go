package runtime

import (
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestCgroupNames: who makes the cgroups decides what a cgroup_parent may be, where a container's cgroup is, and what the OCI runtime hears.
func TestCgroupNames(t *testing.T) {
	for _, c := range []struct {
		parent, path, oci, args string
		systemd                 bool
	}{
		{"/a/pod1", "/a/pod1/id", "/a/pod1/id", "", false},
		{"", "/carob-12/kubepods/podu-1/id", "/carob-12/kubepods/podu-1/id", "", false},
		{"kubepods-burstable-pod1.slice", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/carob-id.scope",
			"kubepods-burstable-pod1.slice:carob:id", "--systemd-cgroup", true},
		{"", "/carob_12.slice/carob_12-kubepods.slice/carob_12-kubepods-podu_1.slice/carob-id.scope",
			"carob_12-kubepods-podu_1.slice:carob:id", "--systemd-cgroup", true},
	} {
		if err := checkParent(c.parent, c.systemd); err != nil {
			t.Errorf("%q: %v", c.parent, err)
		}
		if err := checkParent(c.parent, !c.systemd); err == nil && c.parent != "" {
			t.Errorf("%q is taken by the other driver", c.parent)
		}
		r := &Runtime{cfg: Config{CgroupRoot: "carob-12", Systemd: c.systemd}}
		pod := &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Uid: "u-1"}, Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: c.parent}}
		path := r.containerCgroup(&sandbox{rec: sandboxRecord{Config: pod}}, "id")
		if path != c.path || ociCgroup(path) != c.oci || strings.Join(ociArgs(path), " ") != c.args {
			t.Errorf("%q: %s, %s, %v", c.parent, path, ociCgroup(path), ociArgs(path))
		}
	}
}
