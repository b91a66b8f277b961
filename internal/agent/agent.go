package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/agent/criconf"
	"carob.dev/carob/internal/agent/eviction"
	"carob.dev/carob/internal/agent/idrange"
	"carob.dev/carob/internal/agent/imagegc"
	"carob.dev/carob/internal/agent/logs"
	"carob.dev/carob/internal/agent/measure"
	"carob.dev/carob/internal/agent/node"
	"carob.dev/carob/internal/agent/podstate"
	"carob.dev/carob/internal/agent/pressure"
	"carob.dev/carob/internal/agent/probe"
	"carob.dev/carob/internal/agent/pull"
	"carob.dev/carob/internal/agent/server"
	"carob.dev/carob/internal/agent/shutdown"
	"carob.dev/carob/internal/agent/static"
	"carob.dev/carob/internal/agent/volume/csi"
	"carob.dev/carob/internal/sys"
	"carob.dev/carob/internal/version"
)

// Agent is one node's. Make it with New and let it work with Run.
type Agent struct {
	cfg      Config
	puller   *pull.Puller
	handlers *probe.Handlers
	rotator  *logs.Rotator
	images   *imagegc.Collector
	machine  node.Machine
	handler  http.Handler
	meter    *measure.Meter
	pressure *pressure.Watcher
	shutdown *shutdown.Watcher
	probed   probe.Results
	node     *node.Node
	pods     cache.SharedIndexInformer
	services corelisters.ServiceLister
	own      informers.SharedInformerFactory

	// volumes, sources and ranges are set once Run has begun.
	volumes Volumes
	drivers atomic.Pointer[csi.Node]
	// inUse is held while the API is told which volumes are in use.
	inUse   sync.Mutex
	sources *followed
	ranges  *idrange.Ranges

	wg sync.WaitGroup

	nodes corelisters.NodeLister

	mu      sync.Mutex // guards workers, wishes and resting
	workers map[types.UID]*worker
	// wishes are changes of resources that wait for room.
	wishes map[types.UID]wish
	// resting says that all Pods are being put to rest, new ones too.
	resting bool

	statics *statics
	ips     atomic.Pointer[[]netip.Addr]
	// limited is what the limits of Pods depend on besides themselves.
	limited criconf.Node
	// began is when the agent was made: what was before, another one has told.
	began  time.Time
	levels *levels
}

// New returns an Agent. It reads what the machine has, and touches nothing.
func New(cfg Config) (*Agent, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	machine, err := node.ReadMachine(cfg.Root)
	if err != nil {
		return nil, err
	}
	a := &Agent{cfg: cfg, machine: machine, workers: map[types.UID]*worker{}, wishes: map[types.UID]wish{},
		puller: pull.New(cfg.Images, cfg.Recorder, cfg.Clock), handlers: probe.New(cfg.Runtime, cfg.kubernetesMinor())}
	a.ips.Store(&cfg.NodeIPs)
	a.levels, a.began = newLevels(), cfg.Clock.Now()
	kept := cfg.Reserved
	kept.Memory += eviction.HardReserve(cfg.Pressure.Thresholds, eviction.MemoryAvailable, machine.Memory)
	a.limited = criconf.Node{Total: machine.Memory, Unified: machine.Unified,
		Memory: criconf.Memory{Throttling: cfg.MemoryThrottling, Tiered: cfg.MemoryTiered, Allocatable: machine.Memory - kept.Memory}}
	if cfg.LimitedSwap {
		a.limited.Swap = machine.Swap
	}
	kept.Storage += eviction.HardReserve(cfg.Pressure.Thresholds, eviction.NodeFsAvailable, machine.Storage)
	a.node = node.New(node.Config{Name: cfg.NodeName, Client: cfg.Client, Images: cfg.Images, Runtime: cfg.Runtime, MaxPods: cfg.MaxPods,
		PodCIDR: cfg.PodCIDR, IPs: func() []netip.Addr { return *a.ips.Load() }, Port: cfg.Port, Machine: machine, KubernetesVersion: version.KubernetesVersion,
		Reserved: kept, Pressure: func() []corev1.NodeConditionType { return a.pressure.Conditions() }, ShuttingDown: func() bool { return a.Resting() || a.shutdown.Now() },
		RuntimeVersion: cfg.RuntimeName + "://" + cfg.RuntimeVersion, Recorder: cfg.Recorder, Log: cfg.Log, Clock: cfg.Clock, VolumesInUse: a.volumesInUse})
	self := &corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: cfg.NodeName, UID: types.UID(cfg.NodeName)}
	a.images = imagegc.New(imagegc.Config{Images: cfg.Images, Containers: cfg.ImageUsers, Policy: cfg.ImageGC, Recorder: cfg.Recorder,
		Node: self, Log: cfg.Log, Clock: cfg.Clock})
	a.statics = &statics{again: make(chan struct{}, 1), mirrors: map[string]*corev1.Pod{}, source: static.New(static.Config{Path: cfg.PodManifests,
		URL: cfg.PodManifestsURL, Kept: filepath.Join(cfg.Root, "manifests-url.yaml"), Node: cfg.NodeName, Log: cfg.Log, Clock: cfg.Clock,
		Write: func(path string, data []byte) error { return sys.WriteFileAtomic(path, data, 0o600) },
		Bad: func(from string, err error) {
			cfg.Recorder.Eventf(self, corev1.EventTypeWarning, "InvalidStaticPod", "The manifest %s cannot be used: %v", from, err)
		}})}
	a.rotator = logs.NewRotator(cfg.ContainerLogs, cfg.Runtime.ReopenContainerLog, cfg.Clock, cfg.Log)
	a.pods = podInformer(cfg.Client, cfg.NodeName)
	factory := cfg.Informers
	if factory == nil {
		a.own = informers.NewSharedInformerFactory(cfg.Client, 0)
		factory = a.own
	}
	a.services = factory.Core().V1().Services().Lister()
	a.nodes = factory.Core().V1().Nodes().Lister()
	a.meter = measure.New(measure.Config{Runtime: cfg.Runtime, Images: cfg.Images, NodeName: cfg.NodeName, Cgroups: cfg.CgroupNames, Root: cfg.Root,
		LogsDir: cfg.logsDir(), PodDir: cfg.podDir, Backed: a.backed, Log: cfg.Log, Clock: cfg.Clock})
	a.pressure = pressure.New(pressure.Config{Policy: cfg.Pressure, Meter: a.meter, Pods: a.measured, End: a.end, Free: a.free, Changed: a.node.Urgent,
		Recorder: cfg.Recorder, Node: self, Log: cfg.Log, Clock: cfg.Clock})
	a.shutdown = shutdown.New(shutdown.Config{Periods: cfg.ShutdownPeriods, Open: cfg.OpenLogin, Pods: a.endable, End: a.end, Told: a.told,
		Changed: a.node.Urgent, Recorder: cfg.Recorder, Node: self, Log: cfg.Log, Clock: cfg.Clock})
	a.handler = server.New(server.Config{Pods: a, Runtime: cfg.Runtime, Streaming: cfg.Streaming, LogsDir: cfg.logsDir(), Meter: a.meter, Probes: &a.probed,
		Settings: cfg.settings(), CPUs: machine.CPUs, Memory: machine.Memory, Version: version.KubernetesVersion, Log: cfg.Log, Clock: cfg.Clock})
	return a, nil
}

// podInformer follows the Pods that are assigned to the node.
func podInformer(client kubernetes.Interface, nodeName string) cache.SharedIndexInformer {
	mine := fields.OneTermEqualSelector("spec.nodeName", nodeName).String()
	api := client.CoreV1().Pods(metav1.NamespaceAll)
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = mine
			return api.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = mine
			return api.Watch(ctx, o)
		},
	}
	return cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(lw, client), &corev1.Pod{}, 0, cache.Indexers{})
}

// Handler serves kubelet's HTTP API: logs, exec, attach, port-forward, stats. It does not ask who calls: put it behind something that does.
func (a *Agent) Handler() http.Handler { return a.handler }

// Run works until ctx ends. It registers the node, takes up the Pods that run already, removes what belongs to none, and follows the API.
// What fails because ctx ended is no failure: the error is ctx's then.
func (a *Agent) Run(ctx context.Context) error {
	if err := a.run(ctx); ctx.Err() == nil {
		return err
	}
	return ctx.Err()
}

func (a *Agent) run(ctx context.Context) error {
	for _, dir := range []string{a.cfg.podsDir(), a.cfg.logsDir(), a.cfg.recordsDir()} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return fmt.Errorf("agent: %w", err)
		}
	}
	ranges, err := idrange.Open(a.cfg.podsDir())
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	a.ranges = ranges
	if err := a.qosCgroups(); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if a.limited.SwapControl, err = a.cfg.Cgroups.SwapControl(a.cfg.CgroupNames.Level(corev1.PodQOSGuaranteed)); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer a.wg.Wait()
	defer cancel()
	a.sources = newFollowed(ctx, a.cfg.Client, a.sourceChanged)
	defer a.sources.wg.Wait()
	defer cancel()
	a.volumes = a.cfg.Volumes
	if a.volumes == nil {
		if err := a.makeVolumes(ctx); err != nil {
			return fmt.Errorf("agent: %w", err)
		}
	}
	defer a.watchMemory()()
	a.wg.Go(func() { a.rotator.Run(ctx) })
	a.wg.Go(func() { a.watchRuntime(ctx) })
	failed := make(chan error, 1)
	if err := a.hear(ctx, failed); err != nil {
		return err
	}
	l, err := a.findLeft(ctx)
	if err != nil {
		return err
	}
	a.followStatics(ctx, l) // they need no API
	follow := a.followAPI
	if a.cfg.Standalone {
		follow = a.takeUp
	} else {
		a.wg.Go(func() { a.node.Run(ctx) })
	}
	if err := follow(ctx, l); err != nil {
		return err
	}
	a.wg.Go(func() { a.images.Run(ctx) })
	a.wg.Go(func() { a.pressure.Run(ctx) })
	if len(a.cfg.ShutdownPeriods) > 0 {
		a.wg.Go(func() { a.shutdown.Run(ctx) })
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-failed:
		return fmt.Errorf("agent: the runtime's events ended: %w", err)
	}
}

// followAPI waits for the API, takes up its Pods and follows them from then on, until ctx ends.
func (a *Agent) followAPI(ctx context.Context, l left) error {
	if a.own != nil {
		a.own.StartWithContext(ctx)
		a.wg.Go(func() { <-ctx.Done(); a.own.Shutdown() })
	} else {
		a.cfg.Informers.StartWithContext(ctx)
	}
	a.wg.Go(func() { a.pods.RunWithContext(ctx) })
	if !cache.WaitForCacheSync(ctx.Done(), a.pods.HasSynced, a.servicesSynced()) {
		return ctx.Err()
	}
	if err := a.takeUp(ctx, l); err != nil {
		return err
	}
	if _, err := a.pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { a.podChanged(ctx, obj) },
		UpdateFunc: func(_, obj any) { a.podChanged(ctx, obj) },
		DeleteFunc: a.podGone,
	}); err != nil {
		return fmt.Errorf("agent: follow Pods: %w", err)
	}
	a.missed()
	a.node.Up()
	return nil
}

// watchRuntime has the node look at its runtime whenever that goes away or comes back.
func (a *Agent) watchRuntime(ctx context.Context) {
	for {
		select {
		case <-a.cfg.RuntimeChanged:
			a.node.Poke()
		case <-ctx.Done():
			return
		}
	}
}

func (a *Agent) servicesSynced() cache.InformerSynced {
	if a.own != nil {
		return a.own.Core().V1().Services().Informer().HasSynced
	}
	return a.cfg.Informers.Core().V1().Services().Informer().HasSynced
}

// qosCgroups makes the levels that Pods' cgroups stand in.
func (a *Agent) qosCgroups() error {
	var all sys.Resources
	if r := a.cfg.Reserved.Memory; r > 0 {
		all.Memory = max(a.machine.Memory-r, 1)
	}
	if r := a.cfg.Reserved.PIDs; r > 0 {
		_, most, err := measure.Processes()
		if err != nil {
			return err
		}
		all.PIDs = max(most-r, 1)
	}
	for class, r := range map[corev1.PodQOSClass]sys.Resources{corev1.PodQOSGuaranteed: all, corev1.PodQOSBestEffort: {CPUShares: 2}, corev1.PodQOSBurstable: {}} {
		if err := a.cfg.Cgroups.Create(a.cfg.CgroupNames.Level(class), r); err != nil {
			return err
		}
	}
	return nil
}

// hear passes the runtime's events to the workers. When it returns, nothing that happens from then on is missed.
func (a *Agent) hear(ctx context.Context, failed chan error) error {
	ch := make(chan *runtimeapi.ContainerEventResponse, 256)
	established := make(chan struct{})
	ended := make(chan error, 1)
	var once sync.Once
	a.wg.Go(func() {
		ended <- a.cfg.Runtime.GetContainerEvents(ctx, ch, func(runtimeapi.RuntimeService_GetContainerEventsClient) { once.Do(func() { close(established) }) })
	})
	a.wg.Go(func() {
		for {
			select {
			case ev := <-ch:
				a.heard(ev)
			case err := <-ended:
				if ctx.Err() == nil {
					failed <- errors.Join(err, errEventsEnded)
				}
				return
			}
		}
	})
	select {
	case <-established:
		return nil
	case err := <-failed:
		return fmt.Errorf("agent: hear the runtime's events: %w", err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errEventsEnded = errors.New("no more events")

func (a *Agent) heard(ev *runtimeapi.ContainerEventResponse) {
	uid := types.UID(ev.GetPodSandboxStatus().GetMetadata().GetUid())
	if w := a.worker(uid); w != nil {
		w.post(func() { w.observe(ev.GetPodSandboxStatus(), ev.GetContainersStatuses()) })
	}
}

func (a *Agent) worker(uid types.UID) *worker {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.workers[uid]
}

// start makes the Pod's worker, unless there is one.
func (a *Agent) start(ctx context.Context, pod *corev1.Pod, f *podstate.Facts, known []*runtimeapi.PodSandboxStatusResponse, check bool) *worker {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.workers[pod.UID]; w != nil {
		return w
	}
	w := newWorker(a, pod, f)
	if w.static {
		if m := a.statics.mirror(fullName(pod)); m != nil {
			w.mirrored(m)
		}
	}
	if f == nil && pod.Status.StartTime == nil && pod.DeletionTimestamp == nil {
		a.judge(w)
	}
	if a.resting {
		w.rest()
	}
	if check || f == nil {
		w.adopt(known, f == nil)
	}
	a.workers[pod.UID] = w
	a.wg.Go(func() { w.run(ctx) })
	return w
}

func (a *Agent) podChanged(ctx context.Context, obj any) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	if static.IsMirror(pod) {
		a.mirrorChanged(pod, false)
		return
	}
	if w := a.worker(pod.UID); w != nil {
		w.post(func() { w.update(pod) })
		return
	}
	a.start(ctx, pod, nil, nil, false)
}

func (a *Agent) podGone(obj any) {
	if d, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = d.Obj
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	if static.IsMirror(pod) {
		a.mirrorChanged(pod, true)
		return
	}
	if w := a.worker(pod.UID); w != nil {
		w.post(func() {
			w.update(pod)
			w.facts.Gone = true
		})
	}
}

// missed finds the Pods that went between the first look and the following.
func (a *Agent) missed() {
	present := map[types.UID]bool{}
	for _, obj := range a.pods.GetStore().List() {
		present[obj.(*corev1.Pod).UID] = true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for uid, w := range a.workers {
		if !present[uid] && !w.static {
			w.post(func() { w.facts.Gone = true })
		}
	}
}

func (a *Agent) sourceChanged(uid types.UID) {
	if w := a.worker(uid); w != nil {
		w.post(w.sourceChanged)
	}
}

// forget drops a worker whose Pod is off the node.
func (a *Agent) forget(uid types.UID) {
	a.mu.Lock()
	delete(a.workers, uid)
	delete(a.wishes, uid)
	a.mu.Unlock()
	a.roomMade()
	a.sources.Unfollow(uid)
	a.puller.Forget(string(uid))
	a.probed.Forget(uid)
	a.statics.poke() // one of the same name may wait
}
