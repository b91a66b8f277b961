package server

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/agent/measure"
	"carob.dev/carob/internal/agent/podstate"
	"carob.dev/carob/internal/agent/probe"
)

const (
	idleTimeout     = 4 * time.Hour
	creationTimeout = remotecommand.DefaultStreamCreationTimeout
)

// View is what is known of a Pod at one moment. It is not to be changed.
type View struct {
	Pod       *corev1.Pod
	Status    *corev1.PodStatus
	SandboxID string
	// Logs tells of each container which instances have logs.
	Logs map[string]Instances
}

// Instances are numbers of instances of a container; -1 for none.
type Instances struct {
	Newest, Previous int32
	// RunningID is the ID of the newest if it runs.
	RunningID string
}

// Pods finds the Pods of this node.
type Pods interface {
	// View is that of the named Pod; with uid, only of that very one.
	View(namespace, name string, uid types.UID) (View, bool)
	Views() []View
}

// Config is what the server needs.
type Config struct {
	Pods    Pods
	Runtime cri.RuntimeService
	Images  cri.ImageManagerService
	// Streaming may be nil: exec, attach and port-forward are refused then.
	Streaming streaming.Runtime
	LogsDir   string
	// HostLogs is the folder that /logs/ shows; /var/log when empty.
	HostLogs string
	Meter    *measure.Meter
	// Probes are the results that /metrics/probes tells.
	Probes *probe.Results
	// Settings are what /configz tells.
	Settings kubeletconfig.KubeletConfiguration
	// CPUs and Memory, in bytes, are the machine's.
	CPUs   int
	Memory int64
	// Version is the Kubernetes version, as in v1.37.2.
	Version string
	Log     *slog.Logger
	Clock   clock.Clock
}

type server struct{ Config }

// New returns the handler.
func New(cfg Config) http.Handler {
	if cfg.HostLogs == "" {
		cfg.HostLogs = "/var/log"
	}
	s := &server{Config: cfg}
	mux := http.NewServeMux()
	for _, path := range []string{"", "/ping", "/syncloop"} {
		mux.HandleFunc("GET /healthz"+path, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	}
	mux.HandleFunc("GET /configz", s.configz)
	mux.HandleFunc("GET /pods", s.pods)
	mux.HandleFunc("GET /pods/{$}", s.pods)
	mux.HandleFunc("GET /runningpods/", s.runningPods)
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.logs)
	for _, path := range []string{"{namespace}/{pod}/{container}", "{namespace}/{pod}/{uid}/{container}"} {
		mux.HandleFunc("/exec/"+path, s.exec)
		mux.HandleFunc("/attach/"+path, s.attach)
		mux.HandleFunc("POST /run/"+path, s.run)
	}
	mux.HandleFunc("/portForward/{namespace}/{pod}", s.portForward)
	mux.HandleFunc("/portForward/{namespace}/{pod}/{uid}", s.portForward)
	mux.HandleFunc("POST /checkpoint/{namespace}/{pod}/{container}", s.checkpoint)
	mux.Handle("GET /logs/", http.StripPrefix("/logs/", http.FileServer(http.Dir(cfg.HostLogs))))
	mux.HandleFunc("GET /stats/summary", s.summary)
	mux.HandleFunc("GET /metrics", s.ownMetrics)
	mux.HandleFunc("GET /metrics/resource", s.resourceMetrics)
	mux.HandleFunc("GET /metrics/probes", s.probeMetrics)
	mux.HandleFunc("GET /metrics/cadvisor", s.runtimeMetrics)
	return mux
}

func (s *server) view(w http.ResponseWriter, r *http.Request) (View, bool) {
	v, ok := s.Pods.View(r.PathValue("namespace"), r.PathValue("pod"), types.UID(r.PathValue("uid")))
	if !ok {
		http.Error(w, fmt.Sprintf("pod %q does not exist", r.PathValue("pod")), http.StatusNotFound)
	}
	return v, ok
}

func (s *server) pods(w http.ResponseWriter, _ *http.Request) {
	list := corev1.PodList{}
	list.Kind, list.APIVersion = "PodList", "v1"
	for _, v := range s.Pods.Views() {
		pod := v.Pod.DeepCopy()
		pod.Status = *v.Status
		list.Items = append(list.Items, *pod)
	}
	answer(w, list)
}

// runningPods tells those that have running containers, and of them no more than that.
func (s *server) runningPods(w http.ResponseWriter, _ *http.Request) {
	list := corev1.PodList{}
	list.Kind, list.APIVersion = "PodList", "v1"
	for _, v := range s.Pods.Views() {
		pod := corev1.Pod{}
		pod.Name, pod.Namespace, pod.UID = v.Pod.Name, v.Pod.Namespace, v.Pod.UID
		for _, spec := range podstate.Containers(v.Pod) {
			if v.Logs[spec.Name].RunningID != "" {
				pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: spec.Name, Image: spec.Image})
			}
		}
		if len(pod.Spec.Containers) > 0 {
			list.Items = append(list.Items, pod)
		}
	}
	answer(w, list)
}

// configz tells the node's settings, in kubelet's form.
func (s *server) configz(w http.ResponseWriter, _ *http.Request) {
	settings := s.Settings
	settings.APIVersion, settings.Kind = kubeletconfig.SchemeGroupVersion.String(), "KubeletConfiguration"
	answer(w, map[string]any{"kubeletconfig": settings})
}

func answer(w http.ResponseWriter, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(raw)
}

// running finds the running instance that a request is about.
func (s *server) running(w http.ResponseWriter, r *http.Request) (id string, v View, ok bool) {
	if v, ok = s.view(w, r); !ok {
		return "", v, false
	}
	if id = v.Logs[r.PathValue("container")].RunningID; id == "" {
		http.Error(w, fmt.Sprintf("container not found (%q)", r.PathValue("container")), http.StatusNotFound)
		return "", v, false
	}
	if s.Streaming == nil {
		http.Error(w, "this node cannot stream", http.StatusNotImplemented)
		return "", v, false
	}
	return id, v, true
}

func (s *server) exec(w http.ResponseWriter, r *http.Request) {
	id, v, ok := s.running(w, r)
	if !ok {
		return
	}
	opts, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	remotecommand.ServeExec(w, r, calls{s.Streaming}, v.Pod.Name, string(v.Pod.UID), id, r.URL.Query()[corev1.ExecCommandParam], opts,
		idleTimeout, creationTimeout, remotecommand.SupportedStreamingProtocols)
}

func (s *server) attach(w http.ResponseWriter, r *http.Request) {
	id, v, ok := s.running(w, r)
	if !ok {
		return
	}
	opts, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	remotecommand.ServeAttach(w, r, calls{s.Streaming}, v.Pod.Name, string(v.Pod.UID), id, opts, idleTimeout, creationTimeout,
		remotecommand.SupportedStreamingProtocols)
}

func (s *server) portForward(w http.ResponseWriter, r *http.Request) {
	v, ok := s.view(w, r)
	if !ok {
		return
	}
	if v.SandboxID == "" || s.Streaming == nil {
		http.Error(w, fmt.Sprintf("pod %q has no sandbox to forward to", r.PathValue("pod")), http.StatusNotFound)
		return
	}
	opts, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	portforward.ServePortForward(w, r, calls{s.Streaming}, v.SandboxID, string(v.Pod.UID), opts, idleTimeout, creationTimeout, portforward.SupportedProtocols)
}

// run executes a command and answers with what it printed.
func (s *server) run(w http.ResponseWriter, r *http.Request) {
	id, _, ok := s.running(w, r)
	if !ok {
		return
	}
	out, errOut, err := s.Runtime.ExecSync(r.Context(), id, r.URL.Query()["cmd"], 0)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Write(append(out, errOut...))
}

// checkpoint has the runtime write down a running container's memory; a runtime that cannot is an error that says so.
func (s *server) checkpoint(w http.ResponseWriter, r *http.Request) {
	v, ok := s.view(w, r)
	if !ok {
		return
	}
	name := r.PathValue("container")
	id := v.Logs[name].RunningID
	if id == "" {
		http.Error(w, fmt.Sprintf("container %v not found in pod %v/%v", name, v.Pod.Namespace, v.Pod.Name), http.StatusNotFound)
		return
	}
	var timeout int64
	if all := r.URL.Query()["timeout"]; len(all) > 0 { // of several the last, as kubelet has it
		var err error
		if timeout, err = strconv.ParseInt(all[len(all)-1], 10, 64); err != nil {
			http.Error(w, "cannot parse value of timeout parameter", http.StatusNotFound)
			return
		}
	}
	location := filepath.Join(s.LogsDir, "..", "..", "checkpoints",
		fmt.Sprintf("checkpoint-%s_%s-%s-%s.tar", v.Pod.Name, v.Pod.Namespace, name, s.Clock.Now().Format(time.RFC3339)))
	err := os.MkdirAll(filepath.Dir(location), 0o700)
	if err == nil {
		err = s.Runtime.CheckpointContainer(r.Context(), &runtimeapi.CheckpointContainerRequest{ContainerId: id, Location: location, Timeout: timeout})
	}
	if err != nil {
		http.Error(w, fmt.Sprintf("checkpointing of %v/%v/%v failed (%v)", v.Pod.Namespace, v.Pod.Name, name, err), http.StatusInternalServerError)
		return
	}
	answer(w, map[string][]string{"items": {location}})
}

// calls is streaming.Runtime in the shape that the servers of the protocols want.
type calls struct{ r streaming.Runtime }

func (c calls) ExecInContainer(ctx context.Context, _, _, id string, cmd []string, in io.Reader, out, errOut io.WriteCloser, tty bool,
	resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	return c.r.Exec(ctx, id, cmd, in, out, errOut, tty, resize)
}

func (c calls) AttachContainer(ctx context.Context, _, _, id string, in io.Reader, out, errOut io.WriteCloser, tty bool,
	resize <-chan remotecommand.TerminalSize) error {
	return c.r.Attach(ctx, id, in, out, errOut, tty, resize)
}

func (c calls) PortForward(ctx context.Context, sandboxID, _ string, port int32, stream io.ReadWriteCloser) error {
	return c.r.PortForward(ctx, sandboxID, port, stream)
}

func notFound(err error) bool { return status.Code(err) == codes.NotFound }
