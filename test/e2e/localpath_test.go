//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// keeper is a Deployment that adds a line to a file in its volume each time it starts.
func keeper(claim string) string {
	return `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: keeper}
spec:
  selector: {matchLabels: {app: keeper}}
  template:
    metadata: {labels: {app: keeper}}
    spec:
      terminationGracePeriodSeconds: 0
      volumes: [{name: v, persistentVolumeClaim: {claimName: ` + claim + `}}]
      containers:
` + indent(container("main", "echo line >> /v/f; "+forever, mounts("v:/v")), 6)
}

func (s *space) volumeFor(claim string) string {
	s.Helper()
	c, err := s.c.kube.CoreV1().PersistentVolumeClaims(s.ns).Get(s.Context(), claim, metav1.GetOptions{})
	if err != nil || c.Spec.VolumeName == "" {
		s.Fatalf("claim %s has no volume: %v", claim, err)
	}
	return c.Spec.VolumeName
}

func (s *space) noVolume(name string) {
	s.Helper()
	s.eventually("the end of volume "+name, func() error {
		v, err := s.c.kube.CoreV1().PersistentVolumes().Get(s.Context(), name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("phase %s, finalizers %v, %v", v.Status.Phase, v.Finalizers, err)
	})
}

// TestLocalPath keeps a Deployment's data while the Deployment is made anew, and removes it with the claim, with the daemon killed in between.
func TestLocalPath(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.up(t)
	s := c.space(t)
	claim := func(name, class string) string {
		return "---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: " + name + "}\nspec: {accessModes: [ReadWriteOnce], " + class +
			"resources: {requests: {storage: 1Mi}}}\n"
	}
	killAndUp := func() {
		c.kill(t)
		c.up(t)
	}

	s.apply(claim("data", "")) // of the default class
	if out := s.kubectl("get", "sc"); !strings.Contains(out, "local-path (default)") {
		t.Errorf("classes: %s", out)
	}
	killAndUp()
	s.apply(keeper("data"))
	s.kubectl("rollout", "status", "deployment/keeper", "--timeout=60s")
	volume := s.volumeFor("data")
	folder := filepath.Join(c.host.Root, "volumes", volume)
	s.kubectl("patch", "pvc", "data", "-p", `{"spec":{"resources":{"requests":{"storage":"2Mi"}}}}`)
	s.eventually("a larger claim", func() error {
		if out := s.kubectl("get", "pvc,pv", "-o", "jsonpath={.items[*].status.capacity.storage} {.items[*].spec.capacity.storage}"); out != "2Mi 2Mi" {
			return errors.New(out)
		}
		return nil
	})
	s.event("data", "VolumeResizeSuccessful", "ExpandVolume succeeded for volume "+s.ns+"/data")
	want(t, "a claim that would shrink", s.refused("patch", "pvc", "data", "-p", `{"spec":{"resources":{"requests":{"storage":"1Ki"}}}}`),
		"spec.resources.requests.storage: Forbidden: field can not be less than status.capacity")
	killAndUp()
	s.kubectl("delete", "deployment", "keeper")
	killAndUp()
	s.apply(keeper("data"))
	s.kubectl("rollout", "status", "deployment/keeper", "--timeout=60s")
	if got, err := os.ReadFile(filepath.Join(folder, "f")); err != nil || string(got) != "line\nline\n" {
		t.Errorf("the volume holds %q, %v", got, err)
	}

	// A claim in use stays, and the folder goes with it when it goes.
	s.kubectl("delete", "pvc", "data", "--wait=false")
	killAndUp()
	if out := s.kubectl("get", "pvc", "data"); !strings.Contains(out, "Terminating") {
		t.Errorf("a claim in use: %s", out)
	}
	s.kubectl("delete", "deployment", "keeper")
	killAndUp()
	s.noVolume(volume)
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("the folder is there: %v", err)
	}

	// What is retained stays, also when its volume is deleted; and classes stay as their administrator leaves them.
	s.kubectl("delete", "sc", "local-path")
	s.apply("apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: kept}\nprovisioner: carob.dev/local-path\n" +
		"reclaimPolicy: Retain\nvolumeBindingMode: WaitForFirstConsumer\n" + claim("kept", "storageClassName: kept, ") + keeper("kept"))
	s.kubectl("rollout", "status", "deployment/keeper", "--timeout=60s")
	volume = s.volumeFor("kept")
	folder = filepath.Join(c.host.Root, "volumes", volume)
	want(t, "a claim that would grow", s.refused("patch", "pvc", "kept", "-p", `{"spec":{"resources":{"requests":{"storage":"2Mi"}}}}`),
		`persistentvolumeclaims "kept" is forbidden: only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize`)
	s.kubectl("delete", "deployment", "keeper")
	s.kubectl("delete", "pvc", "kept")
	s.eventually("the release of the volume", func() error {
		if out := s.kubectl("get", "pv", volume); !strings.Contains(out, "Released") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	killAndUp()
	s.kubectl("delete", "pv", volume)
	if _, err := os.Stat(filepath.Join(folder, "f")); err != nil {
		t.Errorf("what was to be retained: %v", err)
	}
	if out := s.kubectl("get", "sc"); strings.Contains(out, "local-path") && strings.Contains(out, "(default)") {
		t.Errorf("a deleted class came back: %s", out)
	}
}

// TestBinding binds claims to volumes that are there, and says what a Pod waits for.
func TestBinding(t *testing.T) {
	s := newSpace(t)
	t.Cleanup(func() { s.try("delete", "pv", "-l", "of="+s.ns, "--wait=false") })
	volume := func(name, size, more string) string {
		return "---\napiVersion: v1\nkind: PersistentVolume\nmetadata: {name: " + s.ns + "-" + name + ", labels: {of: " + s.ns + "}}\nspec: {capacity: {storage: " + size +
			"}, accessModes: [ReadWriteOnce], storageClassName: " + s.ns + ", hostPath: {path: /tmp}, " + more + "}\n"
	}
	claim := func(name, more string) string {
		return "---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: " + name + "}\nspec: {accessModes: [ReadWriteOnce], storageClassName: " + s.ns +
			", resources: {requests: {storage: 2Gi}}, " + more + "}\n"
	}
	s.apply(claim("c", "selector: {matchLabels: {of: "+s.ns+"}}") + podOf("web", "terminationGracePeriodSeconds: 0",
		"volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]", "containers:", container("main", forever)) +
		podOf("lost", "terminationGracePeriodSeconds: 0", "volumes: [{name: v, persistentVolumeClaim: {claimName: nothing}}]", "containers:", container("main", forever)))
	s.event("web", "FailedScheduling", "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. "+
		"preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.")
	s.event("lost", "FailedScheduling", `0/1 nodes are available: persistentvolumeclaim "nothing" not found.`)
	s.apply(volume("small", "1Gi", "") + volume("fits", "4Gi", "persistentVolumeReclaimPolicy: Recycle") + volume("big", "8Gi", ""))
	s.ready("web")
	if got := s.volumeFor("c"); got != s.ns+"-fits" {
		t.Errorf("the claim got %s", got)
	}
	want(t, "a claim", s.kubectl("get", "pvc", "c"), "Bound", s.ns+"-fits", "4Gi", "RWO")
	want(t, "a volume", s.kubectl("get", "pv", s.ns+"-fits"), "Bound", s.ns+"/c", "Recycle")
	want(t, "a description", s.kubectl("describe", "pvc", "c"), "Used By:       web", "Finalizers:    [kubernetes.io/pvc-protection]")

	// It grows only where its class lets it, and is nobody's after it is deleted.
	if out := s.refused("patch", "pvc", "c", "-p", `{"spec":{"resources":{"requests":{"storage":"3Gi"}}}}`); !strings.Contains(out, "the storageclass that provisions the pvc must support resize") {
		t.Errorf("a claim that grows: %s", out)
	}
	s.kubectl("delete", "pvc", "c", "--wait=false")
	s.kubectl("delete", "pod", "web")
	s.eventually("the volume's failure", func() error {
		if out := s.kubectl("get", "pv", s.ns+"-fits"); !strings.Contains(out, "Failed") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	want(t, "the volume", s.kubectl("describe", "pv", s.ns+"-fits"), "No recycler plugin found for the volume!")
}
