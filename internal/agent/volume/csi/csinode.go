package csi

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	storagev1 "k8s.io/api/storage/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"
)

// nodeIDAnnotation holds, on the Node, what each driver calls it.
const nodeIDAnnotation = "csi.volume.kubernetes.io/nodeid"

// tellOf tells the API of a driver: in this node's CSINode, and on the Node where the driver says where it stands.
func (n *Node) tellOf(ctx context.Context, d *driver) error {
	entry := storagev1.CSINodeDriver{Name: d.name, NodeID: d.info.GetNodeId()}
	topology := d.info.GetAccessibleTopology().GetSegments()
	entry.TopologyKeys = slices.Sorted(maps.Keys(topology))
	if most := d.info.GetMaxVolumesPerNode(); most > 0 {
		entry.Allocatable = &storagev1.VolumeNodeResources{Count: ptr.To(int32(min(most, 1<<31-1)))}
	}
	if err := n.markNode(ctx, d.name, d.info.GetNodeId(), topology); err != nil {
		return err
	}
	return n.changeCSINode(ctx, func(list []storagev1.CSINodeDriver) []storagev1.CSINodeDriver {
		return append(without(list, d.name), entry)
	})
}

// untell takes a driver out of this node's CSINode, unless it has registered again meanwhile.
func (n *Node) untell(ctx context.Context, name string) error {
	return n.changeCSINode(ctx, func(list []storagev1.CSINodeDriver) []storagev1.CSINodeDriver {
		if _, err := n.driver(name); err == nil {
			return list
		}
		return without(list, name)
	})
}

func without(list []storagev1.CSINodeDriver, name string) []storagev1.CSINodeDriver {
	return slices.DeleteFunc(slices.Clone(list), func(d storagev1.CSINodeDriver) bool { return d.Name == name })
}

// changeCSINode changes the drivers of this node's CSINode, which is made if it is missing.
func (n *Node) changeCSINode(ctx context.Context, change func([]storagev1.CSINodeDriver) []storagev1.CSINodeDriver) error {
	api := n.cfg.Client.StorageV1().CSINodes()
	err := retry.OnError(retry.DefaultBackoff, func(err error) bool { return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) }, func() error {
		o, err := api.Get(ctx, n.cfg.NodeName, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			node, err := n.cfg.Client.CoreV1().Nodes().Get(ctx, n.cfg.NodeName, metav1.GetOptions{})
			if err != nil {
				return err
			}
			o = &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: n.cfg.NodeName, OwnerReferences: []metav1.OwnerReference{
				{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}}, Spec: storagev1.CSINodeSpec{Drivers: change([]storagev1.CSINodeDriver{})}}
			_, err = api.Create(ctx, o, metav1.CreateOptions{})
			return err
		}
		if err != nil {
			return err
		}
		changed := o.DeepCopy()
		changed.Spec.Drivers = change(o.Spec.Drivers)
		if apiequality.Semantic.DeepEqual(o.Spec, changed.Spec) {
			return nil
		}
		_, err = api.Update(ctx, changed, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("write CSINode %s: %w", n.cfg.NodeName, err)
	}
	return nil
}

// markNode writes on the Node what a driver calls it and where it stands.
func (n *Node) markNode(ctx context.Context, driver, id string, topology map[string]string) error {
	node, err := n.cfg.Client.CoreV1().Nodes().Get(ctx, n.cfg.NodeName, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("look up node %s: %w", n.cfg.NodeName, err)
	}
	ids := map[string]string{}
	if raw := node.Annotations[nodeIDAnnotation]; raw != "" {
		if err := json.Unmarshal([]byte(raw), &ids); err != nil {
			n.cfg.Log.Warn("an annotation of the node cannot be read and is written anew", "annotation", nodeIDAnnotation, "error", err)
			ids = map[string]string{}
		}
	}
	same := ids[driver] == id
	for k, v := range topology {
		have, ok := node.Labels[k]
		if ok && have != v {
			return fmt.Errorf("detected topology value collision: driver reported %q:%q but existing label is %q:%q", k, v, k, have)
		}
		same = same && ok
	}
	if same {
		return nil
	}
	ids[driver] = id
	raw, err := json.Marshal(ids)
	if err != nil {
		return err
	}
	meta := map[string]any{"annotations": map[string]string{nodeIDAnnotation: string(raw)}}
	if len(topology) > 0 {
		meta["labels"] = topology
	}
	patch, err := json.Marshal(map[string]any{"metadata": meta})
	if err != nil {
		return err
	}
	if _, err := n.cfg.Client.CoreV1().Nodes().Patch(ctx, n.cfg.NodeName, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("write on node %s what driver %s says: %w", n.cfg.NodeName, driver, err)
	}
	return nil
}
