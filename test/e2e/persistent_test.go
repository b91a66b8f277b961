//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func claimOf(name, class string, more ...string) string {
	return "---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: " + name + "}\nspec: {accessModes: [ReadWriteOnce], storageClassName: " + class +
		", resources: {requests: {storage: 1Mi}}" + strings.Join(append([]string{""}, more...), ", ") + "}\n"
}

// TestClaims keeps data in a claim over the Pods that use it, and has what belongs to one Pod go with it.
func TestClaims(t *testing.T) {
	s := newSpace(t)
	s.apply(claimOf("c", "local-path") + podOf("one", "terminationGracePeriodSeconds: 1", "volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]",
		"containers:", container("main", "echo kept > /v/f; "+forever, mounts("v:/v"))))
	s.ready("one")
	s.kubectl("delete", "pod", "one")
	s.apply(podOf("two", "terminationGracePeriodSeconds: 1", "volumes: [{name: v, persistentVolumeClaim: {claimName: c, readOnly: true}}]",
		"containers:", container("main", forever, mounts("v:/v"))))
	s.ready("two")
	if got := s.sh("two", "", "cat /v/f; (echo x > /v/g) 2>&1; true"); !strings.HasPrefix(got, "kept\n") || !strings.Contains(got, "Read-only file system") {
		t.Errorf("got %q", got)
	}
	s.apply(podOf("own", "terminationGracePeriodSeconds: 1", "volumes:\n- name: v\n  ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], storageClassName: local-path, resources: {requests: {storage: 1Mi}}}}}",
		"containers:", container("main", forever, mounts("v:/v"))))
	s.ready("own")
	s.sh("own", "", "echo x > /v/f")
	s.kubectl("delete", "pod", "own")
	s.eventually("the end of the Pod's own claim", func() error {
		_, err := s.c.kube.CoreV1().PersistentVolumeClaims(s.ns).Get(t.Context(), "own-v", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is there: %v", err)
	})
}

// TestClaimComesLater has a Pod that is on its node already wait for its claim, and say so.
func TestClaimComesLater(t *testing.T) {
	s := newSpace(t)
	s.apply(podOf("web", "nodeName: "+nodeName, "terminationGracePeriodSeconds: 1", "volumes: [{name: v, persistentVolumeClaim: {claimName: later}}]",
		"containers:", container("main", forever, mounts("v:/v"))))
	s.event("web", "FailedMount", "failed to process volumes=[v]: error processing PVC "+s.ns+"/later: failed to fetch PVC from API server")
	dir := filepath.Join(s.c.host.Dir, "later")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s.apply(claimOf("later", "by-hand", "volumeName: "+s.ns) + volumeOf(s.ns, dir, "Filesystem", "later"))
	t.Cleanup(func() { s.try("delete", "pv", s.ns, "--wait=false") })
	s.ready("web")
}

// volumeOf is a volume that is a folder or device of the node, for one claim.
func volumeOf(ns, path, mode, claim string) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: PersistentVolume
metadata: {name: %[1]s}
spec:
  capacity: {storage: 1Mi}
  accessModes: [ReadWriteOnce]
  storageClassName: by-hand
  volumeMode: %[3]s
  local: {path: %[2]s}
  claimRef: {namespace: %[1]s, name: %[4]s}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [%[5]s]}]}]}}
`, ns, path, mode, claim, nodeName)
}

// TestBlockDevice gives a container a device.
func TestBlockDevice(t *testing.T) {
	s := newSpace(t)
	file := filepath.Join(s.c.host.Dir, "disk")
	content := make([]byte, 1<<20)
	copy(content, "what is on the disk\n")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v: %s", err, out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() { exec.Command("losetup", "--detach", device).Run() })
	s.apply(volumeOf(s.ns, device, "Block", "disk") + claimOf("disk", "by-hand", "volumeMode: Block", "volumeName: "+s.ns) +
		podOf("web", "terminationGracePeriodSeconds: 1", "volumes: [{name: v, persistentVolumeClaim: {claimName: disk}}]",
			"containers:", container("main", forever, "volumeDevices: [{name: v, devicePath: /dev/xvda}]")) +
		podOf("wrong", "nodeName: "+nodeName, "terminationGracePeriodSeconds: 1", "volumes: [{name: v, persistentVolumeClaim: {claimName: disk}}]",
			"containers:", container("main", forever, mounts("v:/v"))))
	t.Cleanup(func() { s.try("delete", "pv", s.ns, "--wait=false") })
	s.ready("web")
	if got := s.sh("web", "", "head -n 1 /dev/xvda; echo changed | dd of=/dev/xvda conv=notrunc 2>/dev/null; sync; head -n 1 /dev/xvda"); got != "what is on the disk\nchanged\n" {
		t.Errorf("got %q", got)
	}
	s.event("wrong", "FailedMount", "volume v has volumeMode Block, but is specified in volumeMounts")
	s.waitPod("wrong", func(p *corev1.Pod) error {
		if p.Status.Phase != corev1.PodPending {
			return fmt.Errorf("%s", p.Status.Phase)
		}
		return nil
	})
}
