// Package controller starts the controllers: the loops that make children exist as their owners ask, and clean up after them.
//
// It imports client-go and the packages below it, one per controller. Invariants: controllers know the API only through client-go;
// each has its own identity; all share one set of informers, whose objects none of them changes.
package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/controller/accounttoken"
	"carob.dev/carob/internal/controller/attachdetach"
	"carob.dev/carob/internal/controller/certificates"
	"carob.dev/carob/internal/controller/clusterrole"
	"carob.dev/carob/internal/controller/deployment"
	"carob.dev/carob/internal/controller/endpointslice"
	"carob.dev/carob/internal/controller/ephemeralvolume"
	"carob.dev/carob/internal/controller/garbagecollector"
	"carob.dev/carob/internal/controller/localpath"
	"carob.dev/carob/internal/controller/namespace"
	"carob.dev/carob/internal/controller/nodelifecycle"
	"carob.dev/carob/internal/controller/podgc"
	"carob.dev/carob/internal/controller/replicaset"
	"carob.dev/carob/internal/controller/rootca"
	"carob.dev/carob/internal/controller/serviceaccount"
	"carob.dev/carob/internal/controller/volumebinder"
	"carob.dev/carob/internal/controller/volumeprotection"
)

// Config is what the controllers need. All fields but Clock are required.
type Config struct {
	// ClientFor returns the client that acts as the named controller (system:serviceaccount:kube-system:<name>). Client-side rate
	// limits must be off.
	ClientFor func(controller string) (kubernetes.Interface, error)
	// MetadataFor is ClientFor for metadata.
	MetadataFor func(controller string) (metadata.Interface, error)
	// Discovery must not cache: it is asked when the API has changed.
	Discovery discovery.DiscoveryInterface
	// Informers are shared and read-only. They are to be started after All has returned.
	Informers informers.SharedInformerFactory
	// RecorderFor returns the recorder of the named component's events.
	RecorderFor func(component string) record.EventRecorder
	// RootCA is the cluster's certificate authority in PEM.
	RootCA []byte
	// Sign signs certificates with the cluster's authority.
	Sign certificates.Sign
	Log  *slog.Logger
	// Clock is the real one if nil.
	Clock clock.WithTicker
}

// Runner is one controller.
type Runner interface {
	// Name is the name of its service account.
	Name() string
	// Run works until ctx ends, and returns once all that it started has ended.
	Run(ctx context.Context) error
}

// All makes all controllers. They do nothing before their Run, which waits for the informers.
func All(cfg Config) ([]Runner, error) {
	if cfg.ClientFor == nil || cfg.MetadataFor == nil || cfg.Discovery == nil || cfg.Informers == nil || cfg.RecorderFor == nil || cfg.Sign == nil || cfg.Log == nil {
		return nil, errors.New("controllers: clients, discovery, informers, recorders, signer and log are required")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	var all []Runner
	for _, c := range []struct {
		name string
		make func(client kubernetes.Interface) (Runner, error)
	}{
		{deployment.Name, cfg.deployment},
		{replicaset.Name, cfg.replicaSet},
		{replicaset.ReplicationName, cfg.replicationController},
		{garbagecollector.Name, cfg.garbageCollector},
		{namespace.Name, cfg.namespace},
		{serviceaccount.Name, cfg.serviceAccount},
		{rootca.Name, cfg.rootCA},
		{endpointslice.Name, cfg.endpointSlice},
		{podgc.Name, cfg.podGC},
		{nodelifecycle.Name, cfg.nodeLifecycle},
		{attachdetach.Name, cfg.attachDetach},
		{volumebinder.Name, cfg.volumeBinder},
		{volumeprotection.Name, cfg.volumeProtection},
		{ephemeralvolume.Name, cfg.ephemeralVolume},
		{localpath.Name, cfg.localPath},
		{clusterrole.Name, cfg.clusterRole},
		{accounttoken.Name, cfg.accountToken},
		{certificates.Name, cfg.certificates},
	} {
		client, err := cfg.ClientFor(c.name)
		if err != nil {
			return nil, fmt.Errorf("client of %s: %w", c.name, err)
		}
		r, err := c.make(client)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

func (cfg Config) deployment(client kubernetes.Interface) (Runner, error) {
	return deployment.New(deployment.Config{
		Client: client, Informers: cfg.Informers, Recorder: cfg.RecorderFor(deployment.Name), Log: cfg.Log, Clock: cfg.Clock,
	})
}

func (cfg Config) replicaSet(client kubernetes.Interface) (Runner, error) {
	return replicaset.New(replicaset.Config{
		Client: client, Informers: cfg.Informers, Recorder: cfg.RecorderFor(replicaset.Name), Log: cfg.Log, Clock: cfg.Clock,
	})
}

func (cfg Config) replicationController(client kubernetes.Interface) (Runner, error) {
	return replicaset.NewReplication(replicaset.Config{
		Client: client, Informers: cfg.Informers, Recorder: cfg.RecorderFor(replicaset.ReplicationName), Log: cfg.Log, Clock: cfg.Clock,
	})
}

func (cfg Config) garbageCollector(kubernetes.Interface) (Runner, error) {
	meta, err := cfg.MetadataFor(garbagecollector.Name)
	if err != nil {
		return nil, fmt.Errorf("metadata client of %s: %w", garbagecollector.Name, err)
	}
	return garbagecollector.New(garbagecollector.Config{
		Metadata: meta, Discovery: cfg.Discovery, Shared: shared(cfg.Informers), Log: cfg.Log, Clock: cfg.Clock,
	})
}

func (cfg Config) namespace(client kubernetes.Interface) (Runner, error) {
	meta, err := cfg.MetadataFor(namespace.Name)
	if err != nil {
		return nil, fmt.Errorf("metadata client of %s: %w", namespace.Name, err)
	}
	return namespace.New(namespace.Config{
		Client: client, Metadata: meta, Discovery: cfg.Discovery, Informers: cfg.Informers, Log: cfg.Log, Clock: cfg.Clock,
	})
}

func (cfg Config) serviceAccount(client kubernetes.Interface) (Runner, error) {
	return serviceaccount.New(serviceaccount.Config{Client: client, Informers: cfg.Informers, Log: cfg.Log, Clock: cfg.Clock})
}

func (cfg Config) rootCA(client kubernetes.Interface) (Runner, error) {
	return rootca.New(rootca.Config{Client: client, Informers: cfg.Informers, RootCA: cfg.RootCA, Log: cfg.Log, Clock: cfg.Clock})
}

func (cfg Config) endpointSlice(client kubernetes.Interface) (Runner, error) {
	return endpointslice.New(endpointslice.Config{
		Client: client, Informers: cfg.Informers, Recorder: cfg.RecorderFor(endpointslice.Name), Log: cfg.Log, Clock: cfg.Clock,
	})
}

func (cfg Config) podGC(client kubernetes.Interface) (Runner, error) {
	return podgc.New(podgc.Config{Client: client, Informers: cfg.Informers, Log: cfg.Log, Clock: cfg.Clock})
}

func (cfg Config) nodeLifecycle(client kubernetes.Interface) (Runner, error) {
	return nodelifecycle.New(nodelifecycle.Config{
		Client: client, Informers: cfg.Informers, Recorder: cfg.RecorderFor(nodelifecycle.Recorder), Log: cfg.Log, Clock: cfg.Clock,
	})
}

func (cfg Config) clusterRole(client kubernetes.Interface) (Runner, error) {
	return clusterrole.New(clusterrole.Config{Client: client, Informers: cfg.Informers, Log: cfg.Log, Clock: cfg.Clock})
}

func (cfg Config) attachDetach(client kubernetes.Interface) (Runner, error) {
	return attachdetach.New(attachdetach.Config{
		Client: client, Informers: cfg.Informers, Recorder: cfg.RecorderFor(attachdetach.Name), Log: cfg.Log, Clock: cfg.Clock,
	})
}

func (cfg Config) accountToken(client kubernetes.Interface) (Runner, error) {
	return accounttoken.New(accounttoken.Config{Client: client, Informers: cfg.Informers, RootCA: cfg.RootCA, Log: cfg.Log, Clock: cfg.Clock})
}

func (cfg Config) volumeBinder(client kubernetes.Interface) (Runner, error) {
	return volumebinder.New(volumebinder.Config{
		Client: client, Informers: cfg.Informers, Recorder: cfg.RecorderFor(volumebinder.Recorder), Log: cfg.Log, Clock: cfg.Clock,
	})
}

func (cfg Config) volumeProtection(client kubernetes.Interface) (Runner, error) {
	return volumeprotection.New(volumeprotection.Config{Client: client, Informers: cfg.Informers, Log: cfg.Log, Clock: cfg.Clock})
}

func (cfg Config) ephemeralVolume(client kubernetes.Interface) (Runner, error) {
	return ephemeralvolume.New(ephemeralvolume.Config{
		Client: client, Informers: cfg.Informers, Recorder: cfg.RecorderFor(ephemeralvolume.Recorder), Log: cfg.Log, Clock: cfg.Clock,
	})
}

func (cfg Config) localPath(client kubernetes.Interface) (Runner, error) {
	return localpath.New(localpath.Config{
		Client: client, Informers: cfg.Informers, Recorder: cfg.RecorderFor(localpath.Name), Log: cfg.Log, Clock: cfg.Clock,
	})
}

func (cfg Config) certificates(client kubernetes.Interface) (Runner, error) {
	return certificates.New(certificates.Config{Client: client, Informers: cfg.Informers, Sign: cfg.Sign, Log: cfg.Log, Clock: cfg.Clock})
}

// shared are the informers that the other controllers keep running, which the garbage collector then need not watch again.
func shared(f informers.SharedInformerFactory) map[schema.GroupVersionResource]cache.SharedIndexInformer {
	gvr := func(group, version, resource string) schema.GroupVersionResource {
		return schema.GroupVersionResource{Group: group, Version: version, Resource: resource}
	}
	core, apps, storage := f.Core().V1(), f.Apps().V1(), f.Storage().V1()
	return map[schema.GroupVersionResource]cache.SharedIndexInformer{
		gvr("", "v1", "namespaces"):                            core.Namespaces().Informer(),
		gvr("", "v1", "nodes"):                                 core.Nodes().Informer(),
		gvr("", "v1", "persistentvolumes"):                     core.PersistentVolumes().Informer(),
		gvr("", "v1", "persistentvolumeclaims"):                core.PersistentVolumeClaims().Informer(),
		gvr("storage.k8s.io", "v1", "csidrivers"):              storage.CSIDrivers().Informer(),
		gvr("storage.k8s.io", "v1", "csinodes"):                storage.CSINodes().Informer(),
		gvr("storage.k8s.io", "v1", "csistoragecapacities"):    storage.CSIStorageCapacities().Informer(),
		gvr("storage.k8s.io", "v1", "volumeattachments"):       storage.VolumeAttachments().Informer(),
		gvr("storage.k8s.io", "v1", "storageclasses"):          storage.StorageClasses().Informer(),
		gvr("storage.k8s.io", "v1", "volumeattributesclasses"): storage.VolumeAttributesClasses().Informer(),
		gvr("", "v1", "pods"):                                  core.Pods().Informer(),
		gvr("", "v1", "services"):                              core.Services().Informer(),
		gvr("", "v1", "serviceaccounts"):                       core.ServiceAccounts().Informer(),
		gvr("apps", "v1", "deployments"):                       apps.Deployments().Informer(),
		gvr("apps", "v1", "replicasets"):                       apps.ReplicaSets().Informer(),
		gvr(rbacv1.GroupName, "v1", "clusterroles"):            f.Rbac().V1().ClusterRoles().Informer(),
		gvr("coordination.k8s.io", "v1", "leases"):             f.Coordination().V1().Leases().Informer(),
		gvr("discovery.k8s.io", "v1", "endpointslices"):        f.Discovery().V1().EndpointSlices().Informer(),
		gvr("", "v1", "replicationcontrollers"):                core.ReplicationControllers().Informer(),
	}
}
