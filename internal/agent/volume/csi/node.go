package csi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
)

// Config is what a Node needs. Fields without a note must be set.
type Config struct {
	NodeName string
	// Client acts as the node.
	Client kubernetes.Interface
	Secret func(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	Token  func(ctx context.Context, pod *corev1.Pod, spec authenticationv1.TokenRequestSpec) (*authenticationv1.TokenRequestStatus, error)
	// Root is the agent's folder; Shown is its name for drivers, which have it mounted: Root itself when empty.
	Root, Shown string
	// Changed is called when a driver came or went. May be nil.
	Changed func()
	// InUseChanged tells the API what InUse tells, before a volume is mounted and after it has gone. May be nil.
	InUseChanged func(ctx context.Context) error
	Log          *slog.Logger
	// Clock is the wall clock when nil.
	Clock clock.Clock
}

// Node is the node's side of all drivers. It is safe for concurrent use; work on one volume happens in turn.
type Node struct {
	cfg Config

	mu sync.Mutex // guards all below
	// drivers are those that are registered, by name.
	drivers map[string]*driver
	// volumes are those that are staged or published here, or may be.
	volumes map[volumeKey]*volume
	// untold says that the API has not been told yet which volumes are in use.
	untold bool
}

// volumeKey tells volumes apart.
type volumeKey struct{ driver, handle string }

// volume is one that this node has, or may have.
type volume struct {
	// turn is held while a driver is asked to do something with the volume.
	turn sync.Mutex
	// The rest is guarded by Node.mu.
	pods     map[types.UID]bool
	attached bool
	// staged says that the driver has staged it in this life of the agent, published the same of each Pod.
	staged    bool
	published map[types.UID]Published
}

// AttachError is a volume that is not attached to this node yet.
type AttachError struct{ Driver, Handle, Reason string }

func (e *AttachError) Error() string {
	return fmt.Sprintf("waiting for volume %s of driver %s to be attached to this node: %s", e.Handle, e.Driver, e.Reason)
}

// New returns a Node that knows what the folder has of earlier lives. It changes nothing before Run or Publish.
func New(cfg Config) (*Node, error) {
	if cfg.Shown == "" {
		cfg.Shown = cfg.Root
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	n := &Node{cfg: cfg, drivers: map[string]*driver{}, volumes: map[volumeKey]*volume{}}
	published, err := filepath.Glob(filepath.Join(cfg.Root, "pods", "*", "volumes", pluginDir, "*", recordName))
	if err != nil {
		return nil, fmt.Errorf("find published volumes: %w", err)
	}
	for _, path := range published {
		r, err := readRecord(path)
		if err != nil {
			cfg.Log.Error("the record of a published volume cannot be read", "error", err)
			continue
		}
		v := n.volume(r.key())
		v.pods[r.PodUID] = true
		v.attached = v.attached || r.AttachmentID != ""
	}
	staged, err := filepath.Glob(filepath.Join(cfg.Root, stagingDir, "*", "*", recordName))
	if err != nil {
		return nil, fmt.Errorf("find staged volumes: %w", err)
	}
	for _, path := range staged {
		r, err := readRecord(path)
		if err != nil {
			cfg.Log.Error("the record of a staged volume cannot be read", "error", err)
			continue
		}
		v := n.volume(r.key())
		v.attached = v.attached || r.AttachmentID != ""
	}
	return n, nil
}

// volume returns the entry of a volume, made if need be. n.mu is held, or nobody else knows n.
func (n *Node) volume(key volumeKey) *volume {
	v := n.volumes[key]
	if v == nil {
		v = &volume{pods: map[types.UID]bool{}, published: map[types.UID]Published{}}
		n.volumes[key] = v
	}
	return v
}

// InUse are the attached volumes that this node may have mounted, by the names that a node's status has for them.
func (n *Node) InUse() []corev1.UniqueVolumeName {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []corev1.UniqueVolumeName
	for key, v := range n.volumes {
		if v.attached {
			list = append(list, UniqueName(key.driver, key.handle))
		}
	}
	slices.Sort(list)
	return list
}

// UniqueName is what a node's status calls a volume.
func UniqueName(driver, handle string) corev1.UniqueVolumeName {
	return corev1.UniqueVolumeName("kubernetes.io/csi/" + driver + "^" + handle)
}

// driver returns the registered driver.
func (n *Node) driver(name string) (*driver, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := n.drivers[name]
	if d == nil {
		return nil, fmt.Errorf("driver name %s not found in the list of registered CSI drivers", name)
	}
	return d, nil
}

// Drivers are the names of the registered drivers.
func (n *Node) Drivers() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(n.drivers))
}

// Looked again at a published volume that wants it: tokens that drivers ask for, and sizes that have grown.
const lookAgain = time.Minute

// LookAt is when Publish wants to be called again for the Pod, which may have passed; false if never.
func (n *Node) LookAt(uid types.UID) (at time.Time, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for key, v := range n.volumes {
		p, there := v.published[uid]
		if v.pods[uid] && !there && n.drivers[key.driver] != nil {
			return time.Time{}, true // an earlier life published it
		}
		if there && p.again && (!ok || p.at.Add(lookAgain).Before(at)) {
			at, ok = p.at.Add(lookAgain), true
		}
	}
	return at, ok
}

var errNoNode = errors.New("the driver gave no name for this node")
