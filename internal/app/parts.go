package app

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	agentpath "carob.dev/carob/internal/agent/localpath"
	"carob.dev/carob/internal/apiserver"
	"carob.dev/carob/internal/apiserver/inproc"
	"carob.dev/carob/internal/controller"
	"carob.dev/carob/internal/controller/localpath"
	"carob.dev/carob/internal/network"
	"carob.dev/carob/internal/runtime"
	"carob.dev/carob/internal/runtime/image"
	"carob.dev/carob/internal/runtime/image/login"
	"carob.dev/carob/internal/scheduler"
	"carob.dev/carob/internal/sys/systemd"
)

func parent(path string) string { return filepath.Dir(path) }

// openRuntime brings up what Pods are made of. The image store asks the runtime which images are in use, so the runtime comes last.
func (c *Carob) openRuntime(ctx context.Context) (err error) {
	logins, err := login.New(login.Config{File: c.cfg.Images.Logins, ProviderConfig: c.cfg.Images.ProviderConfig, ProviderDir: c.cfg.Images.ProviderDir,
		Log: c.opt.Log.With("part", "images")})
	if err != nil {
		return err
	}
	c.images, err = image.Open(ctx, image.Config{
		Dir: c.cfg.Path("images"), RegistryConfigDir: c.cfg.RegistryConfigDir, Log: c.opt.Log.With("part", "images"),
		Login: logins, Pinned: c.cfg.Images.Pinned, Parallel: c.cfg.Images.Downloads,
		InUse: func(id string) bool { return c.runtime != nil && c.runtime.UsesImage(id) },
	})
	if err != nil {
		return err
	}
	c.stages.onEnd("images", func() error { return closeQuietly(c.images) })
	if c.network, err = network.New(ctx, c.networkConfig()); err != nil {
		return err
	}
	c.stages.onEnd("network", c.network.Close)
	bySystemd := c.cfg.CgroupDriver == "systemd"
	if bySystemd {
		if err := systemd.Check(ctx); err != nil {
			return err
		}
	}
	c.runtime, err = runtime.New(ctx, runtime.Config{
		Root: c.cfg.Root, RunDir: c.cfg.RunDir(), CgroupRoot: c.cfg.CgroupRoot(), Systemd: bySystemd, Images: c.images, Network: c.network,
		OCIRuntimes: c.cfg.OCIRuntimes, CDISpecDirs: c.cfg.CDISpecDirs, WarmSandboxes: c.cfg.WarmSandboxes, Log: c.opt.Log.With("part", "runtime"),
	})
	if err != nil {
		return err
	}
	c.stages.onEnd("runtime", func() error { return c.runtime.Close(context.Background()) })
	c.pods = podRuntime{runtime: c.runtime, images: c.images, streaming: c.runtime.Streaming(), store: ownImages{c.images}, systemd: bySystemd}
	return nil
}

func closeQuietly(v any) error {
	switch v := v.(type) {
	case io.Closer:
		return v.Close()
	case interface{ Close(context.Context) error }:
		return v.Close(context.Background())
	}
	return nil
}

// startAPI serves the API. The agent's server is reached over an in-memory listener.
func (c *Carob) startAPI(ctx context.Context) (err error) {
	c.agentListener = inproc.NewListener()
	c.api, err = apiserver.New(ctx, apiserver.Config{
		Store: c.store, PKI: c.pki, Bind: c.cfg.APIBind, Advertise: []netip.Addr{c.node[0]}, ServiceCIDR: c.cfg.ServiceCIDR,
		NodeTransport: nodeTransport(c.cfg.NodeName, c.agentListener.Transport(apiIdentity, false)),
		Log:           c.opt.Log.With("part", "apiserver"),
	})
	if err != nil {
		return err
	}
	c.stages.run("API server", c.api.Run)
	select {
	case <-c.api.Ready():
		return nil
	case err := <-c.stages.failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// startControllers shares one set of informers among the controllers, the scheduler and this package.
func (c *Carob) startControllers(ctx context.Context) error {
	admin, err := kubernetes.NewForConfig(c.api.ClientConfig("system:carob", "system:masters"))
	if err != nil {
		return err
	}
	c.kube = admin
	informerClient, err := kubernetes.NewForConfig(c.api.ClientConfig("system:kube-controller-manager"))
	if err != nil {
		return err
	}
	c.shared = informers.NewSharedInformerFactoryWithOptions(informerClient, 0, informers.WithTransform(dropManagedFields))
	account := func(name string) *rest.Config {
		return c.api.ClientConfig("system:serviceaccount:kube-system:"+name, "system:serviceaccounts", "system:serviceaccounts:kube-system")
	}
	if c.recorder, err = c.recorders(); err != nil {
		return err
	}
	all, err := controller.All(controller.Config{
		ClientFor:   func(name string) (kubernetes.Interface, error) { return kubernetes.NewForConfig(account(name)) },
		MetadataFor: func(name string) (metadata.Interface, error) { return metadata.NewForConfig(account(name)) },
		Discovery:   admin.Discovery(), Informers: c.shared, RecorderFor: c.recorder, RootCA: c.pki.CA(), Sign: c.pki.Sign, Log: c.opt.Log.With("part", "controllers"),
	})
	if err != nil {
		return err
	}
	schedulerClient, err := kubernetes.NewForConfig(c.api.ClientConfig("system:kube-scheduler"))
	if err != nil {
		return err
	}
	sched, err := scheduler.New(scheduler.Config{
		Client: schedulerClient, Informers: c.shared, Recorder: c.recorder("default-scheduler"), Log: c.opt.Log.With("part", "scheduler"),
	})
	if err != nil {
		return err
	}
	provisioner, err := kubernetes.NewForConfig(account(localpath.Name))
	if err != nil {
		return err
	}
	c.local, err = agentpath.New(agentpath.Config{
		NodeName: c.cfg.NodeName, Folder: agentpath.Folder(c.cfg.Root), Client: provisioner, Informers: c.shared, Log: c.opt.Log.With("part", "agent"),
	})
	if err != nil {
		return err
	}
	c.shared.Core().V1().Nodes().Informer()
	c.shared.Core().V1().ServiceAccounts().Informer()
	informerCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c.shared.Start(informerCtx.Done())
	c.stages.onEnd("informers", func() error { cancel(); c.shared.Shutdown(); return nil })
	for _, r := range all {
		c.stages.run(r.Name(), r.Run)
	}
	c.stages.run("scheduler", sched.Run)
	return nil
}

// dropManagedFields keeps what no controller reads out of memory.
func dropManagedFields(o any) (any, error) {
	if a, err := meta.Accessor(o); err == nil {
		a.SetManagedFields(nil)
	}
	return o, nil
}

// recorders write events under each component's own name, through one broadcaster that drops events rather than hold anybody up.
func (c *Carob) recorders() (func(string) record.EventRecorder, error) {
	client, err := kubernetes.NewForConfig(c.api.ClientConfig("system:carob-events", "system:masters"))
	if err != nil {
		return nil, err
	}
	b := record.NewBroadcaster()
	sink := b.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	if c.opt.Events {
		b.StartEventWatcher(func(e *corev1.Event) {
			o := e.InvolvedObject
			c.opt.Tell(fmt.Sprintf("%s  %-7s %-18s %s  %s", time.Now().Format(time.TimeOnly), e.Type, e.Reason,
				strings.ToLower(o.Kind)+"/"+strings.TrimPrefix(o.Namespace+"/"+o.Name, "/"), e.Message))
		})
	}
	c.stages.onEnd("events", func() error { sink.Stop(); b.Shutdown(); return nil })
	return func(component string) record.EventRecorder {
		source := corev1.EventSource{Component: component}
		if component == "kubelet" {
			source.Host = c.cfg.NodeName
		}
		return b.NewRecorder(scheme.Scheme, source)
	}, nil
}

// waitFor returns once an object that the informer holds fits.
func (c *Carob) waitFor(ctx context.Context, informer cache.SharedIndexInformer, fits func(any) bool) error {
	found := make(chan struct{}, 1)
	look := func(o any) {
		if fits(o) {
			select {
			case found <- struct{}{}:
			default:
			}
		}
	}
	h, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: look, UpdateFunc: func(_, o any) { look(o) }})
	if err != nil {
		return err
	}
	defer informer.RemoveEventHandler(h)
	select {
	case <-found:
		return nil
	case err := <-c.stages.failed:
		return err
	case <-ctx.Done():
		return fmt.Errorf("waited in vain: %w", ctx.Err())
	}
}
