package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/sys"
)

// onlyPod is the name of the Pod that is alone.
const onlyPod = "pod"

// patience is how long anything is waited for.
const patience = 20 * time.Second

// facts are what the program knows of its Pod, written down before each step as an agent does.
type facts struct {
	// Step is the one that was begun last.
	Step int
	// IP is the Pod's address once it was told.
	IP string
}

// life is one Pod's. Each step may have been begun, and cut off anywhere, by an earlier process.
type life struct {
	*node
	name  string
	facts facts
}

// steps are what happens to the Pod, in order.
var steps = []func(*life, context.Context) error{
	(*life).sandbox,
	func(l *life, ctx context.Context) error { return l.create(ctx, "long", longCommand) },
	func(l *life, ctx context.Context) error { return l.start(ctx, "long") },
	func(l *life, ctx context.Context) error { return l.create(ctx, "short", shortCommand) },
	func(l *life, ctx context.Context) error { return l.start(ctx, "short") },
	(*life).exec,
	(*life).checkpoint,
	func(l *life, ctx context.Context) error { return l.ended(ctx, "short", 7) },
	(*life).stop,
	func(l *life, ctx context.Context) error { return l.remove(ctx, "short") },
	func(l *life, ctx context.Context) error { return l.end(ctx, false) },
	func(l *life, ctx context.Context) error { return l.end(ctx, true) },
}

// Each instance of a container writes a line when it begins. The long one ends with 5 when it is told to.
const (
	longCommand  = `trap 'exit 5' TERM; echo $0 >>/out/runs; while :; do sleep 0.01; done`
	shortCommand = `echo $0 >>/out/runs; exit 7`
)

func (l *life) dir() string  { return filepath.Join(l.cfg.Root, "lives", l.name) }
func (l *life) out() string  { return filepath.Join(l.dir(), "out") }
func (l *life) file() string { return filepath.Join(l.dir(), "facts.json") }

// note writes the facts with a plain rename: the helper of the product is a place where this program is killed.
func (l *life) note() error {
	raw, err := json.Marshal(l.facts)
	if err != nil {
		return err
	}
	if err := os.WriteFile(l.file()+".new", raw, 0o600); err != nil {
		return err
	}
	return os.Rename(l.file()+".new", l.file())
}

func (l *life) config() *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: l.name, Uid: "uid-" + l.name, Namespace: "default"}, Hostname: l.name,
		Labels: map[string]string{"life": l.name}, LogDirectory: filepath.Join(l.dir(), "logs"), PortMappings: l.ports(),
		Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: "/" + l.cfg.CgroupRoot() + "/kubepods/pod" + l.name, Sysctls: map[string]string{"kernel.shm_rmid_forced": "1"},
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}}}}
}

// ports are those of the Pod whose every step is looked at: two Pods cannot have the same.
func (l *life) ports() []*runtimeapi.PortMapping {
	if !l.port {
		return nil
	}
	return []*runtimeapi.PortMapping{{Protocol: runtimeapi.Protocol_TCP, HostPort: 8080, ContainerPort: 80}}
}

// find returns the Pod's sandbox with its containers, nil if there is none.
func (l *life) find(ctx context.Context) (*runtimeapi.PodSandboxStatusResponse, error) {
	list, err := l.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{"life": l.name}})
	switch {
	case err != nil:
		return nil, err
	case len(list) > 1:
		return nil, fmt.Errorf("%d sandboxes of one Pod", len(list))
	case len(list) == 0:
		return nil, nil
	}
	return l.PodSandboxStatus(ctx, list[0].Id, false)
}

func (l *life) have(ctx context.Context) (*runtimeapi.PodSandboxStatusResponse, error) {
	s, err := l.find(ctx)
	if err == nil && s == nil {
		err = errors.New("the sandbox is lost")
	}
	return s, err
}

func (l *life) container(ctx context.Context, name string) (*runtimeapi.ContainerStatus, error) {
	s, err := l.have(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range s.ContainersStatuses {
		if c.Metadata.Name == name {
			return c, nil
		}
	}
	return nil, nil
}

// sandbox makes it, or finds the one that was made before the answer could be heard. An address that was told stays.
func (l *life) sandbox(ctx context.Context) error {
	s, err := l.find(ctx)
	if err != nil {
		return err
	}
	if s == nil {
		if err := sys.CgroupCreate(l.config().Linux.CgroupParent, sys.Resources{}); err != nil {
			return err
		}
		if _, err := l.RunPodSandbox(ctx, l.config(), ""); err != nil {
			return err
		}
		if s, err = l.have(ctx); err != nil {
			return err
		}
	}
	l.facts.IP = s.Status.Network.Ip
	return l.note()
}

// ready holds that the sandbox is as it was told to be.
func (l *life) ready(ctx context.Context) (string, error) {
	s, err := l.have(ctx)
	switch {
	case err != nil:
		return "", err
	case s.Status.State != runtimeapi.PodSandboxState_SANDBOX_READY:
		return "", errors.New("the sandbox is not ready")
	case s.Status.Network.Ip != l.facts.IP || l.facts.IP == "":
		return "", fmt.Errorf("the address was %q and is %q", l.facts.IP, s.Status.Network.Ip)
	}
	if res, ok := l.network.Lookup(s.Status.Id); !ok || !res.Linked {
		return "", fmt.Errorf("a ready sandbox without lease or link: %+v, %v", res, ok)
	}
	return s.Status.Id, nil
}

func (l *life) create(ctx context.Context, name, script string) error {
	id, err := l.ready(ctx)
	if err != nil {
		return err
	}
	if c, err := l.container(ctx, name); err != nil || c != nil {
		return err
	}
	_, err = l.CreateContainer(ctx, id, &runtimeapi.ContainerConfig{Metadata: &runtimeapi.ContainerMetadata{Name: name}, LogPath: name + ".log",
		Image: &runtimeapi.ImageSpec{Image: busybox}, Command: []string{"sh", "-c", script, name},
		Mounts: []*runtimeapi.Mount{{HostPath: l.out(), ContainerPath: "/out"}},
		Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
			Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}}}}, l.config())
	return err
}

func (l *life) start(ctx context.Context, name string) error {
	if _, err := l.ready(ctx); err != nil {
		return err
	}
	c, err := l.container(ctx, name)
	switch {
	case err != nil:
		return err
	case c == nil:
		return fmt.Errorf("container %s is lost", name)
	case c.State == runtimeapi.ContainerState_CONTAINER_CREATED:
		if err := l.StartContainer(ctx, c.Id); err != nil {
			return err
		}
	}
	return wait(func() error {
		if slices.Contains(l.runs(), name) {
			return nil
		}
		return fmt.Errorf("container %s does not run", name)
	})
}

// runs are the instances that began.
func (l *life) runs() []string {
	raw, _ := os.ReadFile(filepath.Join(l.out(), "runs"))
	return strings.Fields(string(raw))
}

// once holds that no container began twice.
func (l *life) once() error {
	seen := map[string]bool{}
	for _, name := range l.runs() {
		if seen[name] {
			return fmt.Errorf("container %s ran twice", name)
		}
		seen[name] = true
	}
	return nil
}

func (l *life) exec(ctx context.Context) error {
	c, err := l.container(ctx, "long")
	if err != nil {
		return err
	}
	if c == nil || c.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return fmt.Errorf("the long container: %v", c)
	}
	out, _, err := l.ExecSync(ctx, c.Id, []string{"echo", "hello"}, 10*time.Second)
	if err == nil && string(out) != "hello\n" {
		err = fmt.Errorf("exec said %q", out)
	}
	return err
}

// ended waits for the end of a container and holds that its exit code is told.
func (l *life) ended(ctx context.Context, name string, codes ...int32) error {
	return wait(func() error {
		c, err := l.container(ctx, name)
		switch {
		case err != nil:
			return err
		case c == nil:
			return fmt.Errorf("container %s is lost", name)
		case c.State != runtimeapi.ContainerState_CONTAINER_EXITED:
			return fmt.Errorf("container %s is in state %v", name, c.State)
		case !slices.Contains(codes, c.ExitCode):
			return fmt.Errorf("container %s: exit code %d (%s %s), not of %v", name, c.ExitCode, c.Reason, c.Message, codes)
		}
		return nil
	})
}

func (l *life) stop(ctx context.Context) error {
	c, err := l.container(ctx, "long")
	if err != nil {
		return err
	}
	if c == nil {
		return errors.New("the long container is lost")
	}
	if err := l.StopContainer(ctx, c.Id, 10); err != nil {
		return err
	}
	return l.ended(ctx, "long", 5)
}

func (l *life) remove(ctx context.Context, name string) error {
	c, err := l.container(ctx, name)
	if err != nil || c == nil {
		return err
	}
	if err := l.RemoveContainer(ctx, c.Id); err != nil {
		return err
	}
	if c, err = l.container(ctx, name); err == nil && c != nil {
		err = fmt.Errorf("container %s was removed and is there", name)
	}
	return err
}

// end stops the sandbox and, with gone, removes it.
func (l *life) end(ctx context.Context, gone bool) error {
	s, err := l.find(ctx)
	if err != nil || s == nil {
		return err
	}
	if err := l.StopPodSandbox(ctx, s.Status.Id); err != nil {
		return err
	}
	if !gone {
		return l.ended(ctx, "long", 5, 137)
	}
	if err := l.RemovePodSandbox(ctx, s.Status.Id); err != nil {
		return err
	}
	if s, err = l.find(ctx); err == nil && s != nil {
		err = errors.New("the sandbox was removed and is there")
	}
	return err
}

// wait asks again until there is no error.
func wait(f func() error) error {
	for began := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		err := f()
		if err == nil || time.Since(began) > patience {
			return err
		}
	}
}
