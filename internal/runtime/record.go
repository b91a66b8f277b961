package runtime

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/runtime/oci"
	"carob.dev/carob/internal/sys"
)

// recordVersion is the version of the records on disk.
const recordVersion = 1

// sandboxRecord is what is kept of a sandbox. Times are nanoseconds since 1970.
type sandboxRecord struct {
	Version   int                          `json:"version"`
	ID        string                       `json:"id"`
	Boot      string                       `json:"boot"`
	Made      bool                         `json:"made"`
	Ready     bool                         `json:"ready"`
	CreatedAt int64                        `json:"createdAt"`
	Handler   string                       `json:"handler,omitempty"`
	PausePID  int                          `json:"pausePID,omitempty"`
	IPs       []netip.Addr                 `json:"ips,omitempty"`
	Stopped   bool                         `json:"stopped,omitempty"`
	Config    *runtimeapi.PodSandboxConfig `json:"config"`
}

// containerRecord is what is kept of a container.
type containerRecord struct {
	Version    int                                 `json:"version"`
	ID         string                              `json:"id"`
	SandboxID  string                              `json:"sandboxID"`
	Made       bool                                `json:"made"`
	State      runtimeapi.ContainerState           `json:"state"`
	PID        int                                 `json:"pid,omitempty"`
	CreatedAt  int64                               `json:"createdAt"`
	StartedAt  int64                               `json:"startedAt,omitempty"`
	FinishedAt int64                               `json:"finishedAt,omitempty"`
	ExitCode   int32                               `json:"exitCode"`
	Reason     string                              `json:"reason,omitempty"`
	Message    string                              `json:"message,omitempty"`
	ImageID    string                              `json:"imageID"`
	ImageRef   string                              `json:"imageRef"`
	LogPath    string                              `json:"logPath,omitempty"`
	Cgroup     string                              `json:"cgroup"`
	StopSignal string                              `json:"stopSignal,omitempty"`
	User       oci.User                            `json:"user"`
	Resources  *runtimeapi.LinuxContainerResources `json:"resources,omitempty"`
	Config     *runtimeapi.ContainerConfig         `json:"config"`
}

// Records are not fsynced: they describe processes and mounts, which a power cut ends too. The rename keeps them whole.
func (r *Runtime) saveSandbox(rec sandboxRecord) error {
	return save(filepath.Join(r.cfg.sandboxDir(rec.ID), "sandbox.json"), rec)
}

func (r *Runtime) saveContainer(rec containerRecord) error {
	return save(filepath.Join(r.cfg.containerDir(rec.ID), "container.json"), rec)
}

func save(path string, rec any) error {
	raw, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return sys.WriteFileVolatile(path, raw, 0o600)
}

// keepContainer and keepSandbox write the record as it is now: of two that write at once, the later one has the later state.
func (r *Runtime) keepContainer(c *container) error {
	c.disk.Lock()
	defer c.disk.Unlock()
	r.mu.Lock()
	rec := c.rec
	r.mu.Unlock()
	return r.saveContainer(rec)
}

func (r *Runtime) keepSandbox(sb *sandbox) error {
	sb.disk.Lock()
	defer sb.disk.Unlock()
	r.mu.Lock()
	rec := sb.rec
	r.mu.Unlock()
	return r.saveSandbox(rec)
}

// load reads the records of a folder. Entries without a readable record are returned as torn: a crash or a power cut left them.
func load[T any](dir, file string, version func(*T) int) (records []T, torn []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		var rec T
		raw, err := os.ReadFile(filepath.Join(dir, e.Name(), file))
		if err != nil || json.Unmarshal(raw, &rec) != nil {
			torn = append(torn, e.Name())
			continue
		}
		if v := version(&rec); v != recordVersion {
			return nil, nil, fmt.Errorf("%s: record version %d is not known to this build", filepath.Join(dir, e.Name()), v)
		}
		records = append(records, rec)
	}
	return records, torn, nil
}
