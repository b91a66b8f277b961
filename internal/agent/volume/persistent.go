package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/storage/ephemeral"
	storage "k8s.io/component-helpers/storage/volume"

	"carob.dev/carob/internal/agent/volume/csi"
)

// persistent is the volume behind a claim.
type persistent struct {
	pv       *corev1.PersistentVolume
	claim    *corev1.PersistentVolumeClaim
	readOnly bool
}

func (p persistent) block() bool {
	return p.pv.Spec.VolumeMode != nil && *p.pv.Spec.VolumeMode == corev1.PersistentVolumeBlock
}

// groupAnnotation is where a volume says to which group its files belong.
const groupAnnotation = "pv.beta.kubernetes.io/gid"

// claimError is why a claim leads to no volume, or not yet.
type claimError struct{ err error }

func (e *claimError) Error() string { return e.err.Error() }
func (e *claimError) Unwrap() error { return e.err }

// Pending says that some volume only waits for what others do: bind a claim, or attach a disk.
func Pending(err error) bool {
	var claim *claimError
	var attach *csi.AttachError
	return errors.As(err, &claim) || errors.As(err, &attach)
}

// Attaching says that all that fails is that volumes are not attached yet, which takes its time.
func Attaching(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return !slices.ContainsFunc(joined.Unwrap(), func(e error) bool { return !Attaching(e) })
	}
	var attach *csi.AttachError
	return errors.As(err, &attach)
}

// claimOf finds the volume that is bound to the claim of vol; false if vol has none.
func (v *Volumes) claimOf(ctx context.Context, pod *corev1.Pod, vol *corev1.Volume) (p persistent, ok bool, err error) {
	name := ""
	switch {
	case vol.PersistentVolumeClaim != nil:
		name, p.readOnly = vol.PersistentVolumeClaim.ClaimName, vol.PersistentVolumeClaim.ReadOnly
	case vol.Ephemeral != nil:
		name = ephemeral.VolumeClaimName(pod, vol)
	default:
		return p, false, nil
	}
	wrong := func(err error) (persistent, bool, error) {
		return persistent{}, true, &claimError{fmt.Errorf("error processing PVC %s/%s: %w", pod.Namespace, name, err)}
	}
	if p.claim, err = v.cfg.Sources.GetPersistentVolumeClaim(ctx, pod.Namespace, name); err != nil {
		return wrong(fmt.Errorf("failed to fetch PVC from API server: %w", err))
	}
	if vol.Ephemeral != nil {
		if err := ephemeral.VolumeIsForPod(pod, p.claim); err != nil {
			return persistent{}, true, &claimError{err}
		}
	}
	switch c := p.claim; {
	case c.DeletionTimestamp != nil && !slices.Contains(c.Finalizers, "kubernetes.io/pvc-protection"):
		return wrong(errors.New("PVC is being deleted"))
	case c.Status.Phase != corev1.ClaimBound:
		return wrong(errors.New("PVC is not bound"))
	case c.Spec.VolumeName == "":
		return wrong(errors.New("PVC has empty pvc.Spec.VolumeName"))
	}
	pv := p.claim.Spec.VolumeName
	if p.pv, err = v.cfg.Sources.GetPersistentVolume(ctx, pv); err != nil {
		return wrong(fmt.Errorf("failed to fetch PV %s from API server: %w", pv, err))
	}
	if ref := p.pv.Spec.ClaimRef; ref == nil {
		return wrong(fmt.Errorf("found PV object %s but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim", pv))
	} else if ref.UID != p.claim.UID {
		return wrong(fmt.Errorf("found PV object %s but its pv.Spec.ClaimRef.UID %s does not point to claim.UID %s", pv, ref.UID, p.claim.UID))
	}
	mounted, device := usesOf(pod, vol.Name)
	switch {
	case mounted && p.block():
		return persistent{}, true, &claimError{fmt.Errorf("volume %s has volumeMode Block, but is specified in volumeMounts", vol.Name)}
	case device && !p.block():
		return persistent{}, true, &claimError{fmt.Errorf("volume %s has volumeMode Filesystem, but is specified in volumeDevices", vol.Name)}
	}
	return p, true, nil
}

// usesOf says how the Pod's containers use a volume.
func usesOf(pod *corev1.Pod, volume string) (mounted, device bool) {
	for _, c := range allContainers(pod) {
		mounted = mounted || slices.ContainsFunc(c.mounts, func(m corev1.VolumeMount) bool { return m.Name == volume })
		device = device || slices.ContainsFunc(c.devices, func(d corev1.VolumeDevice) bool { return d.Name == volume })
	}
	return mounted, device
}

// setupPersistent has the node show the volume behind a claim.
func (v *Volumes) setupPersistent(ctx context.Context, pod *corev1.Pod, p persistent) (Mounted, error) {
	if v.cfg.NodeLabels != nil {
		labels, err := v.cfg.NodeLabels()
		if err == nil {
			err = storage.CheckNodeAffinity(p.pv, labels)
		}
		if err != nil {
			return Mounted{}, &stepError{"MountVolume.NodeAffinity check", p.pv.Name, err}
		}
	}
	if err := v.alone(pod.UID, p); err != nil {
		return Mounted{}, err
	}
	m, err := v.mountPersistent(ctx, pod, p)
	if err != nil {
		return Mounted{}, err
	}
	m.ReadOnly = m.ReadOnly || p.readOnly
	if m.Device == "" {
		m.Options = restrictions(p.pv.Spec.MountOptions)
	}
	if group, err := strconv.ParseInt(p.pv.Annotations[groupAnnotation], 10, 64); err == nil {
		m.Group = &group
	}
	return m, nil
}

// restrictions are those of the mount options that an OCI runtime drops from a mount that it binds, unless it is told them.
func restrictions(options []string) []string {
	var list []string
	for _, some := range options {
		for o := range strings.SplitSeq(some, ",") {
			if slices.Contains([]string{"noexec", "nodev", "nosuid"}, o) && !slices.Contains(list, o) {
				list = append(list, o)
			}
		}
	}
	return list
}

func (v *Volumes) mountPersistent(ctx context.Context, pod *corev1.Pod, p persistent) (Mounted, error) {
	switch s := &p.pv.Spec; {
	case s.Local != nil && p.block():
		return blockDevice(s.Local.Path)
	case s.Local != nil:
		return v.setupLocal(pod, p)
	case s.HostPath != nil && p.block():
		return blockDevice(s.HostPath.Path)
	case s.HostPath != nil:
		return Mounted{Path: s.HostPath.Path}, setupHostPath(s.HostPath)
	case p.block() && s.CSI == nil:
		return Mounted{}, fmt.Errorf("persistent volume %s: this kind of volume has no block devices", p.pv.Name)
	case s.NFS != nil:
		return v.setupNFS(ctx, pod, p.pv.Name, s.NFS, s.MountOptions)
	case s.CSI != nil:
		return v.publish(ctx, csi.Request{Pod: pod, Name: p.pv.Name, PV: p.pv, Claim: p.claim, ReadOnly: p.readOnly, Block: p.block()})
	}
	return Mounted{}, fmt.Errorf("persistent volume %s: this kind of volume is not supported", p.pv.Name)
}

// alone refuses a second Pod a volume that only one may have, and notes who has which.
func (v *Volumes) alone(uid types.UID, p persistent) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	users := v.users[p.pv.Name]
	if slices.Contains(p.pv.Spec.AccessModes, corev1.ReadWriteOncePod) && slices.Contains(p.claim.Spec.AccessModes, corev1.ReadWriteOncePod) {
		for other := range users {
			if other != uid {
				return &claimError{errors.New("volume uses the ReadWriteOncePod access mode and is already in use by another pod")}
			}
		}
	}
	if users == nil {
		users = map[types.UID]bool{}
		v.users[p.pv.Name] = users
	}
	users[uid] = true
	return nil
}

// left notes that a Pod has no volumes any more.
func (v *Volumes) left(uid types.UID) {
	if v.cfg.Certificates != nil {
		v.cfg.Certificates.Forget(uid)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.pods, uid)
	delete(v.backed, uid)
	for pv, users := range v.users {
		if delete(users, uid); len(users) == 0 {
			delete(v.users, pv)
		}
	}
}
