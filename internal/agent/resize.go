package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	resourcehelper "k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/agent/admit"
	"carob.dev/carob/internal/agent/criconf"
	"carob.dev/carob/internal/agent/podstate"
	podrule "carob.dev/carob/internal/api/pod"
	"carob.dev/carob/internal/failpoint"
	"carob.dev/carob/internal/sys"
)

// wish is a change of resources that waits for room on the node.
type wish struct {
	w     *worker
	asked *corev1.Pod
	// since numbers wishes in the order in which they came.
	since int
}

// takeResources has the worker work with what its Pod was granted, and asks for a grant of what the Pod asks for now.
func (w *worker) takeResources() {
	f := w.facts
	want := podstate.Asked(w.asked)
	switch {
	case f.Granted.Same(want) || podstate.Ending(w.asked, f):
		f.Pending = nil
		w.a.withdraw(w.asked.UID)
	default:
		if p := w.a.grant(w, w.asked); p != nil {
			w.deferred(p)
		} else {
			w.grantGiven(want)
		}
	}
	w.pod = f.Granted.In(w.asked)
	w.granted.Store(w.pod)
}

func (w *worker) deferred(p *podstate.Pending) {
	was := w.facts.Pending
	w.facts.Pending = p
	if was != nil && was.Reason == p.Reason && was.Generation == p.Generation {
		return
	}
	reason := "ResizeDeferred"
	if p.Reason == corev1.PodReasonInfeasible {
		reason = "ResizeInfeasible"
	}
	w.event(corev1.EventTypeWarning, reason, resizeMessage("Pod resize "+p.Reason, w.asked, p.Generation, p.Message))
}

func (w *worker) grantGiven(want *podstate.Grant) {
	w.facts.Granted, w.facts.Pending = want, nil
	w.facts.Resizing = &podstate.Resizing{Generation: w.asked.Generation}
	w.volumes.again = true // files may tell of it
	delete(w.tries, string(podstate.Resize))
	w.event(corev1.EventTypeNormal, "ResizeStarted", resizeMessage("Pod resize started", w.asked, w.asked.Generation, ""))
}

// resizeMessage tells what containers are to have, as Kubernetes' events do.
func resizeMessage(what string, pod *corev1.Pod, generation int64, problem string) string {
	type container struct {
		Name      string                      `json:"name"`
		Resources corev1.ResourceRequirements `json:"resources"`
	}
	summary := struct {
		InitContainers []container `json:"initContainers,omitempty"`
		Containers     []container `json:"containers,omitempty"`
		Generation     int64       `json:"generation"`
		Error          string      `json:"error,omitempty"`
	}{Generation: generation, Error: problem}
	for _, c := range pod.Spec.InitContainers {
		summary.InitContainers = append(summary.InitContainers, container{c.Name, c.Resources})
	}
	for _, c := range pod.Spec.Containers {
		summary.Containers = append(summary.Containers, container{c.Name, c.Resources})
	}
	raw, err := json.Marshal(summary)
	if err != nil {
		return what
	}
	return what + ": " + string(raw)
}

// grant gives a Pod what it asks for if the node has it; else it says why not, and the wish is kept until there is room.
func (a *Agent) grant(w *worker, asked *corev1.Pod) *podstate.Pending {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.weigh(w, asked)
	if p == nil {
		delete(a.wishes, asked.UID)
		return nil
	}
	since := len(a.wishes)
	if old, ok := a.wishes[asked.UID]; ok {
		since = old.since
	}
	a.wishes[asked.UID] = wish{w, asked, since}
	return p
}

// weigh compares a Pod with what the node has left. If it fits, others see it as granted from then on. a.mu is held.
func (a *Agent) weigh(w *worker, asked *corev1.Pod) *podstate.Pending {
	node, err := a.nodes.Get(a.cfg.NodeName)
	if err != nil {
		return &podstate.Pending{Reason: corev1.PodReasonDeferred, Message: err.Error(), Generation: asked.Generation}
	}
	if r := admit.Resize(node, a.taken(asked.UID), asked); r != nil {
		return &podstate.Pending{Reason: r.Reason, Message: r.Message, Generation: asked.Generation}
	}
	w.granted.Store(asked)
	return nil
}

// taken are the Pods that take of the node, each with what it was granted, but for one. a.mu is held.
func (a *Agent) taken(but types.UID) []*corev1.Pod {
	var list []*corev1.Pod
	for uid, w := range a.workers {
		if uid == but || w.rejected || w.preempted {
			continue
		}
		if pod := w.granted.Load(); pod.Status.Phase != corev1.PodFailed && pod.Status.Phase != corev1.PodSucceeded {
			list = append(list, pod)
		}
	}
	return list
}

func (a *Agent) withdraw(uid types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.wishes, uid)
}

// roomMade grants what there is room for now: first what asks for no more than it has, then by priority, quality of service and age.
func (a *Agent) roomMade() {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []wish
	for _, x := range a.wishes {
		list = append(list, x)
	}
	slices.SortFunc(list, func(x, y wish) int {
		for i, r := range rank(x) {
			if o := rank(y)[i]; r != o {
				return r - o
			}
		}
		return 0
	})
	for _, x := range list {
		if a.weigh(x.w, x.asked) != nil {
			continue
		}
		delete(a.wishes, x.asked.UID)
		x.w.post(func() {
			if want := podstate.Asked(x.asked); want.Same(podstate.Asked(x.w.asked)) && !x.w.facts.Granted.Same(want) {
				x.w.grantGiven(want)
				x.w.pod = want.In(x.w.asked)
			}
			x.w.granted.Store(x.w.pod)
		})
	}
}

// rank orders wishes: the lowest number first.
func rank(x wish) [4]int {
	var r [4]int
	now := resourcehelper.PodRequests(x.asked, resourcehelper.PodResourcesOptions{})
	was := resourcehelper.PodRequests(x.w.granted.Load(), resourcehelper.PodResourcesOptions{})
	if now.Cpu().Cmp(*was.Cpu()) > 0 || now.Memory().Cmp(*was.Memory()) > 0 {
		r[0] = 1
	}
	if p := x.asked.Spec.Priority; p != nil {
		r[1] = -int(*p)
	}
	if podrule.QOS(x.asked) == corev1.PodQOSGuaranteed {
		r[2] = -1
	}
	r[3] = x.since
	return r
}

// resize makes the cgroups as they were granted, step by step, and notes how far it came.
func (w *worker) resize() func(context.Context) func() {
	pod, a := w.pod, w.a
	of, containers := w.facts.Changes(pod)
	steps, room := podstate.Steps(of, containers)
	sandbox := w.facts.Sandbox.ID
	return func(ctx context.Context) func() {
		done := 0
		var err error
		for err == nil && done < len(steps) {
			if done == room {
				if err = a.roomForUsage(ctx, pod, steps[done:]); err != nil {
					break
				}
			}
			if err = a.change(ctx, pod, sandbox, steps[done]); err == nil {
				done++
			}
			failpoint.Hit("agent/resize/step")
		}
		return func() {
			for _, s := range steps[:done] {
				w.facts.Resized(s)
			}
			r := w.facts.Resizing
			switch {
			case ctx.Err() != nil || r == nil:
			case err != nil:
				if r.Error != text(err) {
					r.Error = text(err)
					w.event(corev1.EventTypeWarning, "ResizeError", resizeMessage("Pod resize error", w.asked, r.Generation, r.Error))
				}
				r.RetryAt = w.retry(string(podstate.Resize))
			default:
				r.Error = ""
				delete(w.tries, string(podstate.Resize))
			}
		}
	}
}

// roomForUsage refuses limits below what is in use: the kernel would kill for them.
func (a *Agent) roomForUsage(ctx context.Context, pod *corev1.Pod, steps []podstate.Change) error {
	var errs []error
	for _, s := range steps {
		limit := s.To.MemoryLimit
		if limit == 0 || limit == s.From.MemoryLimit || s.From.MemoryLimit != 0 && limit > s.From.MemoryLimit {
			continue
		}
		if s.Container == "" {
			used, err := a.cfg.Cgroups.MemoryUsed(a.cfg.CgroupNames.Pod(pod))
			if err != nil {
				return fmt.Errorf("unable to read memory usage for pod %q: %w", pod.Name, err)
			}
			if used >= uint64(limit) {
				errs = append(errs, fmt.Errorf("attempting to set pod memory limit (%d) below current usage (%d)", limit, used))
			}
			continue
		}
		st, err := a.cfg.Runtime.ContainerStats(ctx, s.ID)
		if err != nil {
			return fmt.Errorf("unable to read memory usage of container %q: %w", s.Container, err)
		}
		if used := st.GetMemory().GetUsageBytes().GetValue(); used >= uint64(limit) {
			errs = append(errs, fmt.Errorf("attempting to set container %q memory limit (%d) below current usage (%d)", s.Container, limit, used))
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("cannot decrease memory limits: %w", errors.Join(errs...))
	}
	return nil
}

// change makes one cgroup another.
func (a *Agent) change(ctx context.Context, pod *corev1.Pod, sandbox string, c podstate.Change) error {
	limits := criconf.Limits(c.To)
	if c.Container != "" {
		spec, _ := podstate.Find(pod, c.Container)
		full := criconf.ContainerResources(pod, spec.Container, a.limited)
		limits.OomScoreAdj, limits.Unified = full.OomScoreAdj, full.Unified
		if err := a.cfg.Runtime.UpdateContainerResources(ctx, c.ID, &runtimeapi.ContainerResources{Linux: limits}); err != nil {
			return fmt.Errorf("update resources of container %q: %w", c.Container, err)
		}
		return nil
	}
	_, err := a.cfg.Runtime.UpdatePodSandboxResources(ctx, &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: sandbox, Resources: limits})
	if err != nil && status.Code(err) != codes.Unimplemented { // a runtime that does not want to know
		return fmt.Errorf("tell the runtime of the Pod's resources: %w", err)
	}
	r := cgroupLimits(limits)
	r.Unified = criconf.PodMemoryFiles(pod, a.limited)
	return errors.Join(a.take(pod, c.To), a.cfg.Cgroups.Create(a.cfg.CgroupNames.Pod(pod), r))
}

func cgroupLimits(r *runtimeapi.LinuxContainerResources) sys.Resources {
	out := sys.Resources{CPUShares: uint64(r.GetCpuShares()), Memory: r.GetMemoryLimitInBytes()}
	if q := r.GetCpuQuota(); q != 0 {
		out.CPUQuota, out.CPUPeriod = q, uint64(r.GetCpuPeriod())
	}
	return out
}
