package runtime

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis"

	"carob.dev/carob/internal/runtime/events"
	"carob.dev/carob/internal/runtime/oci"
	"carob.dev/carob/internal/runtime/shim"
	"carob.dev/carob/internal/runtime/shimbin"
	"carob.dev/carob/internal/sys"
)

// Runtime implements the CRI's RuntimeService.
type Runtime struct {
	cfg      Config
	boot     string
	shim     string
	node     oci.Node
	empty    *os.File // a mount namespace that is quick to copy
	cgroups  sys.Cgroups
	binaries map[string]string
	events   events.Subscribers
	waiting  waiters
	seccomp  seccompCache
	warm     *warm
	beside   sync.WaitGroup // what goes on beside the verbs

	mu         sync.Mutex
	sandboxes  map[string]*sandbox
	containers map[string]*container
	names      map[string]string
	closed     bool
}

var _ cri.RuntimeService = (*Runtime)(nil)

// sandbox is one Pod's. All but turn, disk and name are guarded by Runtime.mu. stopping says that it is to be stopped, ending that its shim
// was told to end, dead that pause has ended.
type sandbox struct {
	turn       turn
	disk       sync.Mutex // orders writes of the record; the one lock that is held across I/O
	name       string     // what is reserved for it
	rec        sandboxRecord
	containers []*container // oldest first
	client     *shim.Client
	stopping   bool
	ending     bool
	dead       bool
}

// container is one container. rec, killers and cutOff are guarded by Runtime.mu; exited is closed once it has ended. seccomp is what its
// start can teach. killers are how many verbs are about to kill it, cutOff ends a checkpoint that is under way, for their sake.
type container struct {
	turn   turn
	disk   sync.Mutex // as sandbox.disk
	name   string     // what is reserved for it
	sb     *sandbox
	rec    containerRecord
	exited chan struct{}

	seccomp *seccompKey
	killers int
	cutOff  context.CancelFunc
}

// turn lets one verb at a time work on something; waiting ends with the context.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

func (t turn) pass() { <-t }

// New opens the runtime, finds the Pods that outlived an earlier process, hears what happened to them, and removes what is in pieces.
func New(ctx context.Context, cfg Config) (*Runtime, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if err := cfg.makeFolders(); err != nil {
		return nil, err
	}
	r := &Runtime{cfg: cfg, sandboxes: map[string]*sandbox{}, containers: map[string]*container{}, names: map[string]string{}, binaries: map[string]string{}}
	var err error
	if r.boot, err = sys.BootID(); err != nil {
		return nil, err
	}
	if r.shim, err = shimbin.Install(filepath.Join(cfg.Root, "bin")); err != nil {
		return nil, err
	}
	if r.cgroups, err = sys.CgroupLayout(); err != nil {
		return nil, err
	}
	if err := r.readNode(); err != nil {
		return nil, err
	}
	for handler, name := range cfg.OCIRuntimes {
		path, err := exec.LookPath(name)
		if err != nil && handler == "" {
			return nil, fmt.Errorf("the OCI runtime: %w", err)
		}
		if err == nil {
			r.binaries[handler] = path
		}
	}
	if err := sys.CgroupCreate("/"+cfg.CgroupRoot+"/shims", sys.Resources{}); err != nil {
		return nil, err
	}
	if r.empty, err = sys.EmptyMounts(cfg.RunDir, shim.EmptyPlace); err != nil {
		return nil, err
	}
	if err := r.adopt(ctx); err != nil {
		return nil, err
	}
	r.warm = newWarm(r, cfg.WarmSandboxes)
	return r, nil
}

func (r *Runtime) readNode() error {
	r.node = oci.Node{GOARCH: goruntime.GOARCH, Unified: r.cgroups.Unified}
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(raw)) {
		if v, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			if err != nil {
				return err
			}
			r.node.Bounding = oci.BoundingSet(mask)
		}
	}
	var stack unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_STACK, &stack); err != nil {
		return err
	}
	r.node.Stack = stack.Cur
	raw, _ = os.ReadFile("/proc/self/oom_score_adj")
	r.node.OOMScoreAdj, _ = strconv.Atoi(strings.TrimSpace(string(raw)))
	if r.node.Hostname, err = os.Hostname(); err != nil {
		return err
	}
	for c := range r.cgroups.V1 {
		r.node.Controllers = append(r.node.Controllers, c)
	}
	if r.cgroups.Unified {
		raw, _ := os.ReadFile(filepath.Join(r.cgroups.Folder("", "/"), "cgroup.controllers"))
		r.node.Controllers = strings.Fields(string(raw))
	}
	slices.Sort(r.node.Controllers)
	if sys.AppArmor() {
		r.node.AppArmor = sys.AppArmorLoaded
	}
	r.node.SELinux = sys.SELinux()
	r.node.SwapAccounting = r.cgroups.SwapControl("/" + r.cfg.CgroupRoot)
	return nil
}

// Close lets go of the shims; the Pods run on. Warm sandboxes are taken apart.
func (r *Runtime) Close(context.Context) error {
	err := r.warm.close()
	r.mu.Lock()
	r.closed = true
	var clients []*shim.Client
	for _, sb := range r.sandboxes {
		if sb.client != nil {
			clients = append(clients, sb.client)
		}
	}
	r.mu.Unlock()
	for _, c := range clients {
		c.Close()
	}
	r.beside.Wait()
	r.empty.Close()
	return err
}

// idLength is how long the IDs of sandboxes and containers are.
const idLength = 64

func newID() string {
	b := make([]byte, idLength/2)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// enlist makes a container known, and delist unknown. Runtime.mu is held.
func (r *Runtime) enlist(c *container) {
	r.containers[c.rec.ID] = c
	at, _ := slices.BinarySearchFunc(c.sb.containers, c, byAge)
	c.sb.containers = slices.Insert(c.sb.containers, at, c)
}

func (r *Runtime) delist(c *container) {
	delete(r.containers, c.rec.ID)
	c.sb.containers = slices.DeleteFunc(c.sb.containers, func(o *container) bool { return o == c })
	r.free(c.name, c.rec.ID)
}

// free gives a name back if it is still id's. Runtime.mu is held.
func (r *Runtime) free(name, id string) {
	if r.names[name] == id {
		delete(r.names, name)
	}
}

func byAge(a, b *container) int {
	return cmp.Or(cmp.Compare(a.rec.CreatedAt, b.rec.CreatedAt), cmp.Compare(a.rec.ID, b.rec.ID))
}

// findSandbox and findContainer take a full ID or a prefix that fits one only.
func (r *Runtime) findSandbox(id string) (*sandbox, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return find(r.sandboxes, id, "sandbox")
}

func (r *Runtime) findContainer(id string) (*container, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return find(r.containers, id, "container")
}

func find[T any](all map[string]T, id, kind string) (T, error) {
	if v, ok := all[id]; ok {
		return v, nil
	}
	var found []T
	if id != "" && len(id) < idLength {
		for k, v := range all {
			if strings.HasPrefix(k, id) {
				found = append(found, v)
			}
		}
	}
	var none T
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return none, status.Errorf(codes.NotFound, "%s %q: not found", kind, id)
	}
	return none, status.Errorf(codes.InvalidArgument, "%s %q: the prefix fits more than one", kind, id)
}

// binary is the OCI runtime of a handler, and whether the v2 tree of a hybrid machine is to be hidden from it.
func (r *Runtime) binary(handler string) (path string, hide int, err error) {
	path, ok := r.binaries[handler]
	if program := r.cfg.OCIRuntimes[handler]; !ok && program != "" {
		return "", 0, status.Errorf(codes.InvalidArgument, "the OCI runtime for handler %q, %s, is not installed", handler, program)
	}
	if !ok {
		return "", 0, status.Errorf(codes.InvalidArgument, "no OCI runtime for handler %q is configured", handler)
	}
	if r.cgroups.Hybrid && filepath.Base(path) == "crun" {
		hide = 1
	}
	return path, hide, nil
}
