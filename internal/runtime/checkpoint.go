package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/failpoint"
	"carob.dev/carob/internal/runtime/checkpoint"
	"carob.dev/carob/internal/sys"
)

// checkpointPatience is for a checkpoint whose caller names no time.
const checkpointPatience = 2 * time.Minute

// partialFile, in the work folder of a checkpoint, names the archive that is being written.
const partialFile = "partial"

// checkpointDir is the work folder of a checkpoint. While it is there, one is under way or was cut off.
func (c *Config) checkpointDir(id string) string {
	return filepath.Join(c.containerDir(id), "checkpoint")
}

// checkpointCgroup is where the processes stand that make a checkpoint, so that none outlives it.
func (c *Config) checkpointCgroup(id string) string {
	return "/" + c.CgroupRoot + "/checkpoint-" + short(id)
}

// CheckpointContainer writes a running container's processes, what it wrote, and what it is to the archive q.Location, an absolute path. It
// runs on; it stands still while its memory is copied, and so does the Pod's network; what it wrote is read just after. The archive gets its name when it is whole. After
// an error, or q.Timeout seconds (0: two minutes), nothing of it is left. A container that is to be killed is not checkpointed further.
func (r *Runtime) CheckpointContainer(ctx context.Context, q *runtimeapi.CheckpointContainerRequest) error {
	location := filepath.Clean(q.GetLocation())
	if !filepath.IsAbs(location) || location == "/" {
		return status.Errorf(codes.InvalidArgument, "location %q is no absolute path of a file", q.GetLocation())
	}
	if st, err := os.Stat(location); err == nil && !st.Mode().IsRegular() {
		return status.Errorf(codes.InvalidArgument, "location %s is there and no regular file", location)
	}
	if st, err := os.Stat(filepath.Dir(location)); err != nil || !st.IsDir() {
		return status.Errorf(codes.InvalidArgument, "location %s: there is no folder %s", location, filepath.Dir(location))
	}
	if q.GetTimeout() < 0 {
		return status.Errorf(codes.InvalidArgument, "timeout %d is below zero", q.GetTimeout())
	}
	timeout := time.Duration(q.GetTimeout()) * time.Second
	if timeout == 0 {
		timeout = checkpointPatience
	}
	c, _, err := r.running(q.GetContainerId())
	if err != nil {
		return err
	}
	bin, hide, err := r.binary(c.sb.rec.Handler)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := checkpoint.Able(ctx, bin); err != nil {
		if ctx.Err() != nil {
			return status.FromContextError(ctx.Err()).Err()
		}
		return status.Errorf(codes.Unimplemented, "checkpoint container %s: %v", c.rec.ID, err)
	}
	if err := c.turn.take(ctx); err != nil {
		return err
	}
	defer c.turn.pass()
	rec, err := r.beginCheckpoint(c, cancel)
	if err != nil {
		return err
	}
	defer r.endCheckpoint(c)
	err = r.writeCheckpoint(ctx, c, &rec, bin, hide != 0, location)
	r.mu.Lock()
	killed := c.killers > 0
	r.mu.Unlock()
	undo := r.undoCheckpoint(c.sb, &rec)
	switch {
	case err == nil && undo == nil:
		return nil
	case err == nil:
		return fmt.Errorf("checkpoint container %s: the archive is written, but not all is cleared away: %w", rec.ID, undo)
	case undo != nil:
		return fmt.Errorf("checkpoint container %s: %w", rec.ID, errors.Join(err, undo))
	case killed:
		return status.Errorf(codes.Aborted, "checkpoint container %s: the container was to be killed", rec.ID)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return status.Errorf(codes.DeadlineExceeded, "checkpoint container %s: not done within %v: %v", rec.ID, timeout, err)
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	}
	return fmt.Errorf("checkpoint container %s: %w", rec.ID, err)
}

// beginCheckpoint makes a checkpoint known to those who kill, if it may be: the container runs and nobody is about to kill it.
func (r *Runtime) beginCheckpoint(c *container, cancel context.CancelFunc) (containerRecord, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.rec.State != runtimeapi.ContainerState_CONTAINER_RUNNING || c.killers > 0 {
		return c.rec, status.Errorf(codes.FailedPrecondition, "container %q is not running", c.rec.ID)
	}
	c.cutOff = cancel
	return c.rec, nil
}

func (r *Runtime) endCheckpoint(c *container) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.cutOff = nil
}

// noCheckpoint cuts off a checkpoint of a container that is to be killed, and lets none begin until the function it returns is called.
func (r *Runtime) noCheckpoint(c *container) (done func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.killers++
	if c.cutOff != nil {
		c.cutOff()
	}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		c.killers--
	}
}

// writeCheckpoint has the OCI runtime checkpoint the container and makes the archive. What it makes on the way is undoCheckpoint's.
func (r *Runtime) writeCheckpoint(ctx context.Context, c *container, rec *containerRecord, bin string, hide bool, location string) error {
	work := r.cfg.checkpointDir(rec.ID)
	if err := os.Mkdir(work, 0o700); err != nil {
		return err
	}
	failpoint.Hit("runtime/checkpoint/folder")
	// In the folder of its last name, and known before it is there.
	partial := filepath.Join(filepath.Dir(location), ".carob-checkpoint-"+short(rec.ID))
	if err := os.WriteFile(filepath.Join(work, partialFile), []byte(partial), 0o600); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(work, checkpoint.Images), 0o700); err != nil {
		return err
	}
	at := r.cfg.Clock.Now()
	if err := r.runCheckpoint(ctx, rec, work, bin, hide); err != nil {
		return err
	}
	failpoint.Hit("runtime/checkpoint/dumped")
	contents, err := r.checkpointContents(ctx, c, rec, bin)
	if err != nil {
		return err
	}
	contents.Work, contents.Config.CheckpointedAt = work, at
	f, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	failpoint.Hit("runtime/checkpoint/partial")
	if err := checkpoint.Write(ctx, f, contents); err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	failpoint.Hit("runtime/checkpoint/written")
	if err := os.Rename(partial, location); err != nil {
		return err
	}
	failpoint.Hit("runtime/checkpoint/named")
	return sys.SyncDir(filepath.Dir(location))
}

// checkpointContents gathers what goes into the archive beside CRIU's images.
func (r *Runtime) checkpointContents(ctx context.Context, c *container, rec *containerRecord, bin string) (checkpoint.Contents, error) {
	img, err := r.cfg.Images.Resolve(ctx, rec.Config.GetImage().GetImage())
	if err != nil || img.ID != rec.ImageID { // the name may mean another by now
		if img, err = r.cfg.Images.Resolve(ctx, rec.ImageID); err != nil {
			return checkpoint.Contents{}, err
		}
	}
	spec, err := readSpec(filepath.Join(r.cfg.bundleDir(rec.ID), "config.json"))
	if err != nil {
		return checkpoint.Contents{}, err
	}
	r.mu.Lock()
	pod := c.sb.rec.Config.GetMetadata()
	now := containerStatus(&c.rec)
	r.mu.Unlock()
	name := rec.Config.GetMetadata().GetName()
	// By these annotations checkpointctl knows the container; they are in no specification that a container is started by.
	spec.Annotations = map[string]string{"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.container-name": name,
		"io.kubernetes.cri.sandbox-id": rec.SandboxID, "io.kubernetes.cri.sandbox-name": pod.GetName(),
		"io.kubernetes.cri.sandbox-namespace": pod.GetNamespace(), "io.kubernetes.cri.sandbox-uid": pod.GetUid(),
		"io.kubernetes.cri.image-name": rec.Config.GetImage().GetImage()}
	rawSpec, err := json.Marshal(spec)
	if err != nil {
		return checkpoint.Contents{}, err
	}
	rawStatus, err := json.Marshal(now)
	if err != nil {
		return checkpoint.Contents{}, err
	}
	image := rec.Config.GetImage().GetImage()
	if user := rec.Config.GetImage().GetUserSpecifiedImage(); user != "" {
		image = user
	}
	return checkpoint.Contents{Spec: rawSpec, Status: rawStatus, Upper: filepath.Join(r.cfg.containerDir(rec.ID), "upper"), Layers: img.Layers,
		Config: checkpoint.Config{ID: rec.ID, Name: name, RootfsImage: image, RootfsImageName: image, RootfsImageRef: rec.ImageRef,
			OCIRuntime: filepath.Base(bin), CreatedTime: time.Unix(0, rec.CreatedAt).UTC()}}, nil
}

// undoCheckpoint ends what is left of a checkpoint, done or cut off, by this process or an earlier one: its processes, the container's
// standing still, the Pod's silence, its files. Without a checkpoint it does nothing.
func (r *Runtime) undoCheckpoint(sb *sandbox, rec *containerRecord) error {
	work := r.cfg.checkpointDir(rec.ID)
	if _, err := os.Lstat(work); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	cgroup := r.cfg.checkpointCgroup(rec.ID)
	if err := r.endCgroup(cgroup); err != nil {
		return err
	}
	if err := sys.CgroupThaw(rec.Cgroup); err != nil {
		return err
	}
	failpoint.Hit("runtime/checkpoint/ended")
	if err := r.unlockNetwork(sb); err != nil {
		return err
	}
	partial, err := os.ReadFile(filepath.Join(work, partialFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(partial) > 0 {
		if err := remove(string(partial)); err != nil {
			return err
		}
	}
	failpoint.Hit("runtime/checkpoint/partial-removed")
	return os.RemoveAll(work)
}

// endCgroup kills what stands in a cgroup and removes it. CRIU has much to let go of before it is gone.
func (r *Runtime) endCgroup(cgroup string) error {
	for began := r.cfg.Clock.Now(); ; {
		err := errors.Join(sys.CgroupKillAll(cgroup), sys.CgroupRemove(cgroup))
		if err == nil || r.cfg.Clock.Since(began) > patience {
			return err
		}
	}
}

// CheckpointPod is not implemented.
func (r *Runtime) CheckpointPod(context.Context, *runtimeapi.CheckpointPodRequest) error {
	return status.Error(codes.Unimplemented, "CheckpointPod is not implemented by this runtime: it checkpoints containers one by one, by CheckpointContainer")
}

// RestorePod is not implemented.
func (r *Runtime) RestorePod(context.Context, *runtimeapi.RestorePodRequest) (*runtimeapi.RestorePodResponse, error) {
	return nil, status.Error(codes.Unimplemented, "RestorePod is not implemented by this runtime: it restores no checkpoints")
}
