package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/failpoint"
	"carob.dev/carob/internal/runtime/image"
	"carob.dev/carob/internal/runtime/oci"
	"carob.dev/carob/internal/sys"
)

// CreateContainer mounts the container's root and decides its specification. Nothing runs yet: the OCI runtime is called by
// StartContainer, where its complaints belong. On an error nothing is left.
func (r *Runtime) CreateContainer(ctx context.Context, sandboxID string, config *runtimeapi.ContainerConfig, sandboxConfig *runtimeapi.PodSandboxConfig) (string, error) {
	defer r.warm.starting()()
	sb, err := r.findSandbox(sandboxID)
	if err != nil {
		return "", err
	}
	if err := checkContainer(config); err != nil {
		return "", status.Errorf(codes.InvalidArgument, "container config: %v", err)
	}
	name := config.GetMetadata().GetName()
	r.mu.Lock()
	ready, pause := sb.rec.Ready && !sb.stopping, sb.rec.PausePID
	r.mu.Unlock()
	if !ready {
		return "", status.Errorf(codes.FailedPrecondition, "sandbox %q is not ready", sandboxID)
	}
	if !sameUsers(sb.rec.Config.GetLinux().GetSecurityContext().GetNamespaceOptions(), config.GetLinux().GetSecurityContext().GetNamespaceOptions()) {
		return "", status.Errorf(codes.InvalidArgument, "container config: userns_options are not those of the sandbox")
	}
	r.anticipateMove(sb.rec.ID, pause)
	img, err := r.cfg.Images.Resolve(ctx, config.GetImage().GetImage())
	if err != nil {
		return "", fmt.Errorf("create container %s: %w", name, err)
	}
	id := newID()
	claim := containerName(sb.rec.ID, config)
	if err := r.reserve(claim, id); err != nil {
		return "", err
	}
	c := &container{turn: newTurn(), name: claim, sb: sb, exited: make(chan struct{}), rec: containerRecord{Version: recordVersion, ID: id, SandboxID: sb.rec.ID,
		CreatedAt: r.cfg.Clock.Now().UnixNano(), ImageID: img.ID, ImageRef: imageRef(img), Config: config, StopSignal: img.Config.StopSignal,
		Cgroup: r.containerCgroup(sb, id), LogPath: logPath(sb.rec.Config, config), Resources: config.GetLinux().GetResources()}}
	if err := r.makeContainer(ctx, c, img); err != nil {
		undo := r.destroyContainer(context.WithoutCancel(ctx), c)
		r.release(claim)
		return "", fmt.Errorf("create container %s: %w", name, errors.Join(err, undo))
	}
	r.tell(runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT, id, sb)
	return id, nil
}

func imageRef(img *image.Image) string {
	if len(img.RepoDigests) > 0 {
		return img.RepoDigests[0]
	}
	return img.ID
}

// logPath joins the Pod's log folder and the container's file; the latter may not climb out.
func logPath(p *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) string {
	if p.GetLogDirectory() == "" || c.GetLogPath() == "" {
		return ""
	}
	return filepath.Join(p.GetLogDirectory(), path.Clean("/"+c.GetLogPath()))
}

func (r *Runtime) makeContainer(ctx context.Context, c *container, img *image.Image) error {
	dir := r.cfg.containerDir(c.rec.ID)
	for _, d := range []string{dir, filepath.Join(dir, "upper"), filepath.Join(dir, "work"), filepath.Join(dir, "rootfs")} {
		if err := os.Mkdir(d, 0o711); err != nil {
			return err
		}
		failpoint.Hit("runtime/container/folder")
	}
	if err := os.Chmod(filepath.Join(dir, "upper"), 0o755); err != nil {
		return err
	}
	if err := r.saveContainer(c.rec); err != nil {
		return err
	}
	failpoint.Hit("runtime/container/recorded")
	rootfs := filepath.Join(dir, "rootfs")
	if err := r.mountRoot(c, img, rootfs); err != nil {
		return err
	}
	failpoint.Hit("runtime/container/mounted")
	if err := makeMountSources(c.rec.Config); err != nil {
		return err
	}
	in, err := r.input(ctx, c, img, rootfs)
	if err != nil {
		return err
	}
	spec, err := oci.Build(in)
	if err != nil {
		if errors.Is(err, oci.ErrNoCommand) {
			return err
		}
		return status.Error(codes.InvalidArgument, err.Error())
	}
	nameForSystemd(spec)
	if err := injectCDI(r.cfg.CDISpecDirs, spec, c.rec.Config.GetCDIDevices()); err != nil {
		return err
	}
	c.rec.User = in.User
	if bin, _, err := r.binary(c.sb.rec.Handler); err == nil && filepath.Base(bin) == "crun" {
		c.seccomp = r.seccomp.offer(spec)
	}
	if err := r.writeBundle(c.rec.ID, spec); err != nil {
		return err
	}
	failpoint.Hit("runtime/container/bundled")
	if c.rec.LogPath != "" {
		if err := os.MkdirAll(filepath.Dir(c.rec.LogPath), 0o755); err != nil {
			return err
		}
	}
	c.rec.Made = true
	if err := r.saveContainer(c.rec); err != nil {
		return err
	}
	failpoint.Hit("runtime/container/made")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.enlist(c)
	return nil
}

func (r *Runtime) writeBundle(id string, spec *specs.Spec) error {
	raw, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(r.cfg.bundleDir(id), 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.cfg.bundleDir(id), "config.json"), raw, 0o600)
}

// makeMountSources makes the folders of untyped host paths that are missing, as container runtimes always have.
func makeMountSources(c *runtimeapi.ContainerConfig) error {
	for _, m := range c.GetMounts() {
		if m.GetImage().GetImage() != "" {
			continue
		}
		if _, err := os.Stat(m.GetHostPath()); errors.Is(err, os.ErrNotExist) {
			if err := os.MkdirAll(m.GetHostPath(), 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

// input gathers what decides the specification.
func (r *Runtime) input(ctx context.Context, c *container, img *image.Image, rootfs string) (oci.Input, error) {
	sb, dir := c.sb.rec, r.cfg.sandboxDir(c.sb.rec.ID)
	config, err := r.mountImages(ctx, c, c.rec.Config)
	if err != nil {
		return oci.Input{}, err
	}
	in := oci.Input{ID: c.rec.ID, Container: config, Sandbox: sb.Config, Image: img.Config, Rootfs: rootfs, PausePID: sb.PausePID,
		CgroupPath: c.rec.Cgroup, Node: r.node, Hostname: filepath.Join(dir, "hostname"), Hosts: filepath.Join(dir, "hosts"), Devices: hostDevices,
		Shm: "/dev/shm"}
	if st, err := os.Stat(filepath.Join(dir, "resolv.conf")); err == nil && st.Size() > 0 {
		in.Resolv = filepath.Join(dir, "resolv.conf")
	}
	sc := c.rec.Config.GetLinux().GetSecurityContext()
	if ownIPC(sb.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()) && ownIPC(sc.GetNamespaceOptions()) {
		in.Shm = r.cfg.shmCopy(c.rec.ID)
		if err := os.MkdirAll(in.Shm, 0o700); err != nil {
			return in, err
		}
		if err := sys.CopyRootMount(sb.PausePID, in.Shm); err != nil {
			return in, err
		}
	}
	if sc.GetNamespaceOptions().GetPid() == runtimeapi.NamespaceMode_TARGET {
		target, err := r.findContainer(sc.GetNamespaceOptions().GetTargetId())
		if err != nil {
			return in, err
		}
		r.mu.Lock()
		in.TargetPID = target.rec.PID
		r.mu.Unlock()
		if in.TargetPID == 0 {
			return in, status.Errorf(codes.FailedPrecondition, "target container %q is not running", sc.GetNamespaceOptions().GetTargetId())
		}
	}
	if in.User, err = resolveUser(sc, img.Config.User, rootfs); err != nil {
		return in, status.Error(codes.InvalidArgument, err.Error())
	}
	p, err := oci.Seccomp(sc)
	if err != nil {
		return in, status.Error(codes.InvalidArgument, err.Error())
	}
	if p.GetProfileType() == runtimeapi.SecurityProfile_Localhost && !sc.GetPrivileged() {
		if in.Seccomp, err = r.localSeccomp(p.GetLocalhostRef()); err != nil {
			return in, err
		}
	}
	return in, r.reach(c, &in)
}

func resolveUser(sc *runtimeapi.LinuxContainerSecurityContext, imageUser, rootfs string) (oci.User, error) {
	files := [2]io.Reader{}
	for i, name := range []string{"etc/passwd", "etc/group"} {
		f, err := sys.OpenInRoot(rootfs, name, unix.O_RDONLY|unix.O_NONBLOCK)
		if err != nil {
			continue // an image without it has no names
		}
		defer f.Close()
		if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
			files[i] = f
		}
	}
	return oci.ResolveUser(sc, imageUser, files[0], files[1])
}

// localSeccomp reads a profile in the OCI's own form below the profile folder, or by absolute path.
func (r *Runtime) localSeccomp(ref string) (*specs.LinuxSeccomp, error) {
	file := strings.TrimPrefix(ref, "localhost/") // an old form of the CRI's
	switch {
	case file == "":
		return nil, status.Error(codes.InvalidArgument, "seccomp: type Localhost names no profile")
	case !filepath.IsAbs(file):
		file = filepath.Join(r.cfg.SeccompDir, path.Clean("/"+file))
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("seccomp profile: %w", err)
	}
	var s specs.LinuxSeccomp
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("seccomp profile %s: %w", file, err)
	}
	return &s, nil
}
