package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/agent/volume"
	"carob.dev/carob/internal/agent/volume/certificate"
	"carob.dev/carob/internal/agent/volume/csi"
)

// makeVolumes makes what mounts volumes, and has drivers heard until ctx ends.
func (a *Agent) makeVolumes(ctx context.Context) error {
	shown := a.cfg.Root
	if err := linkTo(a.cfg.KubeletDir, a.cfg.Root); err != nil {
		a.cfg.Log.Warn("CSI drivers must be told that the node's folder is "+a.cfg.Root, "wanted", a.cfg.KubeletDir, "error", err)
	} else if a.cfg.KubeletDir != "" {
		shown = a.cfg.KubeletDir
	}
	drivers, err := csi.New(csi.Config{NodeName: a.cfg.NodeName, Client: a.cfg.Client, Secret: a.sources.GetSecret, Token: a.cfg.token, Root: a.cfg.Root,
		Shown: shown, Changed: a.driversChanged, InUseChanged: a.tellVolumesInUse, Log: a.cfg.Log, Clock: a.cfg.Clock})
	if err != nil {
		return err
	}
	a.drivers.Store(drivers)
	a.volumes = volume.New(volume.Config{Dir: a.cfg.podsDir(), Sources: a.sources, Token: a.cfg.token, Allocatable: a.node.Allocatable,
		NodeLabels: a.nodeLabels, CSI: drivers, Bundles: certificate.NewBundles(ctx, a.cfg.Client, a.sourcesChanged),
		Certificates: certificate.NewIssuer(ctx, certificate.Config{Client: a.cfg.Client, NodeName: a.cfg.NodeName, Changed: a.sourceChanged,
			Event: a.volumeEvent, Clock: a.cfg.Clock}), Event: a.volumeEvent, Log: a.cfg.Log, Clock: a.cfg.Clock})
	a.wg.Go(func() {
		if err := drivers.Run(ctx); err != nil && ctx.Err() == nil {
			a.cfg.Log.Error("CSI drivers cannot register", "error", err)
		}
	})
	return nil
}

// linkTo makes name a symbolic link to root. A name that is something else already is left alone, and an error.
func linkTo(name, root string) error {
	if name == "" {
		return nil
	}
	have, err := os.Readlink(name)
	switch {
	case err == nil && have == root:
		return nil
	case err == nil:
		return fmt.Errorf("%s leads to %s", name, have)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s is there already and no link", name)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.Symlink(root, name)
}

// driversChanged has what may have failed for want of a driver tried again.
func (a *Agent) driversChanged() {
	a.sourcesChanged()
}

// sourcesChanged has every Pod look at its volumes anew.
func (a *Agent) sourcesChanged() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.workers {
		w.post(w.sourceChanged)
	}
}

func (a *Agent) volumesInUse() []corev1.UniqueVolumeName {
	if d := a.drivers.Load(); d != nil {
		return d.InUse()
	}
	return nil
}

// tellVolumesInUse writes which volumes are in use into the node's status at once.
func (a *Agent) tellVolumesInUse(ctx context.Context) error {
	a.inUse.Lock() // the later list must be the one that stays
	defer a.inUse.Unlock()
	list := a.volumesInUse()
	if list == nil {
		list = []corev1.UniqueVolumeName{}
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"volumesInUse": list}})
	if err != nil {
		return err
	}
	_, err = a.cfg.Client.CoreV1().Nodes().Patch(ctx, a.cfg.NodeName, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

func (a *Agent) nodeLabels() (map[string]string, error) {
	node, err := a.nodes.Get(a.cfg.NodeName)
	if err != nil {
		return nil, err
	}
	return node.Labels, nil
}

func (a *Agent) volumeEvent(pod *corev1.Pod, reason, message string) {
	a.cfg.Recorder.Event(pod, corev1.EventTypeWarning, reason, message)
}

// volumeGroups are the groups of a Pod's volumes, in order.
func volumeGroups(mounted map[string]volume.Mounted) []int64 {
	var groups []int64
	for _, m := range mounted {
		if m.Group != nil && !slices.Contains(groups, *m.Group) {
			groups = append(groups, *m.Group)
		}
	}
	slices.Sort(groups)
	return groups
}

// devices are the volumes that a container has as block devices.
func devices(c *corev1.Container, mounted map[string]volume.Mounted) ([]*runtimeapi.Device, error) {
	var list []*runtimeapi.Device
	for _, d := range c.VolumeDevices {
		m := mounted[d.Name]
		if m.Device == "" {
			return nil, fmt.Errorf("volume %q of container %q is no block device", d.Name, c.Name)
		}
		access := "mrw"
		if m.ReadOnly {
			access = "r"
		}
		list = append(list, &runtimeapi.Device{ContainerPath: d.DevicePath, HostPath: m.Device, Permissions: access})
	}
	return list, nil
}
