package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	cri "k8s.io/cri-api/pkg/apis"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/agent/admit"
	"carob.dev/carob/internal/agent/criconf"
	"carob.dev/carob/internal/agent/imagegc"
	"carob.dev/carob/internal/agent/logs"
	"carob.dev/carob/internal/agent/node"
	"carob.dev/carob/internal/agent/pressure"
	"carob.dev/carob/internal/agent/shutdown"
	"carob.dev/carob/internal/agent/volume"
	"carob.dev/carob/internal/sys"
	"carob.dev/carob/internal/version"
)

// Volumes makes and removes the volumes of Pods: package volume.
type Volumes interface {
	Setup(ctx context.Context, pod *corev1.Pod) (map[string]volume.Mounted, error)
	Resolve(ctx context.Context, pod *corev1.Pod, container string, mount corev1.VolumeMount) (string, error)
	Update(ctx context.Context, pod *corev1.Pod) error
	Teardown(ctx context.Context, uid types.UID) error
}

// Config is what an Agent needs. Fields without a note must be set.
type Config struct {
	NodeName string
	// Client acts as system:node:<NodeName>. Client-side rate limits must be off.
	Client kubernetes.Interface
	// Informers are shared ones whose Services the agent reads. Nil: it has its own.
	Informers informers.SharedInformerFactory
	Runtime   cri.RuntimeService
	Images    cri.ImageManagerService
	// RuntimeName and RuntimeVersion are those of the runtime, as the Node and container IDs tell them; carob's own when empty.
	RuntimeName, RuntimeVersion string
	// RuntimeChanged gets a value when the runtime goes away or comes back. Nil: it never does.
	RuntimeChanged <-chan struct{}
	// Streaming is exec, attach and port-forward. Nil: they are refused.
	Streaming streaming.Runtime
	// Root is the absolute folder for what outlives a reboot, RunDir that of this boot.
	Root, RunDir string
	MaxPods      int
	// MaxRestartPeriod is the longest wait between restarts of a container; 5 minutes when zero.
	MaxRestartPeriod time.Duration
	// PodCIDR is the node's range of Pod addresses; may be zero.
	PodCIDR netip.Prefix
	// NodeIPs are the node's addresses, the main one first.
	NodeIPs []netip.Addr
	// CgroupNames are the names of Pods' cgroups, as the runtime understands them.
	CgroupNames criconf.Cgroups
	// ClusterDNS and ClusterDomain are the cluster's resolver; empty while there is none.
	ClusterDNS    []string
	ClusterDomain string
	// ContainerLogs are the limits of each container's log; 10 MiB and 5 files when zero, as kubelet's.
	ContainerLogs logs.Limits
	// ImageGC says when unused images are removed; never when zero.
	ImageGC imagegc.Policy
	// ImageUsers lists the containers whose images stay: Runtime when nil; all of a runtime's where others use it too.
	ImageUsers imagegc.Containers
	// KubeletDir is the name by which CSI drivers know Root: a symbolic link to it, made if nothing is there. Empty: Root itself.
	KubeletDir string
	// Security is what Pods may ask of the kernel.
	Security admit.Security
	// SeccompDir is the absolute folder of seccomp profiles that Pods may name; Root/seccomp when empty.
	SeccompDir string
	// PodManifests is a folder of manifests of static Pods, or one, PodManifestsURL where to ask for some. Empty for none.
	PodManifests, PodManifestsURL string
	// Standalone says that there is no API server: only static Pods run, and nobody is told of them. Client is one that refuses everything.
	Standalone bool
	// ShutdownPeriods is how long Pods have when the machine is shut down, OpenLogin connects to who knows of that. Nobody waits for them when nil.
	ShutdownPeriods []shutdown.Period
	OpenLogin       func(context.Context) (shutdown.Manager, error)
	// LimitedSwap lets Burstable Pods swap, MemoryThrottling and MemoryTiered are those of criconf.Memory.
	LimitedSwap      bool
	MemoryThrottling float64
	MemoryTiered     bool
	// Pressure says when Pods are ended for want of something. Never when it has no thresholds.
	Pressure pressure.Policy
	// Reserved is what Pods never get of the node, beside what hard thresholds keep free. All Pods together are held to what it leaves.
	Reserved node.Reserved
	// PodMaxPIDs is how many processes and threads a Pod may have; 0 or less for no limit.
	PodMaxPIDs int64
	// Port is where the agent's server listens for others, as the Node tells it; 0 for nowhere.
	Port uint16
	// Recorder writes events as the component "kubelet" on this node.
	Recorder record.EventRecorder
	Log      *slog.Logger
	// Clock is the wall clock when nil.
	Clock clock.Clock
	// Volumes and Cgroups are the real ones when nil.
	Volumes Volumes
	Cgroups Cgroups
	// Memory is the kernel's when Cgroups is nil; else nil for none.
	Memory MemoryWatch
}

func (c *Config) check() error {
	switch {
	case c.NodeName == "" || c.CgroupNames.Root == "":
		return errors.New("agent: NodeName and CgroupNames.Root are needed")
	case c.Client == nil || c.Runtime == nil || c.Images == nil || c.Recorder == nil || c.Log == nil:
		return errors.New("agent: Client, Runtime, Images, Recorder and Log are needed")
	case !filepath.IsAbs(c.Root) || !filepath.IsAbs(c.RunDir):
		return errors.New("agent: Root and RunDir must be absolute")
	case len(c.NodeIPs) == 0:
		return errors.New("agent: the node needs an address")
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.ImageUsers == nil {
		c.ImageUsers = c.Runtime
	}
	if c.ContainerLogs == (logs.Limits{}) {
		c.ContainerLogs = logs.Limits{MaxSize: 10 << 20, MaxFiles: 5}
	}
	if c.ImageGC == (imagegc.Policy{}) {
		c.ImageGC = imagegc.Policy{HighPercent: 100, LowPercent: 100}
	}
	if c.MaxPods == 0 {
		c.MaxPods = 110
	}
	if err := admit.CheckSysctls(c.Security.UnsafeSysctls); err != nil {
		return fmt.Errorf("agent: allowed unsafe sysctls: %w", err)
	}
	if c.SeccompDir == "" {
		c.SeccompDir = filepath.Join(c.Root, "seccomp")
	}
	if c.ClusterDomain == "" {
		c.ClusterDomain = "cluster.local"
	}
	if c.RuntimeName == "" {
		c.RuntimeName, c.RuntimeVersion = "carob", version.Get().Version
	}
	if c.Cgroups == nil {
		if watch, err := sys.NewOOMWatch(); err == nil {
			c.Memory = watch
		} else {
			c.Log.Warn("processes that are killed for want of memory are not told of", "error", err)
		}
		c.Cgroups = kernelCgroups{}
		if c.CgroupNames.Systemd {
			c.Cgroups = systemdCgroups{}
		}
	}
	return nil
}

func (c *Config) podsDir() string             { return filepath.Join(c.Root, "pods") }
func (c *Config) podDir(uid types.UID) string { return filepath.Join(c.podsDir(), string(uid)) }
func (c *Config) logsDir() string             { return filepath.Join(c.Root, "logs", "pods") }
func (c *Config) recordsDir() string          { return filepath.Join(c.RunDir, "agent") }
func (c *Config) record(uid types.UID) string {
	return filepath.Join(c.recordsDir(), string(uid)+".json")
}
func (c *Config) kubernetesMinor() string { return minor(version.KubernetesVersion) }

// minor turns v1.37.2 into 1.37.
func minor(v string) string {
	dots := 0
	for i, r := range v {
		if r == '.' {
			if dots++; dots == 2 {
				v = v[:i]
				break
			}
		}
	}
	if len(v) > 0 && v[0] == 'v' {
		v = v[1:]
	}
	return v
}

// token asks the API for a service account token that is bound to the Pod.
func (c *Config) token(ctx context.Context, pod *corev1.Pod, spec authenticationv1.TokenRequestSpec) (*authenticationv1.TokenRequestStatus, error) {
	name := pod.Spec.ServiceAccountName
	if name == "" {
		name = "default"
	}
	resp, err := c.Client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, name, &authenticationv1.TokenRequest{Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	return &resp.Status, nil
}
