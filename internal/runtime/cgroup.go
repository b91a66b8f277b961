package runtime

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/sys"
	"carob.dev/carob/internal/sys/systemd"
)

// checkParent checks a cgroup_parent: the path of a cgroup, or where systemd makes them the name of a slice, as kubelet gives them.
func checkParent(parent string, bySystemd bool) error {
	if parent == "" {
		return nil
	}
	if bySystemd {
		if _, err := sys.SlicePath(parent); err != nil {
			return fmt.Errorf("linux: cgroup_parent: %w, and the cgroup driver is systemd", err)
		}
		return nil
	}
	if !path.IsAbs(parent) || path.Clean(parent) != strings.TrimSuffix(parent, "/") {
		return fmt.Errorf("linux: cgroup_parent %q is no clean absolute path below the root, and the cgroup driver is cgroupfs", parent)
	}
	return nil
}

// podCgroup is the path of the cgroup that the Pod's containers have theirs in.
func (r *Runtime) podCgroup(pod *runtimeapi.PodSandboxConfig) string {
	parent, uid := pod.GetLinux().GetCgroupParent(), pod.GetMetadata().GetUid()
	if !r.cfg.Systemd {
		if parent == "" {
			parent = "/" + r.cfg.CgroupRoot + "/kubepods/pod" + uid
		}
		return path.Join("/", parent)
	}
	if parent == "" {
		parent = strings.ReplaceAll(r.cfg.CgroupRoot, "-", "_") + "-kubepods-pod" + strings.ReplaceAll(uid, "-", "_") + sys.SliceEnd
	}
	slice, err := sys.SlicePath(parent)
	if err != nil { // a uid that is no word
		return path.Join("/", strings.ReplaceAll(r.cfg.CgroupRoot, "-", "_")+sys.SliceEnd)
	}
	return slice
}

// crunGroup is the cgroup that crun makes within a scope on cgroup v2 and, as its annotation crunGroupKey asks, on v1: what is set there is not
// systemd's to change.
const (
	crunGroup    = "container"
	crunGroupKey = "run.oci.systemd.subgroup"
)

// containerCgroup is the path of a container's cgroup.
func (r *Runtime) containerCgroup(sb *sandbox, id string) string {
	pod := r.podCgroup(sb.rec.Config)
	if !r.cfg.Systemd {
		return path.Join(pod, id)
	}
	scope := path.Join(pod, sys.ContainerScope(id))
	if bin, _, err := r.binary(sb.rec.Handler); err == nil && filepath.Base(bin) == "crun" {
		return path.Join(scope, crunGroup)
	}
	return scope
}

// nameForSystemd has the specification name its cgroup as systemd would have it, <slice>:<prefix>:<name>, if that is in a scope.
func nameForSystemd(spec *specs.Spec) {
	scope, crun := strings.CutSuffix(spec.Linux.CgroupsPath, "/"+crunGroup)
	unit, ok := strings.CutSuffix(path.Base(scope), sys.ScopeEnd)
	prefix, name, dash := strings.Cut(unit, "-")
	if !ok || !dash {
		return
	}
	spec.Linux.CgroupsPath = path.Base(path.Dir(scope)) + ":" + prefix + ":" + name
	if crun {
		spec.Annotations[crunGroupKey] = crunGroup
	}
}

// ociArgs are the OCI runtime's global arguments for a container with this cgroup.
func ociArgs(cgroup string) []string {
	if strings.HasSuffix(path.Base(strings.TrimSuffix(cgroup, "/"+crunGroup)), sys.ScopeEnd) {
		return []string{"--systemd-cgroup"}
	}
	return nil
}

// limitCgroup changes the limits of a container's or a Pod's cgroup.
func limitCgroup(ctx context.Context, cgroup string, r sys.Resources) error {
	if strings.HasSuffix(cgroup, sys.ScopeEnd) || strings.HasSuffix(cgroup, sys.SliceEnd) {
		return systemd.Limit(ctx, cgroup, r)
	}
	return sys.CgroupUpdate(cgroup, r)
}
