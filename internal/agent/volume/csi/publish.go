package csi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"carob.dev/carob/internal/agent/volume/mountpoint"
	"carob.dev/carob/internal/failpoint"
)

// Request is one Pod's need for a volume: a persistent one (PV and Claim) or one of the Pod's own (Inline).
type Request struct {
	Pod *corev1.Pod
	// Name is the persistent volume's name, or that of the volume in the Pod.
	Name   string
	PV     *corev1.PersistentVolume
	Claim  *corev1.PersistentVolumeClaim
	Inline *corev1.CSIVolumeSource
	// ReadOnly is what the Pod says, Block that it wants the device.
	ReadOnly, Block bool
}

// Published is a volume that a Pod has.
type Published struct {
	// Path is the folder or device.
	Path     string
	ReadOnly bool
	// Own says that the Pod's fsGroup is to be given the files; Fresh, that this call made the volume.
	Own, Fresh bool

	at    time.Time
	again bool
}

// request is a Request with what else is known of the volume.
type request struct {
	Request
	key        volumeKey
	attributes map[string]string
	fsType     string
	object     *storagev1.CSIDriver
	driver     *driver
}

// Publish has the volume staged, if its driver does that, and published for the Pod. It may be repeated, and does then what time has made
// necessary: tokens are renewed, and a volume that has grown is told so.
func (n *Node) Publish(ctx context.Context, in Request) (Published, error) {
	r := &request{Request: in}
	if in.PV != nil {
		s := in.PV.Spec.CSI
		r.key, r.attributes, r.fsType, r.ReadOnly = volumeKey{s.Driver, s.VolumeHandle}, s.VolumeAttributes, s.FSType, in.ReadOnly || s.ReadOnly
	} else {
		s := in.Inline
		r.key, r.attributes = volumeKey{s.Driver, "csi-" + digest(string(in.Pod.UID), in.Name)}, s.VolumeAttributes
		if s.FSType != nil {
			r.fsType = *s.FSType
		}
		r.ReadOnly = in.ReadOnly || s.ReadOnly != nil && *s.ReadOnly
	}
	var err error
	if r.driver, err = n.driver(r.key.driver); err != nil {
		if p, ok := n.asItWas(r); ok {
			return p, nil
		}
		return Published{}, err
	}
	n.mu.Lock()
	v := n.volume(r.key)
	n.mu.Unlock()
	v.turn.Lock()
	defer v.turn.Unlock()
	n.mu.Lock()
	old, known := v.published[in.Pod.UID]
	if n.volumes[r.key] != v { // taken away meanwhile
		n.volumes[r.key] = v
	}
	n.mu.Unlock()
	now := n.cfg.Clock.Now()
	if known && (!old.again || now.Before(old.at.Add(lookAgain))) {
		old.Fresh = false
		return old, nil
	}
	if r.object, err = n.driverObject(ctx, r.key.driver); err != nil {
		return Published{}, err
	}
	if err := r.checkMode(); err != nil {
		return Published{}, err
	}
	if err := n.mount(ctx, r, v, known); err != nil {
		return Published{}, err
	}
	out := Published{Path: filepath.Join(n.cfg.Root, publishPath(in.Pod.UID, in.Name, in.Block)), ReadOnly: r.ReadOnly, Own: r.ownsFiles(), at: now, Fresh: !known}
	out.again = r.object.Spec.RequiresRepublish != nil && *r.object.Spec.RequiresRepublish
	if in.PV != nil && r.driver.can(spec.NodeServiceCapability_RPC_EXPAND_VOLUME) {
		out.again = true
		if err := n.expand(ctx, r); err != nil {
			n.cfg.Log.Warn("tell a volume that it has grown", "volume", in.Name, "error", err)
		}
	}
	n.mu.Lock()
	v.published[in.Pod.UID] = out
	n.mu.Unlock()
	return out, nil
}

// asItWas is what an earlier life of the agent published, while its driver has yet to register again: the Pod has it still.
func (n *Node) asItWas(r *request) (Published, bool) {
	path := filepath.Join(n.cfg.Root, publishPath(r.Pod.UID, r.Name, r.Block))
	if rec, err := readRecord(filepath.Join(n.cfg.Root, publishRecordDir(r.Pod.UID, r.Name), recordName)); err != nil || rec.key() != r.key {
		return Published{}, false
	}
	if there, err := mountpoint.Is(path); err != nil || !there {
		return Published{}, false
	}
	return Published{Path: path, ReadOnly: r.ReadOnly}, true
}

// driverObject is what the API says of a driver; defaults if it says nothing.
func (n *Node) driverObject(ctx context.Context, name string) (*storagev1.CSIDriver, error) {
	o, err := n.cfg.Client.StorageV1().CSIDrivers().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return &storagev1.CSIDriver{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up CSIDriver %s: %w", name, err)
	}
	return o, nil
}

// checkMode refuses a way of use that the driver does not name.
func (r *request) checkMode() error {
	modes := r.object.Spec.VolumeLifecycleModes
	if len(modes) == 0 {
		modes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
	}
	want := storagev1.VolumeLifecyclePersistent
	if r.Inline != nil {
		want = storagev1.VolumeLifecycleEphemeral
	}
	if !slices.Contains(modes, want) {
		return fmt.Errorf("volume mode %q not supported by driver %s (only supports %q)", want, r.key.driver, modes)
	}
	return nil
}

// ownsFiles says whether the Pod's fsGroup is to be given the files.
func (r *request) ownsFiles() bool {
	policy := storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy
	if p := r.object.Spec.FSGroupPolicy; p != nil {
		policy = *p
	}
	switch {
	case r.Block, r.ReadOnly, r.driver.can(spec.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP), policy == storagev1.NoneFSGroupPolicy:
		return false
	case policy == storagev1.FileFSGroupPolicy:
		return true
	}
	return r.fsType != "" && r.PV != nil && slices.Contains(r.PV.Spec.AccessModes, corev1.ReadWriteOnce)
}

// mount writes the records and asks the driver.
func (n *Node) mount(ctx context.Context, r *request, v *volume, known bool) error {
	attach := r.PV != nil && (r.object.Spec.AttachRequired == nil || *r.object.Spec.AttachRequired)
	rec := record{Driver: r.key.driver, Handle: r.key.handle, NodeName: n.cfg.NodeName, SpecName: r.Name, PodUID: r.Pod.UID, Block: r.Block,
		Path: publishPath(r.Pod.UID, r.Name, r.Block), Lifecycle: string(storagev1.VolumeLifecyclePersistent)}
	if r.Inline != nil {
		rec.Lifecycle = string(storagev1.VolumeLifecycleEphemeral)
	}
	var device map[string]string
	if attach {
		rec.AttachmentID = AttachmentName(r.key.handle, r.key.driver, n.cfg.NodeName)
		var err error
		if device, err = n.attached(ctx, r.key, rec.AttachmentID); err != nil {
			return err
		}
	}
	if !known {
		if err := rec.write(filepath.Join(n.cfg.Root, publishRecordDir(r.Pod.UID, r.Name))); err != nil {
			return fmt.Errorf("write down what is about to be published: %w", err)
		}
		// Whoever detaches volumes must know that this one is in use before it is.
		if err := n.note(ctx, v, func() { v.pods[r.Pod.UID], v.attached = true, v.attached || attach }); err != nil {
			return err
		}
		failpoint.Hit("volume/csi/recorded")
	}
	capability := r.capability()
	staging := ""
	if r.PV != nil && r.driver.can(spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME) {
		staging = stagePath(r.key, r.Name, r.Block)
		if err := n.stage(ctx, r, v, rec, staging, capability, device); err != nil {
			return err
		}
		failpoint.Hit("volume/csi/staged")
		staging = filepath.Join(n.cfg.Shown, staging)
	}
	secrets, err := n.secrets(ctx, r.publishSecret())
	if err != nil {
		return err
	}
	about, err := n.context(ctx, r, secrets)
	if err != nil {
		return err
	}
	// The driver makes the mount point itself; its parent is there already.
	if err := os.MkdirAll(filepath.Dir(filepath.Join(n.cfg.Root, rec.Path)), 0o750); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = r.driver.node.NodePublishVolume(ctx, &spec.NodePublishVolumeRequest{VolumeId: r.key.handle, PublishContext: device, StagingTargetPath: staging,
		TargetPath: filepath.Join(n.cfg.Shown, rec.Path), VolumeCapability: capability, Readonly: r.ReadOnly, Secrets: secrets, VolumeContext: about})
	if err != nil {
		return unwrapStatus(err)
	}
	failpoint.Hit("volume/csi/published")
	return nil
}

// note changes what is known of a volume, and tells if InUse changes.
func (n *Node) note(ctx context.Context, v *volume, change func()) error {
	n.mu.Lock()
	before := v.attached
	change()
	n.untold = n.untold || before != v.attached
	tell := n.untold && n.cfg.InUseChanged != nil
	n.mu.Unlock()
	if !tell {
		return nil
	}
	err := n.cfg.InUseChanged(ctx)
	n.mu.Lock()
	n.untold = err != nil
	n.mu.Unlock()
	if err != nil {
		return fmt.Errorf("tell the API which volumes are in use: %w", err)
	}
	return nil
}

// attached returns what the attaching has told, once it is done.
func (n *Node) attached(ctx context.Context, key volumeKey, name string) (map[string]string, error) {
	a, err := n.cfg.Client.StorageV1().VolumeAttachments().Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err), apierrors.IsForbidden(err): // a node may not ask after what does not concern it, nor after nothing
		return nil, &AttachError{key.driver, key.handle, "nobody has begun"}
	case err != nil:
		return nil, fmt.Errorf("look up VolumeAttachment %s: %w", name, err)
	case a.DeletionTimestamp != nil:
		return nil, &AttachError{key.driver, key.handle, "it is being detached"}
	case !a.Status.Attached:
		reason := "the driver's attacher has not done it yet"
		if e := a.Status.AttachError; e != nil {
			reason = e.Message
		}
		return nil, &AttachError{key.driver, key.handle, reason}
	}
	return a.Status.AttachmentMetadata, nil
}

func (n *Node) stage(ctx context.Context, r *request, v *volume, rec record, path string, c *spec.VolumeCapability, device map[string]string) error {
	n.mu.Lock()
	staged := v.staged
	n.mu.Unlock()
	if staged {
		return nil
	}
	rec.PodUID, rec.Path = "", path
	if err := rec.write(filepath.Join(n.cfg.Root, stageRecordDir(r.key))); err != nil {
		return fmt.Errorf("write down what is about to be staged: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(n.cfg.Root, path), 0o750); err != nil {
		return err
	}
	secrets, err := n.secrets(ctx, r.PV.Spec.CSI.NodeStageSecretRef)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = r.driver.node.NodeStageVolume(ctx, &spec.NodeStageVolumeRequest{VolumeId: r.key.handle, PublishContext: device,
		StagingTargetPath: filepath.Join(n.cfg.Shown, path), VolumeCapability: c, Secrets: secrets, VolumeContext: r.attributes})
	if err != nil {
		return unwrapStatus(err)
	}
	n.mu.Lock()
	v.staged = true
	n.mu.Unlock()
	return nil
}

func (r *request) publishSecret() *corev1.SecretReference {
	switch {
	case r.PV != nil:
		return r.PV.Spec.CSI.NodePublishSecretRef
	case r.Inline.NodePublishSecretRef != nil:
		return &corev1.SecretReference{Name: r.Inline.NodePublishSecretRef.Name, Namespace: r.Pod.Namespace}
	}
	return nil
}

func (n *Node) secrets(ctx context.Context, ref *corev1.SecretReference) (map[string]string, error) {
	if ref == nil {
		return nil, nil
	}
	s, err := n.cfg.Secret(ctx, ref.Namespace, ref.Name)
	if err != nil {
		return nil, fmt.Errorf("secret %s/%s of the volume: %w", ref.Namespace, ref.Name, err)
	}
	out := map[string]string{}
	for k, v := range s.Data {
		out[k] = string(v)
	}
	return out, nil
}

// context is what the driver is told of the volume and, if it wants that, of the Pod and its tokens. Tokens that belong with the secrets are
// added to those.
func (n *Node) context(ctx context.Context, r *request, secrets map[string]string) (map[string]string, error) {
	about := maps.Clone(r.attributes)
	if about == nil {
		about = map[string]string{}
	}
	if s := r.object.Spec; s.PodInfoOnMount != nil && *s.PodInfoOnMount {
		about["csi.storage.k8s.io/pod.name"] = r.Pod.Name
		about["csi.storage.k8s.io/pod.namespace"] = r.Pod.Namespace
		about["csi.storage.k8s.io/pod.uid"] = string(r.Pod.UID)
		about["csi.storage.k8s.io/serviceAccount.name"] = r.Pod.Spec.ServiceAccountName
		about["csi.storage.k8s.io/ephemeral"] = fmt.Sprint(r.Inline != nil)
	}
	if len(r.object.Spec.TokenRequests) == 0 {
		return about, nil
	}
	if n.cfg.Token == nil {
		return nil, errors.New("service account tokens are not available")
	}
	tokens := map[string]authenticationv1.TokenRequestStatus{}
	for _, want := range r.object.Spec.TokenRequests {
		ask := authenticationv1.TokenRequestSpec{ExpirationSeconds: want.ExpirationSeconds, Audiences: []string{want.Audience},
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: r.Pod.Name, UID: r.Pod.UID}}
		if want.Audience == "" {
			ask.Audiences = nil
		}
		tok, err := n.cfg.Token(ctx, r.Pod, ask)
		if err != nil {
			return nil, fmt.Errorf("failed to fetch service account token: %w", err)
		}
		tokens[want.Audience] = *tok
	}
	raw, err := json.Marshal(tokens)
	if err != nil {
		return nil, err
	}
	about["csi.storage.k8s.io/serviceAccount.tokens"] = string(raw)
	return about, nil
}
