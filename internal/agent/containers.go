package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/agent/criconf"
	"carob.dev/carob/internal/agent/downward"
	"carob.dev/carob/internal/agent/podstate"
	"carob.dev/carob/internal/agent/probe"
	"carob.dev/carob/internal/agent/pull"
	"carob.dev/carob/internal/agent/volume"
)

// Reasons of waiting containers.
const (
	reasonConfigError = "CreateContainerConfigError"
	reasonCreateError = "CreateContainerError"
	reasonRunError    = "RunContainerError"
)

// afterPull says whether the reason is of what comes after the pull: it stands until that works.
func afterPull(reason string) bool {
	return reason == reasonConfigError || reason == reasonCreateError || reason == reasonRunError
}

// containerTrouble notes that a container cannot be had just now.
func (w *worker) containerTrouble(name, reason, message string, at time.Time) {
	c := w.facts.Containers[name]
	c.Trouble = &podstate.Trouble{Reason: reason, Message: message, RetryAt: at}
	c.ImageRef = ""
}

func (w *worker) pull(name string) func(context.Context) func() {
	spec, _ := podstate.Find(w.pod, name)
	pod, a, ref, podRef := w.pod, w.a, w.containerRef(name), w.ref("")
	attempt := w.facts.NextAttempt - 1
	return func(ctx context.Context) func() {
		var secrets []*corev1.Secret
		var missing []string
		for _, s := range pod.Spec.ImagePullSecrets {
			secret, err := a.sources.GetSecret(ctx, pod.Namespace, s.Name)
			if err != nil {
				missing = append(missing, s.Name)
				continue
			}
			secrets = append(secrets, secret)
		}
		config, _ := a.sandboxConfig(pod, attempt)
		request := pull.Request{Pod: pod, Ref: ref, Image: spec.Image, Policy: policyOf(spec.Container.ImagePullPolicy), Secrets: secrets, Sandbox: config}
		res, err := a.puller.Ensure(ctx, request)
		var volumes map[string]string
		podLevel := err == nil
		if podLevel { // what is said of volumes is said of the Pod
			request.Ref = podRef
			volumes, err = a.pullVolumes(ctx, spec.Container, request)
		}
		return func() {
			if len(missing) > 0 {
				w.event(corev1.EventTypeWarning, "FailedToRetrieveImagePullSecret",
					fmt.Sprintf("Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", strings.Join(missing, ", ")))
			}
			var failed *pull.Error
			switch {
			case err == nil:
				c := w.facts.Containers[name]
				c.ImageRef = res.ID
				if c.Trouble != nil && !afterPull(c.Trouble.Reason) {
					c.Trouble = nil
				}
				if res.Pulled {
					w.a.node.Poke()
				}
				w.images[name], w.volumeImages[name] = res, volumes
			case errors.As(err, &failed):
				if podLevel {
					w.containerEvent(name, corev1.EventTypeWarning, "Failed", "Error: "+failed.Message)
				}
				w.containerTrouble(name, failed.Reason, failed.Message, failed.RetryAt)
			}
		}
	}
}

// policyOf is the pull policy; defaulting has set it, but for Pods that did not come through our API server.
func policyOf(p corev1.PullPolicy) corev1.PullPolicy {
	if p == "" {
		return corev1.PullIfNotPresent
	}
	return p
}

func (w *worker) create(name string) func(context.Context) func() {
	spec, _ := podstate.Find(w.pod, name)
	c := w.facts.Containers[name]
	sb := *w.facts.Sandbox
	pod, a, image := w.pod, w.a, w.images[name]
	in := criconf.ContainerInput{Pod: pod, Spec: spec, VolumeImages: w.volumeImages[name], Attempt: c.Attempt, ImageRef: c.ImageRef, ImageUser: criconf.ImageUser{UID: image.UID, Name: image.Username},
		SeccompDir: a.cfg.SeccompDir,
		Node:       a.limited}
	if spec.Target != "" {
		if t := w.facts.Containers[spec.Target]; t != nil && t.State == podstate.Running {
			in.TargetID = t.ID
		}
	}
	ips := w.facts.IPs(pod)
	return func(ctx context.Context) func() {
		id, reason, err := a.createContainer(ctx, in, sb, ips)
		return func() {
			c := w.facts.Containers[name]
			c.Creating = false
			if err != nil {
				if ctx.Err() == nil {
					w.containerEvent(name, corev1.EventTypeWarning, "Failed", "Error: "+text(err))
					w.containerTrouble(name, reason, text(err), w.retry(name).Add(4*time.Second))
				}
				return
			}
			delete(w.tries, name)
			c.ID, c.Trouble = id, nil
			if c.State == podstate.Absent {
				c.State = podstate.Created
			}
			c.Image, c.ImageID = image.Name, image.Digest
			if spec.Lifecycle == nil || spec.Lifecycle.PostStart == nil {
				c.Hooked = true
			}
			w.containerEvent(name, corev1.EventTypeNormal, "Created", "Container created")
		}
	}
}

// createContainer gathers what the container's configuration needs and makes it. The reason is that of a waiting container if it fails.
func (a *Agent) createContainer(ctx context.Context, in criconf.ContainerInput, sb podstate.Sandbox, ips []string) (id, reason string, err error) {
	pod := in.Pod
	if in.Spec.Target != "" && in.TargetID == "" {
		return "", reasonConfigError, fmt.Errorf("unable to find target container %q", in.Spec.Target)
	}
	links := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
	services, err := a.services.List(labels.Everything())
	if err != nil {
		return "", reasonConfigError, err
	}
	folders, err := a.envFolders(ctx, in)
	if err != nil {
		return "", reasonConfigError, err
	}
	in.Env, err = criconf.Env(criconf.EnvInput{Folders: folders, Pod: pod, Container: in.Spec.Container,
		ConfigMap:   func(name string) (*corev1.ConfigMap, error) { return a.sources.GetConfigMap(ctx, pod.Namespace, name) },
		Secret:      func(name string) (*corev1.Secret, error) { return a.sources.GetSecret(ctx, pod.Namespace, name) },
		Services:    criconf.ServiceEnv(services, pod.Namespace, links),
		Facts:       downward.Facts{HostIPs: a.hostIPs(), PodIPs: ips},
		Allocatable: a.node.Allocatable()})
	if err != nil {
		return "", reasonConfigError, err
	}
	if err := a.haveHosts(pod, ips); err != nil {
		return "", reasonConfigError, err
	}
	mounted, err := a.volumes.Setup(ctx, pod)
	if err != nil {
		return "", reasonConfigError, err
	}
	if in.Mounts, err = a.mounts(ctx, in, mounted); err != nil {
		return "", reasonConfigError, err
	}
	in.Groups = volumeGroups(mounted)
	if in.Devices, err = devices(in.Spec.Container, mounted); err != nil {
		return "", reasonConfigError, err
	}
	in.Users = a.ranges.Of(pod.UID)
	config, err := criconf.Container(in)
	if err != nil {
		return "", reasonConfigError, err
	}
	sandbox, _ := a.sandboxConfig(pod, sb.Attempt)
	logs := filepath.Join(sandbox.GetLogDirectory(), in.Spec.Name)
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return "", reasonConfigError, err
	}
	a.rotator.Prune(logs, in.Attempt)
	if id, err = a.cfg.Runtime.CreateContainer(ctx, sb.ID, config, sandbox); err != nil {
		return "", reasonCreateError, err
	}
	a.rotator.Add(id, filepath.Join(sandbox.GetLogDirectory(), config.GetLogPath()))
	return id, "", nil
}

// envFolders are the folders of the volumes from which the container takes variables, by name.
func (a *Agent) envFolders(ctx context.Context, in criconf.ContainerInput) (map[string]string, error) {
	folders := map[string]string{}
	for _, v := range in.Spec.Env {
		if v.ValueFrom == nil || v.ValueFrom.FileKeyRef == nil {
			continue
		}
		mounted, err := a.volumes.Setup(ctx, in.Pod)
		if err != nil {
			return nil, err
		}
		folders[v.ValueFrom.FileKeyRef.VolumeName] = mounted[v.ValueFrom.FileKeyRef.VolumeName].Path
	}
	return folders, nil
}

// mounts are the container's volumes, its hosts file and the file for its last words.
func (a *Agent) mounts(ctx context.Context, in criconf.ContainerInput, mounted map[string]volume.Mounted) ([]*runtimeapi.Mount, error) {
	values := map[string]string{}
	for _, e := range in.Env {
		values[e.Name] = e.Value
	}
	var list []*runtimeapi.Mount
	hosts := false
	for _, m := range in.Spec.VolumeMounts {
		if m.SubPathExpr != "" {
			unknown := ""
			m.SubPath = criconf.Expand(m.SubPathExpr, func(n string) (string, bool) {
				v, ok := values[n]
				if !ok {
					unknown = n
				}
				return v, ok
			})
			if unknown != "" {
				return nil, fmt.Errorf("failed to expand subPath for volumeMount %q of container %q: missing value for %q", m.Name, in.Spec.Name, unknown)
			}
		}
		if ref, ok := in.VolumeImages[m.Name]; ok {
			list = append(list, criconf.ImageMount(m, ref, imageReference(in.Pod, m.Name)))
			continue
		}
		path, err := a.volumes.Resolve(ctx, in.Pod, in.Spec.Name, m)
		if err != nil {
			return nil, err
		}
		hosts = hosts || m.MountPath == "/etc/hosts"
		mount := criconf.Mount(m, path, mounted[m.Name].ReadOnly)
		mount.MountOptions = mounted[m.Name].Options
		list = append(list, mount)
	}
	dir := a.cfg.podDir(in.Pod.UID)
	if !hosts {
		list = append(list, &runtimeapi.Mount{ContainerPath: "/etc/hosts", HostPath: a.hostsFile(in.Pod)})
	}
	if p := in.Spec.TerminationMessagePath; p != "" {
		file := filepath.Join(dir, "containers", in.Spec.Name, strconv.Itoa(int(in.Attempt)))
		if err := freshFile(file, 0o666); err != nil {
			return nil, err
		}
		list = append(list, &runtimeapi.Mount{ContainerPath: p, HostPath: file})
	}
	return list, nil
}

// freshFile makes an empty file that others may write.
func freshFile(path string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(mode), f.Close())
}

func (w *worker) startContainer(name string) func(context.Context) func() {
	c, a := w.facts.Containers[name], w.a
	id := c.ID
	return func(ctx context.Context) func() {
		err := a.cfg.Runtime.StartContainer(ctx, id)
		st, lookErr := a.look(ctx, id)
		return func() {
			if st != nil {
				w.observeContainer(st)
			}
			if err == nil {
				w.containerEvent(name, corev1.EventTypeNormal, "Started", "Container started")
				if lookErr != nil {
					w.log.Warn("look at a started container", "container", name, "error", lookErr)
				}
				return
			}
			w.containerEvent(name, corev1.EventTypeWarning, "Failed", "Error: "+text(err))
			if c := w.facts.Containers[name]; c.State == podstate.Created {
				w.containerTrouble(name, reasonRunError, text(err), w.retry(name))
			}
		}
	}
}

// look asks the runtime how an instance is; nil if it is not there.
func (a *Agent) look(ctx context.Context, id string) (*runtimeapi.ContainerStatus, error) {
	resp, err := a.cfg.Runtime.ContainerStatus(context.WithoutCancel(ctx), id, false)
	if err != nil {
		return nil, err
	}
	return resp.GetStatus(), nil
}

func (w *worker) target(name string) probe.Target {
	spec, _ := podstate.Find(w.pod, name)
	t := probe.Target{Container: spec.Container, ContainerID: w.facts.Containers[name].ID}
	if ips := w.facts.IPs(w.pod); len(ips) > 0 {
		t.IP = ips[0]
	}
	return t
}

func (w *worker) postStart(name string) func(context.Context) func() {
	t, a := w.target(name), w.a
	return func(ctx context.Context) func() {
		if t.Container.Lifecycle == nil || t.Container.Lifecycle.PostStart == nil {
			return nil
		}
		hook := t.Container.Lifecycle.PostStart
		err := a.handlers.Hook(ctx, a.cfg.Clock, hook, t)
		return func() {
			if c := w.facts.Containers[name]; err != nil && ctx.Err() == nil && c.ID == t.ContainerID {
				w.log.Info("postStart failed", "container", name, "error", err)
				w.containerEvent(name, corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed: "+text(err))
				c.HookError = text(err)
			}
		}
	}
}

// stop runs preStop and stops the container, both within the grace.
func (w *worker) stop(act podstate.Action) func(context.Context) func() {
	t, a, name := w.target(act.Container), w.a, act.Container
	id := t.ContainerID
	w.containerEvent(name, corev1.EventTypeNormal, "Killing", act.Message)
	return func(ctx context.Context) func() {
		left := act.Grace
		var hookErr error
		if act.PreStop {
			began := a.cfg.Clock.Now()
			hookCtx, cancel := context.WithTimeout(ctx, left)
			hookErr = a.handlers.Hook(hookCtx, a.cfg.Clock, t.Container.Lifecycle.PreStop, t)
			cancel()
			left = max(left-a.cfg.Clock.Now().Sub(began), 2*time.Second)
		}
		err := ctx.Err()
		if err == nil {
			err = a.cfg.Runtime.StopContainer(ctx, id, int64((left+time.Second-1)/time.Second))
		}
		st, lookErr := a.look(ctx, id)
		if err == nil && st.GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING {
			err = errors.New("it runs on although the runtime has stopped it")
		}
		if err != nil && ctx.Err() == nil {
			timer := a.cfg.Clock.NewTimer(time.Second)
			defer timer.Stop()
			select {
			case <-timer.C():
			case <-ctx.Done():
			}
		}
		return func() {
			if hookErr != nil {
				w.log.Info("preStop failed", "container", name, "error", hookErr)
				w.containerEvent(name, corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed: "+text(hookErr))
			}
			if err != nil {
				w.log.Warn("stop a container", "container", name, "error", err)
			}
			switch {
			case st != nil:
				w.observeContainer(st)
			case status.Code(lookErr) == codes.NotFound:
				w.facts.Lost(name, a.cfg.Clock.Now())
			}
		}
	}
}
