package podstate

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// A scenario file is a Pod, a line "---", and steps with what they lead to. A step is a line that begins with "> "; what follows it is the
// trace: the actions as they are taken, and the status at rest. Actions other than pulls, starts and stops succeed at once. With -update the
// traces are written anew.
var update = os.Getenv("UPDATE_SCENARIOS") != ""

func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			head, script, ok := strings.Cut(string(raw), "---\n")
			if !ok {
				t.Fatal("no line --- between Pod and steps")
			}
			s := newSim(t, head)
			var got strings.Builder
			for line := range strings.Lines(script) {
				if step, ok := strings.CutPrefix(strings.TrimSpace(line), "> "); ok {
					s.trace = nil
					s.do(step)
					fmt.Fprintf(&got, "> %s\n%s", step, strings.Join(s.trace, ""))
				}
			}
			if update {
				if err := os.WriteFile(file, []byte(head+"---\n"+got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := gocmp.Diff(script, got.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// sim is a node that does what is decided, and lets the script say how it goes.
type sim struct {
	t     *testing.T
	pod   *corev1.Pod
	f     *Facts
	now   time.Time
	old   corev1.PodStatus
	trace []string
	ids   int
	hold  map[string]bool // actions that do not succeed by themselves: "pull a", "run sandbox"
	live  map[string]string
}

func newSim(t *testing.T, pod string) *sim {
	s := &sim{t: t, pod: &corev1.Pod{}, now: time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC), hold: map[string]bool{}, live: map[string]string{}}
	if err := yaml.UnmarshalStrict([]byte(pod), s.pod); err != nil {
		t.Fatal(err)
	}
	s.pod.UID, s.pod.Namespace = types.UID("u"), "ns"
	s.f = New(s.pod, s.now)
	s.f.HostIPs = []string{"192.0.2.1"}
	return s
}

func (s *sim) say(format string, args ...any) {
	s.trace = append(s.trace, fmt.Sprintf("  "+format+"\n", args...))
}

// do takes one step of the script.
func (s *sim) do(step string) {
	w := strings.Fields(step)
	arg := func(i int) string {
		if i >= len(w) {
			s.t.Fatalf("step %q: a word is missing", step)
		}
		return w[i]
	}
	switch w[0] {
	case "start":
	case "wait":
		d, err := time.ParseDuration(arg(1))
		if err != nil {
			s.t.Fatal(err)
		}
		s.now = s.now.Add(d)
	case "hold":
		s.hold[strings.Join(w[1:], " ")] = true
	case "exit":
		code, err := strconv.Atoi(arg(2))
		if err != nil {
			s.t.Fatal(err)
		}
		s.exit(arg(1), int32(code))
	case "pause-dies":
		s.f.Sandbox.Ready = false
	case "delete":
		at, grace := metav1.NewTime(s.now), int64(30)
		if len(w) > 1 {
			grace, _ = strconv.ParseInt(w[1], 10, 64)
		}
		s.pod.DeletionTimestamp, s.pod.DeletionGracePeriodSeconds = &at, &grace
	case "gone":
		s.f.Gone = true
	case "reboot": // the node's memory is lost, the API's is not
		s.pod.Status, s.live = s.old, map[string]string{}
		s.f = New(s.pod, s.now)
		s.f.HostIPs = []string{"192.0.2.1"}
		for name := range s.f.Containers {
			s.f.Lost(name, s.now)
		}
	case "carob-dies": // what was written down is all that is known
		raw, err := json.Marshal(s.f)
		if err != nil {
			s.t.Fatal(err)
		}
		s.f = &Facts{}
		if err := json.Unmarshal(raw, s.f); err != nil {
			s.t.Fatal(err)
		}
		s.f.HostIPs = []string{"192.0.2.1"}
	case "pruned": // the runtime has lost what is left of an ended instance
		if s.live[arg(1)] != "" {
			s.t.Fatalf("%s runs", arg(1))
		}
		s.f.Lost(arg(1), s.now)
	case "rest":
		s.f.RestingSince = s.now
	case "wake": // the next agent's life
		s.f.RestingSince = time.Time{}
	case "done": // an action that was held succeeds
		s.finish(strings.Join(w[1:], " "))
	case "fails":
		c := s.f.Containers[arg(2)]
		c.Busy, c.ImageRef = "", ""
		c.Trouble = &Trouble{Reason: arg(3), Message: "why", RetryAt: s.now.Add(10 * time.Second)}
	case "probe":
		s.probe(arg(1), arg(2), arg(3) == "ok")
	case "hook-fails":
		s.f.Containers[arg(1)].Busy, s.f.Containers[arg(1)].HookError = "", "why"
	case "limit": // memory of a container, granted at once
		for _, list := range [][]corev1.Container{s.pod.Spec.InitContainers, s.pod.Spec.Containers} {
			for i := range list {
				if list[i].Name == arg(1) {
					list[i].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(arg(2))}
				}
			}
		}
		s.pod.Generation++
		s.f.Granted, s.f.Resizing = Asked(s.pod), &Resizing{Generation: s.pod.Generation}
	case "resize-fails":
		s.f.Busy = ""
		s.f.Resizing.Error, s.f.Resizing.RetryAt = arg(1), s.now.Add(10*time.Second)
	case "image":
		s.pod.Spec.Containers[0].Image = arg(1)
	default:
		s.t.Fatalf("no step %q", step)
	}
	s.settle()
}

func (s *sim) probe(kind, name string, ok bool) {
	r, c := Failure, s.f.Containers[name]
	if ok {
		r = Success
	}
	switch kind {
	case "startup":
		c.Startup = r
	case "liveness":
		c.Liveness = r
	case "readiness":
		c.Readiness = r
	}
}

func (s *sim) exit(name string, code int32) {
	c := s.f.Containers[name]
	reason := "Completed"
	if code != 0 {
		reason = "Error"
	}
	delete(s.live, name)
	if !s.f.Observe(Seen{Name: name, ID: c.ID, State: Exited, Code: code, Reason: reason, FinishedAt: s.now}) {
		s.t.Fatalf("%s did not run", name)
	}
}

// settle decides until there is nothing more to do, and tells the status.
func (s *sim) settle() {
	for range 200 {
		s.f.Advance(s.pod, s.now)
		st := Status(s.pod, s.f, &s.old, s.now)
		s.f.StatusWritten = true
		s.old = st
		d := Decide(s.pod, s.f, s.now)
		if len(d.Actions) == 0 {
			s.tell(d)
			return
		}
		for _, a := range d.Actions {
			s.f.Begin(a)
		}
		for _, a := range d.Actions {
			if a.Verb == Forget {
				s.say("%s", a.Verb)
				return
			}
			s.act(a)
		}
	}
	s.t.Fatal("it never comes to rest")
}

func (s *sim) act(a Action) {
	name := strings.TrimSpace(string(a.Verb) + " " + a.Container)
	extra := ""
	if a.Verb == Stop {
		extra = fmt.Sprintf(" within %v: %s", a.Grace, a.Message)
		if a.PreStop {
			extra = fmt.Sprintf(" after preStop%s", extra)
		}
	}
	if a.Verb == Create {
		extra = fmt.Sprintf(" #%d", s.f.Containers[a.Container].Attempt)
	}
	if a.Verb == Create || a.Verb == Stop || a.Container == "" || a.Verb == Cancel || a.Verb == Hook || s.hold[name] {
		s.say("%s%s", name, extra)
	}
	if a.Verb == Cancel {
		if a.Container == "" {
			s.f.Busy = ""
		} else {
			s.f.Containers[a.Container].Busy = ""
		}
		return
	}
	if !s.hold[name] {
		s.finish(name)
	}
}

func (s *sim) finish(what string) {
	verb, name, _ := strings.Cut(what, " ")
	if strings.HasSuffix(what, " sandbox") || what == string(DeleteObject) {
		verb, name = what, ""
	}
	if name != "" {
		s.f.Containers[name].Busy = ""
	} else {
		s.f.Busy = ""
	}
	switch Verb(verb) {
	case Prepare:
		s.f.Prepared = true
		have := PodAmounts(s.pod)
		s.f.Applied = &have
	case Resize:
		of, containers := s.f.Changes(s.pod)
		steps, _ := Steps(of, containers)
		for _, c := range steps {
			s.say("  %s: memory %d to %d", cmp.Or(c.Container, "pod"), c.From.MemoryLimit>>20, c.To.MemoryLimit>>20)
			s.f.Resized(c)
		}
	case RunSandbox:
		s.f.Sandbox = &Sandbox{ID: fmt.Sprintf("sb%d", s.f.NextAttempt), Attempt: s.f.NextAttempt, Ready: true, IPs: []string{fmt.Sprintf("10.0.0.%d", s.f.NextAttempt+1)}}
		s.f.NextAttempt++
	case StopSandbox:
		for n := range s.live {
			if s.f.Containers[n].State == Running {
				s.exit(n, 137)
			}
			delete(s.live, n)
		}
		s.f.Sandbox.Ready, s.f.Sandbox.Stopped = false, true
	case Release:
		s.f.Released = true
	case Remove:
		s.f.Removed = true
		if s.f.Sandbox != nil {
			s.f.Sandbox.Ready, s.f.Sandbox.Stopped = false, true
		}
	case DeleteObject:
		s.f.Gone = true
	case Pull:
		s.f.Containers[name].ImageRef, s.f.Containers[name].Trouble = "image", nil
	case Create:
		s.ids++
		c := s.f.Containers[name]
		if s.live[name] != "" {
			s.t.Fatalf("two copies of %s", name)
		}
		c.ID, c.State, c.Creating = fmt.Sprintf("%s-%d", name, c.Attempt), Created, false
		spec, _ := Find(s.pod, name)
		c.Hooked = spec.Lifecycle == nil || spec.Lifecycle.PostStart == nil
		s.live[name] = c.ID
	case Start:
		c := s.f.Containers[name]
		s.f.Observe(Seen{Name: name, ID: c.ID, State: Running, StartedAt: s.now})
	case Stop:
		if s.live[name] != "" && s.f.Containers[name].State == Running { // a runtime has nothing to stop in what never started
			s.exit(name, 143)
		}
	}
}

// tell writes the status at rest.
func (s *sim) tell(d Decision) {
	line := string(s.old.Phase)
	if s.old.Reason != "" {
		line += "(" + s.old.Reason + ")"
	}
	for _, c := range s.old.Conditions {
		if c.Type == corev1.PodScheduled {
			continue
		}
		line += fmt.Sprintf(" %s=%s", c.Type, c.Status)
		if c.Reason != "" {
			line += "(" + c.Reason + ")"
		}
	}
	s.say("%s", line)
	for _, list := range [][]corev1.ContainerStatus{s.old.InitContainerStatuses, s.old.ContainerStatuses, s.old.EphemeralContainerStatuses} {
		for _, cs := range list {
			state := "?"
			switch {
			case cs.State.Running != nil:
				state = "running"
			case cs.State.Waiting != nil:
				state = "waiting " + cs.State.Waiting.Reason
			case cs.State.Terminated != nil:
				state = fmt.Sprintf("%s(%d)", cs.State.Terminated.Reason, cs.State.Terminated.ExitCode)
			}
			line := fmt.Sprintf("%s: %s restarts=%d ready=%v", cs.Name, state, cs.RestartCount, cs.Ready)
			if t := cs.LastTerminationState.Terminated; t != nil {
				line += fmt.Sprintf(" last=%s(%d)", t.Reason, t.ExitCode)
			}
			s.say("%s", line)
		}
	}
	if !d.Next.IsZero() {
		s.say("looks again in %v", d.Next.Sub(s.now))
	}
}
