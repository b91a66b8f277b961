// Package localpath makes and removes the folders of the volumes that the local-path provisioner puts on this node, and tells the provisioner
// where they are.
//
// It may import sys, api/volume and client-go. Invariants: nothing but the folder <folder>/<volume's name> is ever made or removed, and only
// for a volume that says that it is this node's; a folder is removed only when the volume is deleted and nothing protects it any more, and
// only if nothing is mounted inside; the volume goes after its folder.
package localpath

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	storagehelpers "k8s.io/component-helpers/storage/volume"

	"carob.dev/carob/internal/api/volume"
	"carob.dev/carob/internal/sys"
)

// mode lets every user of a container write into a volume, whoever that is; the folder above it lets nobody else in.
const mode = 0o777

// The back-off after errors.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = time.Minute
)

// Config is what a Keeper needs. All fields are required.
type Config struct {
	NodeName string
	// Folder is the absolute path below which volumes are.
	Folder string
	// Client may patch the node, and update volumes.
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	Log       *slog.Logger
}

// Keeper keeps the folders. Make one with New, before the informers are started.
type Keeper struct {
	cfg     Config
	volumes corelisters.PersistentVolumeLister
	queue   workqueue.TypedRateLimitingInterface[string]
	synced  []cache.DoneChecker
}

// nodeKey is the key of the node itself; no volume has an empty name.
const nodeKey = ""

// New returns a Keeper that listens to the informers.
func New(cfg Config) (*Keeper, error) {
	if cfg.NodeName == "" || !filepath.IsAbs(cfg.Folder) || cfg.Client == nil || cfg.Informers == nil || cfg.Log == nil {
		return nil, errors.New("local paths: node, folder, client, informers and log are required")
	}
	core := cfg.Informers.Core().V1()
	k := &Keeper{
		cfg: cfg, volumes: core.PersistentVolumes().Lister(),
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](firstRetry, lastRetry)),
	}
	seen := func(o any) {
		switch o := o.(type) {
		case *corev1.PersistentVolume:
			if k.ours(o) {
				k.queue.Add(o.Name)
			}
		case *corev1.Node:
			if o.Name == cfg.NodeName && o.Annotations[volume.LocalPathFolder] != cfg.Folder {
				k.queue.Add(nodeKey)
			}
		}
	}
	for _, i := range []cache.SharedIndexInformer{core.PersistentVolumes().Informer(), core.Nodes().Informer()} {
		reg, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: seen, UpdateFunc: func(_, o any) { seen(o) }})
		if err != nil {
			return nil, fmt.Errorf("local paths: %w", err)
		}
		k.synced = append(k.synced, reg.HasSyncedChecker())
	}
	return k, nil
}

// ours says whether a volume is a folder of this node.
func (k *Keeper) ours(v *corev1.PersistentVolume) bool {
	return v.Annotations[storagehelpers.AnnDynamicallyProvisioned] == volume.LocalPathProvisioner &&
		v.Annotations[volume.LocalPathNode] == k.cfg.NodeName && v.Spec.Local != nil && v.Spec.Local.Path == filepath.Join(k.cfg.Folder, v.Name)
}

// Run works until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, k.queue.ShutDown)
	defer func() {
		if stop() {
			k.queue.ShutDown()
		}
	}()
	for _, s := range k.synced {
		select {
		case <-s.Done():
		case <-ctx.Done():
			return nil
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for k.next(ctx) {
		}
	})
	wg.Wait()
	return nil
}

func (k *Keeper) next(ctx context.Context) bool {
	key, closed := k.queue.Get()
	if closed {
		return false
	}
	defer k.queue.Done(key)
	if ctx.Err() != nil {
		return true
	}
	var err error
	if key == nodeKey {
		err = k.announce(ctx)
	} else {
		err = k.sync(ctx, key)
	}
	if err != nil && ctx.Err() == nil {
		if !apierrors.IsConflict(err) {
			k.cfg.Log.Warn("A volume's folder is not as it should be yet", "volume", key, "err", err)
		}
		k.queue.AddRateLimited(key)
		return true
	}
	k.queue.Forget(key)
	return true
}

// announce tells on the node where its volumes are.
func (k *Keeper) announce(ctx context.Context) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{volume.LocalPathFolder: k.cfg.Folder}}})
	if err != nil {
		return err
	}
	_, err = k.cfg.Client.CoreV1().Nodes().Patch(ctx, k.cfg.NodeName, types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return nil // it is seen again when it is back
	}
	return err
}

func (k *Keeper) sync(ctx context.Context, name string) error {
	v, err := k.volumes.Get(name)
	if apierrors.IsNotFound(err) || err == nil && !k.ours(v) {
		return nil
	}
	if err != nil {
		return err
	}
	switch todo := decide(v); todo {
	case makeFolder:
		return Make(k.cfg.Folder, v)
	case removeFolder, keepFolder:
		if todo == removeFolder {
			if err := remove(v.Spec.Local.Path); err != nil {
				return err
			}
		}
		v = v.DeepCopy()
		v.Finalizers = slices.DeleteFunc(v.Finalizers, func(f string) bool { return f == volume.LocalPathFinalizer })
		_, err := k.cfg.Client.CoreV1().PersistentVolumes().Update(ctx, v, metav1.UpdateOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	return nil
}

type step int

const (
	nothing step = iota
	makeFolder
	removeFolder
	keepFolder // and let the volume go
)

// decide says what is due for a volume of this node. What is retained stays on disk when its volume is deleted: it is its administrator's then.
func decide(v *corev1.PersistentVolume) step {
	switch {
	case v.DeletionTimestamp == nil:
		return makeFolder
	case !slices.Contains(v.Finalizers, volume.LocalPathFinalizer), slices.Contains(v.Finalizers, "kubernetes.io/pv-protection"):
		return nothing
	case v.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete:
		return keepFolder
	}
	return removeFolder
}

// Folder is where the volumes of a Carob are whose root is given.
func Folder(root string) string { return filepath.Join(root, "volumes") }

// Make makes the folder of a volume of the provisioner, if it is not there. It does nothing for any other volume, whatever that says of itself.
func Make(folder string, v *corev1.PersistentVolume) error {
	dir := filepath.Join(folder, v.Name)
	if v.Annotations[storagehelpers.AnnDynamicallyProvisioned] != volume.LocalPathProvisioner || v.Spec.Local == nil || v.Spec.Local.Path != dir {
		return nil
	}
	if info, err := os.Lstat(dir); err == nil && info.IsDir() {
		return nil
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("volume %s: %w", v.Name, err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("volume %s: %w", v.Name, err)
	}
	return os.Chmod(dir, mode) // whatever the umask says
}

// remove removes a folder and what is in it, but never what is mounted there.
func remove(dir string) error {
	mounts, err := sys.MountsBelow(dir)
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("%s is not removed while something is mounted inside: %s", dir, strings.Join(mounts, ", "))
	}
	return os.RemoveAll(dir)
}
