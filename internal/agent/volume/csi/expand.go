package csi

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// expand tells the driver that a volume has grown since its claim was last told of its size, and tells the claim.
func (n *Node) expand(ctx context.Context, r *request) error {
	size, told := r.PV.Spec.Capacity[corev1.ResourceStorage], r.Claim.Status.Capacity[corev1.ResourceStorage]
	if size.Cmp(told) <= 0 {
		return nil
	}
	secrets, err := n.secrets(ctx, r.PV.Spec.CSI.NodeExpandSecretRef)
	if err != nil {
		return err
	}
	staging := ""
	if r.driver.can(spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME) {
		staging = filepath.Join(n.cfg.Shown, stagePath(r.key, r.Name, r.Block))
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = r.driver.node.NodeExpandVolume(call, &spec.NodeExpandVolumeRequest{VolumeId: r.key.handle, VolumePath: filepath.Join(n.cfg.Shown, publishPath(r.Pod.UID, r.Name, r.Block)),
		StagingTargetPath: staging, CapacityRange: &spec.CapacityRange{RequiredBytes: size.Value()}, VolumeCapability: r.capability(), Secrets: secrets})
	if err != nil {
		return unwrapStatus(err)
	}
	return n.tellSize(ctx, r.Claim, size.String())
}

// tellSize writes a claim's new size into its status and drops what said that it was to grow.
func (n *Node) tellSize(ctx context.Context, claim *corev1.PersistentVolumeClaim, size string) error {
	drop := func(t corev1.PersistentVolumeClaimConditionType) map[string]any {
		return map[string]any{"type": t, "$patch": "delete"}
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": claim.UID},
		"status": map[string]any{"capacity": map[string]string{"storage": size}, "allocatedResourceStatuses": map[string]any{"storage": nil},
			"conditions": []any{drop(corev1.PersistentVolumeClaimFileSystemResizePending), drop(corev1.PersistentVolumeClaimResizing)}},
	})
	if err != nil {
		return err
	}
	_, err = n.cfg.Client.CoreV1().PersistentVolumeClaims(claim.Namespace).Patch(ctx, claim.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("tell claim %s/%s its size: %w", claim.Namespace, claim.Name, err)
	}
	return nil
}
