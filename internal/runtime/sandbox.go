package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/failpoint"
	"carob.dev/carob/internal/runtime/shim"
	"carob.dev/carob/internal/runtime/shim/wire"
	"carob.dev/carob/internal/sys"
)

// shmSize is the size of a Pod's /dev/shm in bytes.
const shmSize = 64 << 20

// RunPodSandbox starts the shim and pause, or takes a warm sandbox that has them, connects the Pod, and prepares what its containers share.
// On an error nothing is left.
func (r *Runtime) RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	if err := checkSandbox(config, r.node, r.cfg.Systemd); err != nil {
		return "", status.Errorf(codes.InvalidArgument, "sandbox config: %v", err)
	}
	if _, _, err := r.binary(handler); err != nil {
		return "", err
	}
	defer r.warm.starting()()
	sb := r.newSandbox()
	name := sandboxName(config)
	if err := r.reserve(name, sb.rec.ID); err != nil {
		return "", err
	}
	kind, fits := kindOf(config)
	if fits {
		if ready := r.warm.take(kind); ready != nil {
			sb = ready
			r.rename(name, sb.rec.ID)
			r.anticipateMove(sb.rec.ID, sb.rec.PausePID)
		}
	}
	r.mu.Lock()
	sb.name, sb.rec.CreatedAt, sb.rec.Handler, sb.rec.Config = name, r.cfg.Clock.Now().UnixNano(), handler, config
	r.mu.Unlock()
	if err := r.makeSandbox(ctx, sb); err != nil {
		undo := r.destroySandbox(context.WithoutCancel(ctx), sb)
		r.release(name)
		m := config.GetMetadata()
		return "", fmt.Errorf("run sandbox of Pod %s/%s: %w", m.GetNamespace(), m.GetName(), errors.Join(err, undo))
	}
	r.tell(runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT, sb.rec.ID, sb)
	return sb.rec.ID, nil
}

// newSandbox is a sandbox of which nothing is made yet.
func (r *Runtime) newSandbox() *sandbox {
	return &sandbox{turn: newTurn(), rec: sandboxRecord{Version: recordVersion, ID: newID(), Boot: r.boot, CreatedAt: r.cfg.Clock.Now().UnixNano()}}
}

// sandboxName and containerName are what is reserved, so that two requests for the same attempt do not make two.
func sandboxName(c *runtimeapi.PodSandboxConfig) string {
	m := c.GetMetadata()
	return fmt.Sprintf("pod/%s/%s/%s/%d", m.GetNamespace(), m.GetName(), m.GetUid(), m.GetAttempt())
}

func containerName(sandboxID string, c *runtimeapi.ContainerConfig) string {
	return fmt.Sprintf("container/%s/%s/%d", sandboxID, c.GetMetadata().GetName(), c.GetMetadata().GetAttempt())
}

// reserve claims a name, so that two requests for the same attempt do not make two.
func (r *Runtime) reserve(name, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if other, ok := r.names[name]; ok {
		return status.Errorf(codes.AlreadyExists, "name %q is reserved for %q", name, other)
	}
	r.names[name] = id
	return nil
}

func (r *Runtime) rename(name, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names[name] = id
}

func (r *Runtime) release(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.names, name)
}

// makeSandbox makes what of the sandbox is not there yet, and makes it the Pod's.
func (r *Runtime) makeSandbox(ctx context.Context, sb *sandbox) error {
	rec := &sb.rec
	opt := rec.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	if rec.PausePID == 0 {
		if err := r.raiseSandbox(ctx, sb, sandboxNamespaces(opt)); err != nil {
			return err
		}
	}
	if opt.GetNetwork() != runtimeapi.NamespaceMode_NODE {
		if err := r.nameSandbox(rec); err != nil {
			return err
		}
		failpoint.Hit("runtime/sandbox/named")
		if len(rec.IPs) == 0 {
			if err := r.connect(ctx, rec); err != nil {
				return err
			}
		}
	}
	failpoint.Hit("runtime/sandbox/connected")
	if err := tuneIPC(rec, opt); err != nil {
		return err
	}
	if err := r.writeSandboxFiles(rec); err != nil {
		return err
	}
	if err := r.giveToUsers(rec); err != nil {
		return err
	}
	failpoint.Hit("runtime/sandbox/furnished")
	r.mu.Lock()
	dead := sb.dead
	rec.Made, rec.Ready = true, !dead
	r.mu.Unlock()
	if dead {
		return errors.New("pause has ended before the Pod was made")
	}
	if err := r.keepSandbox(sb); err != nil {
		return err
	}
	failpoint.Hit("runtime/sandbox/made")
	r.mu.Lock()
	r.sandboxes[rec.ID] = sb
	r.mu.Unlock()
	return nil
}

// raiseSandbox makes the record, the shim, pause with the namespaces, and what is in them from the start.
func (r *Runtime) raiseSandbox(ctx context.Context, sb *sandbox, namespaces []string) error {
	if err := os.Mkdir(r.cfg.sandboxDir(sb.rec.ID), 0o711); err != nil {
		return err
	}
	failpoint.Hit("runtime/sandbox/folder")
	if err := r.saveSandbox(sb.rec); err != nil {
		return err
	}
	failpoint.Hit("runtime/sandbox/recorded")
	client, err := r.startShim(ctx, sb)
	if err != nil {
		return err
	}
	reply, err := client.Ask(ctx, wire.Frame{Op: wire.OpSandbox, Args: namespaces})
	if err != nil {
		return fmt.Errorf("start pause: %w", err)
	}
	failpoint.Hit("runtime/sandbox/pause")
	sb.rec.PausePID = reply.Pid
	if slices.Contains(namespaces, "ipc") {
		if err := makeShm(&sb.rec); err != nil {
			return err
		}
		failpoint.Hit("runtime/sandbox/shm")
	}
	return nil
}

// anticipateMove is for the OCI runtime, which will soon move a container into its cgroup. pid is the shim or pause. It goes on beside the
// caller.
func (r *Runtime) anticipateMove(sandboxID string, pid int) {
	r.beside.Go(func() { sys.CgroupAnticipateMove(r.cfg.shimCgroup(sandboxID), pid) })
}

func ownIPC(opt *runtimeapi.NamespaceOption) bool {
	return opt.GetIpc() != runtimeapi.NamespaceMode_NODE
}

func sandboxNamespaces(opt *runtimeapi.NamespaceOption) []string {
	var ns []string
	if opt.GetNetwork() != runtimeapi.NamespaceMode_NODE {
		ns = append(ns, "net", "uts")
	}
	if ownIPC(opt) {
		ns = append(ns, "ipc")
	}
	if opt.GetPid() == runtimeapi.NamespaceMode_POD {
		ns = append(ns, "pid")
	}
	return append(ns, shimUsers(opt)...)
}

// startShim starts the sandbox's shim. The client is returned as well: the sandbox has it only until the shim dies.
func (r *Runtime) startShim(ctx context.Context, sb *sandbox) (*shim.Client, error) {
	id := sb.rec.ID
	if err := os.MkdirAll(r.cfg.shimDir(id), 0o700); err != nil {
		return nil, err
	}
	failpoint.Hit("runtime/shim/folder")
	cgroup := r.cfg.shimCgroup(id)
	if err := sys.CgroupCreate(cgroup, sys.Resources{}); err != nil {
		return nil, err
	}
	failpoint.Hit("runtime/shim/cgroup")
	spec := shim.Spec{Binary: r.shim, Dir: r.cfg.shimDir(id), Socket: r.cfg.shimSocket(id), Boot: r.boot, Empty: r.empty,
		Within: func(start func() error) error { return sys.BornInCgroup(cgroup, start) }}
	if r.cgroups.Unified {
		folder, err := os.Open(r.cgroups.Folder("", cgroup))
		if err != nil {
			return nil, err
		}
		defer folder.Close()
		spec.Cgroup = folder
	}
	client, pid, err := shim.Start(spec, func(f wire.Frame) { r.heard(sb, f) }, func() { r.lost(sb) })
	if err != nil {
		return nil, err
	}
	failpoint.Hit("runtime/shim/started")
	r.anticipateMove(id, pid)
	r.mu.Lock()
	sb.client = client
	r.mu.Unlock()
	// Once it answers it can be found by its socket; before that, it ends by itself if this process does.
	_, err = client.Ask(ctx, wire.Frame{Op: wire.OpHello})
	return client, err
}
