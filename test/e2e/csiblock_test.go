//go:build e2e && csi

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestCSIBlock has a driver give Pods a device: those containers alone that name it, to read only where the Pod says so, over a crash of the node,
// and larger when it has grown.
func TestCSIBlock(t *testing.T) {
	s, data := csiDriver(t)
	s.apply(claimOf("disk", "folder", "volumeMode: Block"))
	const device = "volumeDevices: [{name: v, devicePath: /dev/xvda}]"
	user := func(name, claim string) string {
		return podOf(name, "terminationGracePeriodSeconds: 1", "volumes: [{name: v, persistentVolumeClaim: "+claim+"}]",
			"containers:", container("main", forever, device), container("other", forever))
	}
	s.apply(user("web", "{claimName: disk}"))
	s.ready("web")
	if got := s.sh("web", "main", "echo on the disk | dd of=/dev/xvda conv=notrunc 2>/dev/null; sync; head -n 1 /dev/xvda; blockdev --getsize64 /dev/xvda"); got != "on the disk\n1048576\n" {
		t.Errorf("the device: %q", got)
	}
	number := strings.TrimSpace(s.sh("web", "main", "stat -c '%t %T' /dev/xvda | { read a b; echo $((0x$a)) $((0x$b)); }"))
	// The container that does not name it may make such a file, but not open it; nor may the other open another device.
	if got := s.sh("web", "other", "ls /dev/xvda 2>&1; mknod /tmp/d b "+number+" && head -c 1 /tmp/d 2>&1; true"); !strings.Contains(got, "No such file") || !strings.Contains(got, "not permitted") {
		t.Errorf("in a container that does not name it: %q", got)
	}
	if got := s.sh("web", "main", "mknod /tmp/d c 1 1 && head -c 1 /tmp/d 2>&1; true"); !strings.Contains(got, "not permitted") {
		t.Errorf("another device: %q", got)
	}
	s.apply(user("reader", "{claimName: disk, readOnly: true}"))
	s.ready("reader")
	if got := s.sh("reader", "main", "head -n 1 /dev/xvda; echo x 2>&1 > /dev/xvda || echo refused"); !strings.HasPrefix(got, "on the disk\n") || !strings.Contains(got, "refused") {
		t.Errorf("a reader's device: %q", got)
	}

	s.c.kill(t)
	s.c.up(t)
	s.ready("web", "reader", "driver")
	if got := s.sh("web", "main", "head -n 1 /dev/xvda; echo after the crash | dd of=/dev/xvda conv=notrunc 2>/dev/null; sync"); got != "on the disk\n" {
		t.Errorf("after the agent's death: %q", got)
	}
	if n := status(s.pod("web"), "main").RestartCount; n != 0 {
		t.Errorf("restarted %d times", n)
	}

	s.kubectl("patch", "pvc", "disk", "-p", `{"spec":{"resources":{"requests":{"storage":"4Mi"}}}}`)
	s.kubectl("delete", "pod", "web")
	if got := s.sh("reader", "main", "head -n 1 /dev/xvda"); got != "after the crash\n" {
		t.Errorf("when another Pod has gone: %q", got)
	}
	s.eventually("the bigger volume", func() error {
		if got := s.kubectl("get", "pv", "-o", "jsonpath={.items[?(@.spec.claimRef.namespace=='"+s.ns+"')].spec.capacity.storage}"); got != "4Mi" {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
	s.apply(user("web", "{claimName: disk}"))
	s.ready("web")
	s.eventually("the bigger device", func() error {
		if got := s.sh("web", "main", "blockdev --getsize64 /dev/xvda"); got != "4194304\n" {
			return fmt.Errorf("%q", got)
		}
		return nil
	})

	s.kubectl("delete", "pod", "web", "reader")
	s.eventually("the detached volume", func() error {
		list, err := s.c.kube.StorageV1().VolumeAttachments().List(t.Context(), metav1.ListOptions{})
		if err == nil && len(list.Items) > 0 {
			err = fmt.Errorf("%+v", list.Items)
		}
		return err
	})
	if out, err := exec.Command("losetup", "--list", "--noheadings", "--output", "BACK-FILE").CombinedOutput(); err != nil || strings.Contains(string(out), data) {
		t.Errorf("loop devices, %v: %s", err, out)
	}
	s.kubectl("delete", "pvc", "disk")
	s.nothingStaged(data)
	if _, err := os.Stat(s.c.host.Root + "/plugins/kubernetes.io/csi/volumeDevices/staging"); err == nil {
		if left, _ := os.ReadDir(s.c.host.Root + "/plugins/kubernetes.io/csi/volumeDevices/staging"); len(left) > 0 {
			t.Errorf("staged still: %v", left)
		}
	}
}
