package csi

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/types"

	"carob.dev/carob/internal/sys"
)

const (
	pluginDir  = "kubernetes.io~csi"
	stagingDir = "plugins/kubernetes.io/csi"
	devicesDir = stagingDir + "/volumeDevices"
	recordName = "vol_data.json"
)

// record is what lies beside a staged or published volume: all that is needed to take it away. The first names are kubelet's.
type record struct {
	Driver       string    `json:"driverName"`
	Handle       string    `json:"volumeHandle"`
	NodeName     string    `json:"nodeName"`
	SpecName     string    `json:"specVolID"`
	AttachmentID string    `json:"attachmentID,omitempty"`
	Lifecycle    string    `json:"volumeLifecycleMode,omitempty"`
	PodUID       types.UID `json:"podUID,omitempty"`
	// Path is the mount or device, below the agent's folder.
	Path string `json:"path"`
	// Block says that it is a device.
	Block bool `json:"block,omitempty"`
}

func (r record) key() volumeKey { return volumeKey{r.Driver, r.Handle} }

func readRecord(path string) (record, error) {
	var r record
	raw, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return r, fmt.Errorf("%s: %w", path, err)
	}
	if r.Driver == "" || r.Handle == "" || !filepath.IsLocal(r.Path) {
		return r, fmt.Errorf("%s: driver, volume or path is missing", path)
	}
	return r, nil
}

// write puts the record into dir, on the disk for good: drivers remember volumes over a reboot.
func (r record) write(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return sys.WriteFileAtomic(filepath.Join(dir, recordName), raw, 0o600)
}

// digest is the hex SHA-256 of the parts one after the other.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write([]byte(p))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// AttachmentName is the name of the VolumeAttachment of a volume to a node.
func AttachmentName(handle, driver, node string) string { return "csi-" + digest(handle, driver, node) }

// stageRecordDir is where the record of a staged volume lies, below the agent's folder.
func stageRecordDir(key volumeKey) string {
	return filepath.Join(stagingDir, key.driver, digest(key.handle))
}

// stagePath is where a volume is staged, below the agent's folder.
func stagePath(key volumeKey, name string, block bool) string {
	if block {
		return filepath.Join(devicesDir, "staging", name)
	}
	return filepath.Join(stageRecordDir(key), "globalmount")
}

// publishRecordDir is where the record of a Pod's volume lies, below the agent's folder.
func publishRecordDir(uid types.UID, name string) string {
	return filepath.Join("pods", string(uid), "volumes", pluginDir, name)
}

// publishPath is where a Pod has a volume, below the agent's folder.
func publishPath(uid types.UID, name string, block bool) string {
	if block {
		return filepath.Join(devicesDir, "publish", name, string(uid))
	}
	return filepath.Join(publishRecordDir(uid, name), "mount")
}
