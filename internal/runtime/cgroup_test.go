package runtime

import (
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestCgroupNames: who makes the cgroups decides what a cgroup_parent may be, where a container's cgroup is, and what the OCI runtime hears.
func TestCgroupNames(t *testing.T) {
	const slice, own = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice", "/carob_12.slice/carob_12-kubepods.slice/carob_12-kubepods-podu_1.slice"
	for _, c := range []struct {
		parent, handler      string
		systemd              bool
		path, oci, sub, args string
	}{
		{"/a/pod1", "crun", false, "/a/pod1/id", "/a/pod1/id", "", ""},
		{"", "runc", false, "/carob-12/kubepods/podu-1/id", "/carob-12/kubepods/podu-1/id", "", ""},
		{"kubepods-burstable-pod1.slice", "runc", true, slice + "/carob-id.scope", "kubepods-burstable-pod1.slice:carob:id", "", "--systemd-cgroup"},
		{"kubepods-burstable-pod1.slice", "crun", true, slice + "/carob-id.scope/container", "kubepods-burstable-pod1.slice:carob:id", "container", "--systemd-cgroup"},
		{"", "crun", true, own + "/carob-id.scope/container", "carob_12-kubepods-podu_1.slice:carob:id", "container", "--systemd-cgroup"},
	} {
		if err := checkParent(c.parent, c.systemd); err != nil {
			t.Errorf("%q: %v", c.parent, err)
		}
		if err := checkParent(c.parent, !c.systemd); err == nil && c.parent != "" {
			t.Errorf("%q is taken by the other driver", c.parent)
		}
		r := &Runtime{cfg: Config{CgroupRoot: "carob-12", Systemd: c.systemd}, binaries: map[string]string{"crun": "/usr/bin/crun", "runc": "/usr/sbin/runc"}}
		pod := &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Uid: "u-1"}, Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: c.parent}}
		path := r.containerCgroup(&sandbox{rec: sandboxRecord{Config: pod, Handler: c.handler}}, "id")
		spec := &specs.Spec{Linux: &specs.Linux{CgroupsPath: path}, Annotations: map[string]string{}}
		nameForSystemd(spec)
		if path != c.path || spec.Linux.CgroupsPath != c.oci || spec.Annotations[crunGroupKey] != c.sub || strings.Join(ociArgs(path), " ") != c.args {
			t.Errorf("%q: %s, %s, %v, %v", c.parent, path, spec.Linux.CgroupsPath, spec.Annotations, ociArgs(path))
		}
	}
}
