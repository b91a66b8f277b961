//go:build e2e && csi

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// csiManifest is a driver as its makers deliver it: the driver beside the standard sidecars, each in a container, with the rights that they
// need. DIR is the node's folder as drivers know it, BIN where the programs are, DATA where the volumes are kept.
const csiManifest = `
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: folder.test.carob.dev}
spec: {attachRequired: true, podInfoOnMount: true, fsGroupPolicy: File, volumeLifecycleModes: [Persistent, Ephemeral]}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: folder}
provisioner: folder.test.carob.dev
allowVolumeExpansion: true
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: driver}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: csi-driver-test}
rules:
- {apiGroups: [""], resources: [persistentvolumes], verbs: [get, list, watch, create, delete, patch, update]}
- {apiGroups: [""], resources: [persistentvolumeclaims], verbs: [get, list, watch, update]}
- {apiGroups: [""], resources: [persistentvolumeclaims/status], verbs: [patch]}
- {apiGroups: [""], resources: [pods, nodes], verbs: [get, list, watch]}
- {apiGroups: [""], resources: [events], verbs: [list, watch, create, update, patch]}
- {apiGroups: [storage.k8s.io], resources: [storageclasses, csinodes, csidrivers, volumeattributesclasses], verbs: [get, list, watch]}
- {apiGroups: [storage.k8s.io], resources: [volumeattachments], verbs: [get, list, watch, patch]}
- {apiGroups: [storage.k8s.io], resources: [volumeattachments/status], verbs: [patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: csi-driver-test}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: csi-driver-test}
subjects: [{kind: ServiceAccount, name: driver, namespace: NAMESPACE}]
---
apiVersion: v1
kind: Pod
metadata: {name: driver}
spec:
  serviceAccountName: driver
  terminationGracePeriodSeconds: 1
  volumes:
  - {name: bin, hostPath: {path: BIN, type: Directory}}
  - {name: data, hostPath: {path: DATA, type: DirectoryOrCreate}}
  - {name: socket, hostPath: {path: DIR/plugins/folder.test.carob.dev, type: DirectoryOrCreate}}
  - {name: registry, hostPath: {path: DIR/plugins_registry, type: Directory}}
  - {name: plugins, hostPath: {path: DIR/plugins, type: DirectoryOrCreate}}
  - {name: pods, hostPath: {path: DIR/pods, type: Directory}}
  containers:
  - name: driver
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [/bin-csi/driver, -node=NODE, -data=/data, -plugins=/csi, -registry=/registration, -endpoint=DIR/plugins/folder.test.carob.dev/csi.sock]
    securityContext: {privileged: true}
    volumeMounts:
    - {name: bin, mountPath: /bin-csi}
    - {name: data, mountPath: /data}
    - {name: socket, mountPath: /csi}
    - {name: registry, mountPath: /registration}
    - {name: plugins, mountPath: DIR/plugins, mountPropagation: Bidirectional}
    - {name: pods, mountPath: DIR/pods, mountPropagation: Bidirectional}
`

func sidecar(name string, more ...string) string {
	return "  - name: " + name + "\n    image: busybox\n    imagePullPolicy: IfNotPresent\n    command: [/bin-csi/" + strings.Join(append([]string{name, "--csi-address=/csi/csi.sock", "--v=2"}, more...), ", ") +
		"]\n    volumeMounts: [{name: bin, mountPath: /bin-csi}, {name: socket, mountPath: /csi}]\n"
}

func pvc(name string) string {
	return "---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: " + name + "}\nspec: {accessModes: [ReadWriteOnce], storageClassName: folder, resources: {requests: {storage: 1Gi}}}\n"
}

// csiDriver starts a Carob with the driver and its sidecars. data is where it keeps volumes.
func csiDriver(t *testing.T) (s *space, data string) {
	c := newCluster(t)
	c.up(t)
	s = c.space(t)
	bin := os.Getenv("CSI_BINARIES")
	if bin == "" {
		t.Fatal("run this with make csi, which builds what it needs")
	}
	dir, data := s.c.kubeletDir(), filepath.Join(s.c.host.Dir, "csi-data")
	t.Cleanup(func() {
		s.try("delete", "csidriver,storageclass,clusterrole,clusterrolebinding", "folder.test.carob.dev", "folder", "csi-driver-test", "--ignore-not-found")
	})
	s.apply(strings.NewReplacer("DIR", dir, "BIN", bin, "DATA", data, "NODE", nodeName, "NAMESPACE", s.ns).Replace(csiManifest) +
		sidecar("csi-provisioner") + sidecar("csi-attacher") + sidecar("csi-resizer"))
	s.ready("driver")
	s.eventually("the driver's registration", func() error {
		o, err := s.c.kube.StorageV1().CSINodes().Get(t.Context(), nodeName, metav1.GetOptions{})
		if err == nil && (len(o.Spec.Drivers) != 1 || o.Spec.Drivers[0].NodeID != "id-of-"+nodeName) {
			err = fmt.Errorf("%+v", o.Spec)
		}
		return err
	})
	return s, data
}

// nothingStaged waits until the driver keeps no volume, and looks for what the node has left of them.
func (s *space) nothingStaged(data string) {
	s.Helper()
	s.eventually("the end of the volume and all that belonged to it", func() error {
		pvs, err := s.c.kube.CoreV1().PersistentVolumes().List(s.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, pv := range pvs.Items {
			if pv.Spec.CSI != nil {
				return fmt.Errorf("%s is there", pv.Name)
			}
		}
		entries, err := os.ReadDir(data)
		if err == nil && len(entries) > 0 {
			err = fmt.Errorf("kept: %v", entries)
		}
		return err
	})
	for _, pattern := range []string{"/plugins/kubernetes.io/csi/*/*/vol_data.json", "/plugins/kubernetes.io/csi/volumeDevices/*/*/*"} {
		if left, _ := filepath.Glob(s.c.host.Root + pattern); len(left) > 0 {
			s.Errorf("staged or published still: %v", left)
		}
	}
}

// TestCSI has Kubernetes' own provisioner, attacher and resizer work beside a driver: a claim gets a volume, which is attached, mounted, grown, kept
// over a crash of the node, detached and deleted.
func TestCSI(t *testing.T) {
	s, data := csiDriver(t)
	c := s.c
	s.apply(pvc("c") + podOf("web", "terminationGracePeriodSeconds: 1", "securityContext: {fsGroup: 4567}", "volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]",
		"containers:", container("main", forever, mounts("v:/v", "v:/sub:subPath: in/side"))))
	s.ready("web")
	if got := s.sh("web", "", "echo x > /v/f; stat -c '%g %a' /v; ls /v"); got != "4567 2775\nf\nin\n" {
		t.Errorf("in the volume: %q", got)
	}
	s.event("web", "SuccessfulAttachVolume", "AttachVolume.Attach succeeded for volume")
	s.eventually("the node's word on it", func() error {
		n, err := s.c.kube.CoreV1().Nodes().Get(t.Context(), nodeName, metav1.GetOptions{})
		if err == nil && (len(n.Status.VolumesInUse) != 1 || len(n.Status.VolumesAttached) != 1 || n.Status.VolumesInUse[0] != n.Status.VolumesAttached[0].Name) {
			err = fmt.Errorf("in use %v, attached %v", n.Status.VolumesInUse, n.Status.VolumesAttached)
		}
		return err
	})

	// Grown while it is used, and told so to the node when a Pod next asks for it.
	s.kubectl("patch", "pvc", "c", "-p", `{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}`)
	s.eventually("the bigger volume", func() error {
		if got := s.kubectl("get", "pv", "-o", "jsonpath={.items[?(@.spec.claimRef.namespace=='"+s.ns+"')].spec.capacity.storage}"); got != "2Gi" {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
	s.kubectl("delete", "pod", "web")
	s.eventually("the detached volume", func() error {
		list, err := s.c.kube.StorageV1().VolumeAttachments().List(t.Context(), metav1.ListOptions{})
		if err == nil && len(list.Items) > 0 {
			err = fmt.Errorf("%+v", list.Items)
		}
		return err
	})
	s.apply(podOf("web", "terminationGracePeriodSeconds: 1", "volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]", "containers:", container("main", forever, mounts("v:/v"))))
	s.ready("web")
	if got := s.sh("web", "", "cat /v/f"); got != "x\n" {
		t.Errorf("in the volume again: %q", got)
	}
	s.eventually("the claim's new size", func() error {
		c, err := s.c.kube.CoreV1().PersistentVolumeClaims(s.ns).Get(t.Context(), "c", metav1.GetOptions{})
		if q := c.Status.Capacity[corev1.ResourceStorage]; err == nil && (q.String() != "2Gi" || strings.Contains(fmt.Sprint(c.Status.Conditions), "Resiz")) {
			err = fmt.Errorf("%+v", c.Status)
		}
		return err
	})

	s.apply(podOf("inline", "terminationGracePeriodSeconds: 1", "volumes: [{name: v, csi: {driver: folder.test.carob.dev}}]", "containers:", container("main", forever, mounts("v:/v"))))
	s.ready("inline")
	if got := s.sh("inline", "", "cat /v/for"); got != "inline" {
		t.Errorf("a volume of the Pod's own, for %q", got)
	}

	// The node's agent dies, and finds its volumes and its drivers again.
	c.kill(t)
	c.up(t)
	s.ready("web", "inline", "driver")
	if got := s.sh("web", "", "cat /v/f; echo y >> /v/f"); got != "x\n" {
		t.Errorf("after the agent's death: %q", got)
	}

	s.kubectl("delete", "pod", "web", "inline")
	s.kubectl("delete", "pvc", "c")
	s.nothingStaged(data)
	if left, _ := filepath.Glob(s.c.host.Root + "/plugins/kubernetes.io/csi/*/*"); len(left) > 0 {
		t.Errorf("staged still: %v", left)
	}
}
