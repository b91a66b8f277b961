package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/agent/volume/certificate"
	"carob.dev/carob/internal/agent/volume/csi"
)

// Sources reads the objects that volumes are made of. Errors are those of the API: a missing object is a NotFound.
type Sources interface {
	GetPersistentVolumeClaim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error)
	GetPersistentVolume(ctx context.Context, name string) (*corev1.PersistentVolume, error)
	GetConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	GetSecret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// Config is what Volumes needs. Dir, Sources and Log must be set.
type Config struct {
	// Dir is the folder of all Pods: <root>/pods.
	Dir     string
	Sources Sources
	// Token asks for a service account token for the Pod, bound to it. Nil: projected tokens are refused.
	Token func(ctx context.Context, pod *corev1.Pod, spec authenticationv1.TokenRequestSpec) (*authenticationv1.TokenRequestStatus, error)
	// Allocatable is what the node can give to Pods, for limits that a container leaves out. May be nil.
	Allocatable func() corev1.ResourceList
	// NodeLabels are those of this node, by which volumes tell where they can be used. Nil: volumes are not asked.
	NodeLabels func() (map[string]string, error)
	// CSI is the node's side of drivers. Nil: their volumes are refused.
	CSI *csi.Node
	// Bundles are the cluster's trust bundles, Certificates gets certificates for Pods. Nil: sources of these kinds are refused.
	Bundles      *certificate.Bundles
	Certificates *certificate.Issuer
	// Event writes a warning about a Pod. May be nil.
	Event func(pod *corev1.Pod, reason, message string)
	Log   *slog.Logger
	// Clock is the wall clock when nil.
	Clock clock.PassiveClock
}

// Mounted is one volume on the node.
type Mounted struct {
	// Path is the file or folder to mount into containers; empty for an image, which the runtime mounts, and for a device.
	Path string
	// Group is the group to which the volume's files belong, as whoever made it says; containers get it beside their own. Nil for none.
	Group *int64
	// Device is the block device that the volume is, if it is one.
	Device string
	// ReadOnly says that containers must get it read-only whatever their volumeMount says.
	ReadOnly bool
	// Options are what it is mounted with and containers must mount it with too: noexec, nodev, nosuid.
	Options []string

	// published is what a CSI driver knows it by, if one has published it.
	published string
}

// Error is a volume that could not be made. Its text is that of Kubernetes' FailedMount event.
type Error struct {
	Volume string
	Err    error
}

// stepError is a failure that has a name of its own in events.
type stepError struct {
	step, volume string
	err          error
}

func (e *stepError) Error() string {
	return fmt.Sprintf("%s failed for volume %q : %v", e.step, e.volume, e.err)
}
func (e *stepError) Unwrap() error { return e.err }

// Error tells which volume and why.
func (e *Error) Error() string {
	var claim *claimError
	var step *stepError
	switch {
	case errors.As(e.Err, &claim):
		return fmt.Sprintf("Unable to attach or mount volumes: unmounted volumes=[%[1]s], unattached volumes=[], failed to process volumes=[%[1]s]: %[2]v", e.Volume, claim)
	case errors.As(e.Err, &step):
		return step.Error()
	}
	return fmt.Sprintf("MountVolume.SetUp failed for volume %q : %v", e.Volume, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Volumes makes and removes the volumes of this node's Pods. It is safe for concurrent use; work on one Pod happens in turn.
type Volumes struct {
	cfg Config

	mu   sync.Mutex // guards all below
	pods map[types.UID]*podVolumes
	// users are the Pods that have a persistent volume, by its name.
	users map[string]map[types.UID]bool
	// backed are the Pods' volumes that are not kept in their folders, by name.
	backed map[types.UID]map[string]Backed
	// mounting are the folders on which the kernel is mounting something, although nobody may wait for it any more.
	mounting map[string]bool
}

// podVolumes is what is remembered of a Pod. Its lock is held while its volumes are worked on.
type podVolumes struct {
	mu sync.Mutex
	// written is the digest of what each volume holds, so that nothing is read from disk when nothing changed.
	written map[string]digest
	// mounted are the volumes that are set up, by name.
	mounted map[string]Mounted
	tokens  map[tokenKey]*authenticationv1.TokenRequestStatus
}

// New returns Volumes. It touches nothing yet.
func New(cfg Config) *Volumes {
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	return &Volumes{cfg: cfg, pods: map[types.UID]*podVolumes{}, users: map[string]map[types.UID]bool{}, backed: map[types.UID]map[string]Backed{},
		mounting: map[string]bool{}}
}

// Setup makes every volume of the Pod, or completes what is there, and returns them by name. Errors are joined *Error, one for
// each volume that failed; the others are made all the same.
func (v *Volumes) Setup(ctx context.Context, pod *corev1.Pod) (map[string]Mounted, error) {
	state := v.lock(pod.UID)
	defer state.mu.Unlock()
	mounted := map[string]Mounted{}
	var errs []error
	for i := range pod.Spec.Volumes {
		vol := &pod.Spec.Volumes[i]
		m, err := v.setup(ctx, pod, state, vol)
		if err != nil {
			errs = append(errs, &Error{Volume: vol.Name, Err: err})
			continue
		}
		mounted[vol.Name], state.mounted[vol.Name] = m, m
	}
	return mounted, errors.Join(errs...)
}

// Update writes anew those volumes whose ConfigMap, Secret, label, annotation or token has changed, and only those. A volume
// whose source has gone keeps what it has. Call it whenever one of these may have changed.
func (v *Volumes) Update(ctx context.Context, pod *corev1.Pod) error {
	state := v.lock(pod.UID)
	defer state.mu.Unlock()
	var errs []error
	for i := range pod.Spec.Volumes {
		vol := &pod.Spec.Volumes[i]
		if plugin, ok := pluginOf(vol); !ok || !plugin.projects && !plugin.looks {
			continue
		}
		m, err := v.setup(ctx, pod, state, vol)
		if err != nil {
			errs = append(errs, &Error{Volume: vol.Name, Err: err})
			continue
		}
		state.mounted[vol.Name] = m
	}
	return errors.Join(errs...)
}

// plugin is a kind of volume.
type plugin struct {
	name string
	// projects says that it holds files made from API objects; memory, that they are kept off the disk; looks, that it may want something with
	// time though nothing is written.
	projects, memory, looks bool
}

// pluginOf returns the kind of vol, if it is one that is supported.
func pluginOf(vol *corev1.Volume) (plugin, bool) {
	switch {
	case vol.EmptyDir != nil:
		return plugin{name: "empty-dir"}, true
	case vol.HostPath != nil:
		return plugin{name: "host-path"}, true
	case vol.ConfigMap != nil:
		return plugin{name: "configmap", projects: true}, true
	case vol.Secret != nil:
		return plugin{name: "secret", projects: true, memory: true}, true
	case vol.DownwardAPI != nil:
		return plugin{name: "downward-api", projects: true, memory: true}, true
	case vol.Projected != nil:
		return plugin{name: "projected", projects: true, memory: true}, true
	case vol.Image != nil:
		return plugin{name: "image"}, true
	case vol.NFS != nil:
		return plugin{name: nfsPlugin}, true
	case vol.CSI != nil, vol.PersistentVolumeClaim != nil, vol.Ephemeral != nil:
		return plugin{name: "csi", looks: true}, true
	}
	return plugin{}, false
}

func (v *Volumes) setup(ctx context.Context, pod *corev1.Pod, state *podVolumes, vol *corev1.Volume) (Mounted, error) {
	p, ok := pluginOf(vol)
	if !ok {
		return Mounted{}, errors.New("this kind of volume is not supported")
	}
	if vol.HostPath != nil {
		return Mounted{Path: vol.HostPath.Path}, setupHostPath(vol.HostPath)
	}
	switch {
	case vol.Image != nil:
		return Mounted{ReadOnly: true}, nil // the runtime mounts it
	case vol.NFS != nil:
		return v.setupNFS(ctx, pod, vol.Name, vol.NFS, nil)
	case vol.CSI != nil:
		m, err := v.publish(ctx, csi.Request{Pod: pod, Name: vol.Name, Inline: vol.CSI})
		if err == nil {
			v.back(pod, vol, m)
		}
		return m, err
	case vol.PersistentVolumeClaim != nil, vol.Ephemeral != nil:
		// A claim that was found once is looked at again only if the driver of its volume wants that.
		if m, ok := state.mounted[vol.Name]; ok && !v.due(pod.UID) {
			return m, nil
		}
		p, _, err := v.claimOf(ctx, pod, vol)
		if err != nil {
			return Mounted{}, err
		}
		m, err := v.setupPersistent(ctx, pod, p)
		if err == nil && p.pv.Spec.HostPath == nil { // that is the machine's, and counts as nobody's
			v.back(pod, vol, m)
		}
		return m, err
	}
	dir, err := v.volumeDir(pod.UID, p.name, vol.Name)
	if err != nil {
		return Mounted{}, err
	}
	if vol.EmptyDir != nil {
		return Mounted{Path: dir}, setupEmptyDir(dir, pod, vol.EmptyDir, v.allocatableMemory())
	}
	files, err := v.files(ctx, pod, state, vol)
	if err != nil {
		return Mounted{}, err
	}
	sum := files.digest()
	if old, ok := state.written[vol.Name]; ok && old == sum {
		return Mounted{Path: dir, ReadOnly: true}, nil
	}
	if err := v.project(dir, pod, vol.Name, p, files); err != nil {
		return Mounted{}, err
	}
	state.written[vol.Name] = sum
	return Mounted{Path: dir, ReadOnly: true}, nil
}

func (v *Volumes) project(dir string, pod *corev1.Pod, name string, p plugin, files payload) error {
	if err := makeDir(dir, openRoot); err != nil {
		return err
	}
	if p.memory {
		if err := mountTmpfs(dir, openRoot, 0); err != nil {
			return err
		}
	}
	if err := makeNestedMountpoints(dir, name, pod); err != nil {
		return err
	}
	return writeAtomic(dir, files, fsGroup(pod), v.cfg.Clock.Now())
}

// lock returns the Pod's state, locked.
func (v *Volumes) lock(uid types.UID) *podVolumes {
	for {
		v.mu.Lock()
		state := v.pods[uid]
		if state == nil {
			state = &podVolumes{written: map[string]digest{}, mounted: map[string]Mounted{}, tokens: map[tokenKey]*authenticationv1.TokenRequestStatus{}}
			v.pods[uid] = state
		}
		v.mu.Unlock()
		state.mu.Lock()
		v.mu.Lock()
		current := v.pods[uid] == state
		v.mu.Unlock()
		if current {
			return state
		}
		state.mu.Unlock() // torn down meanwhile
	}
}

func (v *Volumes) podDir(uid types.UID) (string, error) {
	return join(v.cfg.Dir, string(uid))
}

func (v *Volumes) volumeDir(uid types.UID, plugin, name string) (string, error) {
	pod, err := v.podDir(uid)
	if err != nil {
		return "", err
	}
	return join(filepath.Join(pod, "volumes", "kubernetes.io~"+plugin), name)
}

// join adds one name to dir and refuses names that lead elsewhere.
func join(dir, name string) (string, error) {
	if name == "" || name == "." || name == ".." || filepath.Base(name) != name {
		return "", fmt.Errorf("%q cannot be the name of a folder", name)
	}
	return filepath.Join(dir, name), nil
}

// root is what the top folder of a volume is made with.
type root struct {
	// mode is in the form of chmod(2), with the special bits.
	mode uint32
	// group owns it; nil for root.
	group *int64
}

// openRoot is the top folder that everybody may write to.
var openRoot = root{mode: 0o777}

// makeDir makes dir as r says, and its parents for the owner and group only. A folder that is there stays as it is, for
// containers may have changed it: so it gets its name only when it is ready.
func makeDir(dir string, r root) error {
	info, err := os.Lstat(dir)
	if err == nil && !info.IsDir() {
		return fmt.Errorf("%s is not a folder", dir)
	}
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fresh := filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+".new")
	if err := os.MkdirAll(filepath.Dir(dir), 0o750); err != nil {
		return err
	}
	if err := os.Mkdir(fresh, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if r.group != nil {
		if err := os.Chown(fresh, -1, int(*r.group)); err != nil {
			return err
		}
	}
	if err := unix.Chmod(fresh, r.mode); err != nil {
		return fmt.Errorf("set mode of %s: %w", fresh, err)
	}
	return os.Rename(fresh, dir)
}

func (v *Volumes) allocatableMemory() int64 {
	if v.cfg.Allocatable == nil {
		return 0
	}
	list := v.cfg.Allocatable()
	return list.Memory().Value()
}

// publish has a driver publish a volume, and gives its files to the Pod's group where the driver leaves that to the node.
func (v *Volumes) publish(ctx context.Context, r csi.Request) (Mounted, error) {
	if v.cfg.CSI == nil {
		return Mounted{}, errors.New("CSI drivers are not available")
	}
	p, err := v.cfg.CSI.Publish(ctx, r)
	if err != nil {
		return Mounted{}, err
	}
	if group := fsGroup(r.Pod); group != nil && p.Own && p.Fresh {
		if err := setOwnership(p.Path, *group, changePolicy(r.Pod), readWrite); err != nil {
			return Mounted{}, err
		}
	}
	m := Mounted{Path: p.Path, ReadOnly: p.ReadOnly, published: r.Name}
	if r.Block {
		m.Path, m.Device = "", p.Path
	}
	return m, nil
}

// due says whether a driver wants to look at a volume of the Pod again.
func (v *Volumes) due(uid types.UID) bool {
	if v.cfg.CSI == nil {
		return false
	}
	at, ok := v.cfg.CSI.LookAt(uid)
	return ok && !v.cfg.Clock.Now().Before(at)
}

func (v *Volumes) event(pod *corev1.Pod, reason, message string) {
	if v.cfg.Event != nil {
		v.cfg.Event(pod, reason, message)
	}
}

func fsGroup(pod *corev1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}
