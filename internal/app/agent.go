package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/agent"
	"carob.dev/carob/internal/agent/admit"
	"carob.dev/carob/internal/agent/criconf"
	"carob.dev/carob/internal/agent/imagegc"
	"carob.dev/carob/internal/agent/logs"
	"carob.dev/carob/internal/agent/processes"
	"carob.dev/carob/internal/agent/server"
	"carob.dev/carob/internal/apiserver/inproc"
	"carob.dev/carob/internal/sys"
)

// apiIdentity is who the API server is to agents.
var apiIdentity = &user.DefaultInfo{Name: "system:kube-apiserver", Groups: []string{"system:masters"}}

// startAgent runs the node. The API server reaches the node's server within the process.
func (c *Carob) startAgent(context.Context) error {
	client, err := kubernetes.NewForConfig(c.api.ClientConfig("system:node:"+c.cfg.NodeName, "system:nodes"))
	if err != nil {
		return err
	}
	cfg, err := c.agentConfig(client, c.recorder("kubelet"))
	if err != nil {
		return err
	}
	if c.agent, err = agent.New(cfg); err != nil {
		return err
	}
	c.agentFrom = c.stages.count()
	if err := c.serveAgent(client); err != nil {
		return err
	}
	c.stages.run("node agent", c.agent.Run)
	c.stages.run("addresses of the node", c.followAddresses)
	c.stages.run("local volumes", c.local.Run)
	mux := http.NewServeMux()
	mux.Handle("/", c.agent.Handler())
	mux.HandleFunc("GET /carob/processes", c.serveProcesses)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ConnContext: inproc.ConnContext}
	go srv.Serve(c.agentListener)
	c.stages.onEnd("agent's server", srv.Close)
	return nil
}

// agentConfig is what an agent of these settings needs.
func (c *Carob) agentConfig(client kubernetes.Interface, recorder record.EventRecorder) (agent.Config, error) {
	policy, err := pressurePolicy(c.cfg.Node.Eviction)
	if err != nil {
		return agent.Config{}, err
	}
	kept, err := reserved(c.cfg.Node)
	if err != nil {
		return agent.Config{}, err
	}
	return agent.Config{
		NodeName: c.cfg.NodeName, Client: client, Informers: c.shared, Runtime: c.pods.runtime, Images: c.pods.images, Streaming: c.pods.streaming,
		RuntimeName: c.pods.name, RuntimeVersion: c.pods.version, RuntimeChanged: c.pods.changed, ImageUsers: c.pods.users,
		Root: c.cfg.Root, RunDir: c.cfg.RunDir(), MaxPods: c.cfg.MaxPods, MaxRestartPeriod: c.cfg.MaxContainerRestartPeriod, PodCIDR: nodeCIDR(c.cfg), NodeIPs: c.node,
		Security: admit.Security{UnsafeSysctls: c.cfg.AllowedUnsafeSysctls, AppArmor: sys.AppArmor()},
		ImageGC: imagegc.Policy{HighPercent: c.cfg.Images.HighPercent, LowPercent: c.cfg.Images.LowPercent, MinAge: c.cfg.Images.MinAge,
			MaxAge: c.cfg.Images.MaxAge},
		ContainerLogs: logs.Limits{MaxSize: c.cfg.ContainerLogs.MaxSize, MaxFiles: c.cfg.ContainerLogs.MaxFiles},
		PodManifests:  c.cfg.Static.Manifests, PodManifestsURL: c.cfg.Static.URL,
		ShutdownPeriods: shutdownPeriods(c.cfg.Node.Shutdown), OpenLogin: openLogin,
		LimitedSwap: c.cfg.Node.Memory.LimitedSwap, MemoryThrottling: c.cfg.Node.Memory.Throttling, MemoryTiered: c.cfg.Node.Memory.Tiered,
		Pressure: policy, Reserved: kept, PodMaxPIDs: c.cfg.Node.PodMaxPIDs, Port: c.cfg.Node.Bind.Port(), KubeletDir: c.cfg.Node.KubeletDir,
		CgroupNames: c.cgroupNames(), Recorder: recorder, Log: c.opt.Log.With("part", "agent"),
	}, nil
}

// serveAgent serves the agent's handler to others over TLS, if that is wanted: it asks the API server who they are and what they may do.
func (c *Carob) serveAgent(client kubernetes.Interface) error {
	if c.cfg.Node.Bind.Port() == 0 {
		return nil
	}
	log := c.opt.Log.With("part", "agent")
	guard := server.NewGuard(c.cfg.NodeName, client, c.pki.CACertPool, log)
	l, err := server.Listen(c.cfg.Node.Bind, c.pki.AgentServingCert().GetCertificate, guard.Wrap(c.agent.Handler()), log)
	if err != nil {
		return err
	}
	c.stages.run("node's server", l.Run)
	return nil
}

// cgroupNames are the names of Pods' cgroups.
func (c *Carob) cgroupNames() criconf.Cgroups {
	return criconf.Cgroups{Root: c.cfg.CgroupRoot(), Systemd: c.pods.systemd}
}

// inOurs says whether one of a process's cgroups is of this Carob, whoever made it.
func (c *Carob) inOurs(cgroups []string) bool {
	for _, top := range c.cgroupNames().Tops() {
		for _, g := range cgroups {
			if strings.HasPrefix(g, top+"/") {
				return true
			}
		}
	}
	return false
}

func (c *Carob) serveProcesses(w http.ResponseWriter, r *http.Request) {
	sandboxes, err := sandboxes(r.Context(), c.pods.runtime)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	pauses := map[int]bool{} // another runtime may have them in a cgroup of its own
	for _, s := range sandboxes {
		pauses[s.PausePID] = true
	}
	procs, err := sys.Processes(func(pid int, cgroups []string) bool {
		return pauses[pid] || c.inOurs(cgroups)
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	host := map[string]string{}
	for _, kind := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
		if id, err := os.Readlink("/proc/self/ns/" + kind); err == nil {
			host[kind] = id
		}
	}
	answer(w, processes.Build(c.cfg.NodeName, sandboxes, procs, host))
}

// sandboxes asks the runtime for what lives, with the pids that runtimes tell in their verbose answers.
func sandboxes(ctx context.Context, r cri.RuntimeService) ([]processes.Sandbox, error) {
	list, err := r.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{State: &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}})
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	containers, err := r.ListContainers(ctx, &runtimeapi.ContainerFilter{State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var out []processes.Sandbox
	for _, sb := range list {
		s := processes.Sandbox{UID: sb.Metadata.GetUid(), Namespace: sb.Metadata.GetNamespace(), Name: sb.Metadata.GetName(), Containers: map[string]string{}}
		if st, err := r.PodSandboxStatus(ctx, sb.Id, true); err == nil {
			s.PausePID = pidOf(st.Info)
		}
		for _, c := range containers {
			if c.PodSandboxId == sb.Id {
				s.Containers[c.Id] = c.Metadata.GetName()
			}
		}
		out = append(out, s)
	}
	return out, nil
}

func pidOf(info map[string]string) int {
	var v struct{ PID int }
	if json.Unmarshal([]byte(info["info"]), &v) == nil && v.PID != 0 {
		return v.PID
	}
	pid, _ := strconv.Atoi(info["pid"])
	return pid
}
