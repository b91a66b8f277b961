package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/agent/criconf"
	"carob.dev/carob/internal/agent/podstate"
	"carob.dev/carob/internal/agent/volume"
	"carob.dev/carob/internal/sys"
)

// operation is what an action does. It is made on the worker's goroutine and may look at the worker there; the function that it returns runs
// beside the worker and may not. What that one returns runs on the worker's goroutine again, and may be nil.
func (w *worker) operation(a podstate.Action) func(context.Context) func() {
	switch a.Verb {
	case podstate.Prepare:
		return w.prepare()
	case podstate.RunSandbox:
		return w.runSandbox()
	case podstate.StopSandbox:
		return w.stopSandbox()
	case podstate.Resize:
		return w.resize()
	case podstate.Release:
		return w.release()
	case podstate.Remove:
		return w.remove()
	case podstate.DeleteObject:
		return w.deleteObject()
	case podstate.Pull:
		return w.pull(a.Container)
	case podstate.Create:
		return w.create(a.Container)
	case podstate.Start:
		return w.startContainer(a.Container)
	case podstate.Hook:
		return w.postStart(a.Container)
	case podstate.Stop:
		return w.stop(a)
	}
	return func(context.Context) func() {
		return func() { w.log.Error("an action that nobody knows", "verb", string(a.Verb)) }
	}
}

// text is an error's message, without gRPC's dressing.
func text(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}

// trouble notes that an action on the Pod failed.
func (w *worker) trouble(reason string, err error) {
	w.facts.Trouble = &podstate.Trouble{Reason: reason, Message: text(err), RetryAt: w.retry(reason)}
	w.log.Info("not done, will be tried again", "step", reason, "error", err)
}

func (w *worker) prepare() func(context.Context) func() {
	pod, a := w.pod, w.a
	have := w.facts.Applied
	if have == nil {
		first := podstate.PodAmounts(pod)
		have = &first
	}
	return func(ctx context.Context) func() {
		err := a.take(pod, *have)
		if err == nil {
			err = a.cfg.Cgroups.Create(a.cfg.CgroupNames.Pod(pod), a.podCgroup(pod, *have))
		}
		if err == nil {
			err = os.MkdirAll(a.cfg.podDir(pod.UID), 0o750)
		}
		if err == nil {
			_, err = a.volumes.Setup(ctx, pod)
		}
		var refresh time.Time
		if err == nil {
			refresh = a.refreshAt(pod.UID)
		}
		return func() {
			if err == nil {
				w.facts.Prepared, w.facts.Applied = true, have
				w.volumes.refreshAt = refresh
				delete(w.tries, "prepare")
				return
			}
			if ctx.Err() != nil {
				return
			}
			if !volume.Attaching(err) || w.tries["prepare"] >= patientTries {
				for _, m := range volumeErrors(err) {
					w.event(corev1.EventTypeWarning, "FailedMount", m)
				}
			}
			w.trouble("prepare", err)
			if soon := a.cfg.Clock.Now().Add(pendingPause); volume.Pending(err) && w.facts.Trouble.RetryAt.After(soon) {
				w.facts.Trouble.RetryAt = soon
			}
		}
	}
}

// pendingPause is the longest time between two looks at a claim that is not bound or a volume that is not attached, of which a node is not told:
// two small requests each time.
const pendingPause = 2 * time.Second

// patientTries is how often it is no news that a volume is not attached yet.
const patientTries = 5

// volumeErrors are the messages of the volumes that failed, or that of err as a whole.
func volumeErrors(err error) []string {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var list []string
		for _, e := range joined.Unwrap() {
			list = append(list, volumeErrors(e)...)
		}
		return list
	}
	var v *volume.Error
	if errors.As(err, &v) {
		return []string{v.Error()}
	}
	return []string{err.Error()}
}

// podCgroup is what the Pod's cgroup is made with.
func (a *Agent) podCgroup(pod *corev1.Pod, have podstate.Amounts) sys.Resources {
	r := cgroupLimits(criconf.Limits(have))
	r.Unified = criconf.PodMemoryFiles(pod, a.limited)
	if a.cfg.PodMaxPIDs > 0 {
		r.PIDs = a.cfg.PodMaxPIDs
	}
	for _, h := range criconf.PodHugepages(pod) {
		if r.HugePages == nil {
			r.HugePages = map[string]uint64{}
		}
		r.HugePages[h.GetPageSize()] = h.GetLimit()
	}
	return r
}

// sandboxConfig is that of the Pod's sandbox with the attempt.
func (a *Agent) sandboxConfig(pod *corev1.Pod, attempt uint32) (*runtimeapi.PodSandboxConfig, string) {
	dns, note := a.dns(pod)
	return criconf.Sandbox(criconf.SandboxInput{Pod: pod, Attempt: attempt, CgroupParent: a.cfg.CgroupNames.Parent(pod),
		LogDirectory: filepath.Join(a.cfg.logsDir(), criconf.LogDirectory(pod)), ClusterDomain: a.cfg.ClusterDomain, DNS: dns, Users: a.ranges.Of(pod.UID)}), note
}

func (w *worker) runSandbox() func(context.Context) func() {
	pod, a, attempt := w.pod, w.a, w.facts.NextAttempt
	return func(ctx context.Context) func() {
		sb, note, err := a.makeSandbox(ctx, pod, attempt)
		return func() {
			if note != "" {
				w.event(corev1.EventTypeWarning, "DNSConfigForming", note)
			}
			if sb != nil {
				w.facts.Sandbox = sb
				w.facts.NextAttempt = attempt + 1
			}
			if err == nil {
				delete(w.tries, "run sandbox")
				return
			}
			if ctx.Err() != nil {
				return
			}
			w.event(corev1.EventTypeWarning, "FailedCreatePodSandBox", "Failed to create pod sandbox: "+text(err))
			w.trouble("run sandbox", err)
		}
	}
}

func (a *Agent) makeSandbox(ctx context.Context, pod *corev1.Pod, attempt uint32) (*podstate.Sandbox, string, error) {
	handler := ""
	if pod.Spec.RuntimeClassName != nil && *pod.Spec.RuntimeClassName != "" {
		class, err := a.cfg.Client.NodeV1().RuntimeClasses().Get(ctx, *pod.Spec.RuntimeClassName, metav1.GetOptions{})
		if err != nil {
			return nil, "", fmt.Errorf("look up RuntimeClass: %w", err)
		}
		handler = class.Handler
	}
	if err := a.takeRange(ctx, pod, handler); err != nil {
		return nil, "", err
	}
	config, note := a.sandboxConfig(pod, attempt)
	if err := os.MkdirAll(config.GetLogDirectory(), 0o755); err != nil {
		return nil, note, err
	}
	id, err := a.cfg.Runtime.RunPodSandbox(ctx, config, handler)
	if err != nil {
		return nil, note, err
	}
	sb := &podstate.Sandbox{ID: id, Attempt: attempt}
	st, err := a.cfg.Runtime.PodSandboxStatus(context.WithoutCancel(ctx), id, false)
	if err != nil {
		return sb, note, fmt.Errorf("look at the sandbox: %w", err)
	}
	sb.Ready = st.GetStatus().GetState() == runtimeapi.PodSandboxState_SANDBOX_READY
	sb.IPs = sandboxIPs(st.GetStatus())
	if err := a.writeHosts(pod, sb.IPs); err != nil {
		return sb, note, err
	}
	return sb, note, nil
}

// takeRange gives a Pod that wants a user namespace of its own the IDs for it.
func (a *Agent) takeRange(ctx context.Context, pod *corev1.Pod, handler string) error {
	if pod.Spec.HostUsers == nil || *pod.Spec.HostUsers {
		return nil
	}
	st, err := a.cfg.Runtime.Status(ctx, false)
	if err != nil {
		return fmt.Errorf("ask what the runtime can do: %w", err)
	}
	for _, h := range st.GetRuntimeHandlers() {
		if h.GetName() == handler && h.GetFeatures().GetUserNamespaces() {
			return a.ranges.Take(pod.UID)
		}
	}
	if handler != "" {
		return fmt.Errorf("can't set `spec.hostUsers: false`, RuntimeClass handler %q does not support user namespaces", handler)
	}
	return errors.New("can't set `spec.hostUsers: false`, runtime does not support user namespaces")
}

// haveHosts writes the Pod's /etc/hosts if the agent ended, or failed, before it did.
func (a *Agent) haveHosts(pod *corev1.Pod, ips []string) error {
	if st, err := os.Stat(a.hostsFile(pod)); err == nil && st.Size() > 0 {
		return nil
	}
	return a.writeHosts(pod, ips)
}

func (a *Agent) hostsFile(pod *corev1.Pod) string {
	return filepath.Join(a.cfg.podDir(pod.UID), "etc-hosts")
}

// writeHosts writes the Pod's /etc/hosts in place, for containers have the file mounted.
func (a *Agent) writeHosts(pod *corev1.Pod, ips []string) error {
	var host []byte
	if pod.Spec.HostNetwork {
		host, _ = os.ReadFile("/etc/hosts") // a node without one has nothing to add
	}
	path := a.hostsFile(pod)
	if err := os.WriteFile(path, criconf.Hosts(pod, ips, host, a.cfg.ClusterDomain), 0o644); err != nil {
		return fmt.Errorf("write the Pod's hosts file: %w", err)
	}
	return nil
}

func (w *worker) stopSandbox() func(context.Context) func() {
	id, a := w.facts.Sandbox.ID, w.a
	return func(ctx context.Context) func() {
		err := a.cfg.Runtime.StopPodSandbox(ctx, id)
		var st *runtimeapi.PodSandboxStatusResponse
		gone := false
		if err == nil {
			st, err = a.cfg.Runtime.PodSandboxStatus(ctx, id, false)
			if status.Code(err) == codes.NotFound {
				gone, err = true, nil
			}
		}
		return func() {
			if err != nil {
				if ctx.Err() == nil {
					w.event(corev1.EventTypeWarning, "FailedKillPod", "error killing pod: "+text(err))
					w.trouble("stop sandbox", err)
				}
				return
			}
			delete(w.tries, "stop sandbox")
			if sb := w.facts.Sandbox; sb != nil && sb.ID == id {
				sb.Ready, sb.Stopped = false, true
			}
			if st != nil {
				w.observe(st.GetStatus(), st.GetContainersStatuses())
			}
			if gone {
				for name := range w.facts.Containers {
					w.facts.Lost(name, a.cfg.Clock.Now())
				}
			}
		}
	}
}

// release gives back what an ended Pod does not need, but for its record and logs.
func (w *worker) release() func(context.Context) func() {
	pod, a := w.pod, w.a
	return func(ctx context.Context) func() {
		err := errors.Join(a.volumes.Teardown(ctx, pod.UID), a.cfg.Cgroups.Remove(a.cfg.CgroupNames.Pod(pod)), a.level(pod.UID, nil))
		return func() {
			if err == nil {
				w.facts.Released = true
			} else if ctx.Err() == nil {
				w.trouble("release", err)
			}
		}
	}
}

// remove takes everything of the Pod off the node.
func (w *worker) remove() func(context.Context) func() {
	pod, a := w.pod, w.a
	var sandboxes []string
	if w.facts.Sandbox != nil {
		sandboxes = append(sandboxes, w.facts.Sandbox.ID)
	}
	for _, d := range w.facts.Discard {
		if d.Sandbox {
			sandboxes = append(sandboxes, d.ID)
		}
	}
	return func(ctx context.Context) func() {
		var err error
		for _, id := range sandboxes {
			if e := a.cfg.Runtime.RemovePodSandbox(ctx, id); e != nil && status.Code(e) != codes.NotFound {
				err = errors.Join(err, e)
			}
		}
		if err == nil {
			logs := filepath.Join(a.cfg.logsDir(), criconf.LogDirectory(pod))
			a.rotator.Drop(logs)
			err = errors.Join(a.removeFolder(ctx, pod.UID), a.removeCgroups(pod), os.RemoveAll(logs))
		}
		return func() {
			if err == nil {
				w.facts.Removed, w.facts.Discard = true, nil
				if sb := w.facts.Sandbox; sb != nil {
					sb.Ready, sb.Stopped = false, true
				}
			} else if ctx.Err() == nil {
				w.event(corev1.EventTypeWarning, "FailedKillPod", "error killing pod: "+text(err))
				w.trouble("remove", err)
			}
		}
	}
}

// removeCgroups removes the Pod's cgroup. What is left of a Pod whose object is gone may stand on any level.
func (a *Agent) removeCgroups(pod *corev1.Pod) error {
	err := a.level(pod.UID, nil)
	for _, class := range []corev1.PodQOSClass{corev1.PodQOSGuaranteed, corev1.PodQOSBurstable, corev1.PodQOSBestEffort} {
		err = errors.Join(err, a.cfg.Cgroups.Remove(a.cfg.CgroupNames.Of(class, pod.UID)))
	}
	return err
}

func (w *worker) deleteObject() func(context.Context) func() {
	if w.static { // its mirror goes when nothing of the Pod is left
		return func(context.Context) func() { return func() { w.facts.Gone = true } }
	}
	pod, a := w.pod, w.a
	return func(ctx context.Context) func() {
		none := int64(0)
		err := a.cfg.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &none,
			Preconditions: &metav1.Preconditions{UID: &pod.UID}})
		return func() {
			switch {
			case err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) && strings.Contains(err.Error(), "UID"):
				w.facts.Gone = true
				if err == nil && len(pod.Finalizers) > 0 {
					w.event(corev1.EventTypeNormal, "WaitingForFinalizers", fmt.Sprintf("the Pod has ended, and is gone once its finalizers are: %v", pod.Finalizers))
				}
			case ctx.Err() == nil:
				w.trouble("delete object", err)
			}
		}
	}
}

// discard removes, one after the other and beside everything else, what nothing needs any more.
func (w *worker) discard(ctx context.Context) {
	if w.discarding || len(w.facts.Discard) == 0 || w.done || podstate.Ending(w.pod, w.facts) {
		return
	}
	w.discarding = true
	d, a := w.facts.Discard[0], w.a
	w.wg.Go(func() {
		var err error
		if d.Sandbox {
			err = a.cfg.Runtime.RemovePodSandbox(ctx, d.ID)
		} else {
			err = a.cfg.Runtime.RemoveContainer(ctx, d.ID)
		}
		if err != nil && status.Code(err) != codes.NotFound && ctx.Err() == nil {
			w.log.Warn("remove what is not needed any more", "id", d.ID, "error", err)
			timer := a.cfg.Clock.NewTimer(10 * time.Second)
			defer timer.Stop()
			select {
			case <-timer.C():
			case <-ctx.Done():
			}
		}
		w.post(func() {
			w.discarding = false
			if len(w.facts.Discard) > 0 && w.facts.Discard[0] == d && (err == nil || status.Code(err) == codes.NotFound) {
				w.facts.Discard = w.facts.Discard[1:]
			}
		})
	})
}

// volumesPause is the least time between one look at the volumes and the next that nothing but time calls for: a token that cannot be renewed
// is due all the while.
const volumesPause = time.Minute

// updateVolumes has the volumes follow their sources; one run at a time, and another if something changed meanwhile. What failed is tried
// again.
func (w *worker) updateVolumes(ctx context.Context) {
	if w.volumes.busy || podstate.Ending(w.pod, w.facts) {
		return
	}
	w.volumes.busy, w.volumes.again = true, false
	pod, a := w.pod, w.a
	w.wg.Go(func() {
		err := a.volumes.Update(ctx, pod)
		if err != nil && ctx.Err() == nil {
			w.log.Info("a volume was not brought up to date", "error", err)
		}
		at := a.refreshAt(pod.UID)
		if soonest := a.cfg.Clock.Now().Add(volumesPause); err != nil || !at.IsZero() && at.Before(soonest) {
			at = soonest
		}
		w.post(func() { w.volumes.busy, w.volumes.refreshAt = false, at })
	})
}

// refreshAt is when a token of the Pod's volumes is to be renewed; zero for never. It may wait for work on the volumes.
func (a *Agent) refreshAt(uid types.UID) time.Time {
	if v, ok := a.volumes.(interface {
		RefreshAt(uid types.UID) (time.Time, bool)
	}); ok {
		if at, ok := v.RefreshAt(uid); ok {
			return at
		}
	}
	return time.Time{}
}
