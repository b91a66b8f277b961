package runtime

import (
	"context"
	"fmt"
	"path"
	"strings"

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

func (r *Runtime) containerCgroup(sb *sandbox, id string) string {
	if pod := r.podCgroup(sb.rec.Config); r.cfg.Systemd {
		return path.Join(pod, sys.ContainerScope(id))
	} else {
		return path.Join(pod, id)
	}
}

// ociCgroup is a container's cgroup as the OCI runtime is told of it: for systemd <slice>:<prefix>:<name>.
func ociCgroup(cgroup string) string {
	scope, ok := strings.CutSuffix(path.Base(cgroup), sys.ScopeEnd)
	prefix, name, dash := strings.Cut(scope, "-")
	if !ok || !dash {
		return cgroup
	}
	return path.Base(path.Dir(cgroup)) + ":" + prefix + ":" + name
}

// ociArgs are the OCI runtime's global arguments for a container with this cgroup.
func ociArgs(cgroup string) []string {
	if strings.HasSuffix(cgroup, sys.ScopeEnd) {
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
