//go:build crash

package crash

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"carob.dev/carob/test/host"
	"carob.dev/carob/test/leak"
)

const manifest = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: c, image: "docker.io/library/busybox:latest", imagePullPolicy: IfNotPresent, command: [sh, -c, 'trap "exit 0" TERM; while :; do sleep 0.1; done']}
---
apiVersion: v1
kind: Pod
metadata: {name: stays}
spec:
  containers:
  - {name: c, image: "docker.io/library/busybox:latest", imagePullPolicy: IfNotPresent, command: [sh, -c, "while :; do sleep 1; done"]}
`

// TestCarob kills a whole Carob again and again while Pods come and go: no container notices, and uninstalling leaves nothing.
func TestCarob(t *testing.T) {
	bin, err := filepath.Abs("../../bin/carob")
	if err != nil {
		t.Fatal(err)
	}
	h := host.New(t)
	if out, err := h.Command("ip", "addr", "add", "192.0.2.10/32", "dev", "lo").CombinedOutput(); err != nil { // as a machine has one
		t.Fatalf("%v\n%s", err, out)
	}
	kubeconfig := filepath.Join(h.Dir, "kubeconfig")
	try := func(args ...string) (string, error) {
		out, err := h.Command(bin, args...).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	carob := func(args ...string) string {
		t.Helper()
		out, err := try(args...)
		if err != nil {
			t.Fatalf("carob %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return out
	}
	kubectl := func(args ...string) string {
		t.Helper()
		return carob(append([]string{"kubectl", "--kubeconfig", kubeconfig}, args...)...)
	}
	up := func() (pid int) {
		t.Helper()
		carob("up", "-d", "--root", h.Root, "--kubeconfig", kubeconfig, "--node-name", "n", "--eviction-hard=none")
		var status struct{ PID int }
		if err := json.Unmarshal([]byte(carob("status", "--root", h.Root, "-o", "json")), &status); err != nil || status.PID == 0 {
			t.Fatalf("status: %+v, %v", status, err)
		}
		return status.PID
	}
	t.Cleanup(func() { try("uninstall", "--root", h.Root) })
	pid := up()
	carob("image", "import", "--root", h.Root, "../../build/images/busybox.tar")
	file := filepath.Join(h.Dir, "pods.yaml")
	if err := os.WriteFile(file, []byte(manifest), 0o644); err != nil {
		t.Fatal(err)
	}
	kubectl("apply", "-f", file)
	kubectl("wait", "--for=condition=Ready", "pod/stays", "--timeout=60s")
	times := max(*rounds/20, 3)
	for range times {
		kubectl("scale", "deployment", "web", fmt.Sprintf("--replicas=%d", 1+rand.IntN(6)))
		kubectl("delete", "pod", "-l", "app=web", "--wait=false", "--field-selector=status.phase=Running")
		go try("kubectl", "--kubeconfig", kubeconfig, "exec", "stays", "--", "sleep", "0.3")
		time.Sleep(rand.N(700 * time.Millisecond))
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		pid = up()
	}
	kubectl("scale", "deployment", "web", "--replicas=4")
	kubectl("rollout", "status", "deployment", "web", "--timeout=90s")
	for line := range strings.Lines(kubectl("get", "pods", "-o", `jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].restartCount}{"\n"}{end}`)) {
		if name, restarts, _ := strings.Cut(strings.TrimSpace(line), " "); restarts != "0" && restarts != "" {
			t.Errorf("Pod %s was restarted %s times", name, restarts)
		}
	}
	if out := kubectl("exec", "stays", "--", "echo", "hello"); out != "hello" {
		t.Errorf("exec: %s", out)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	carob("uninstall", "--root", h.Root)
	leaks, err := leak.Find(leak.Scope{Root: h.Root, HolderPID: h.HolderPID()})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range leaks {
		t.Errorf("left behind: %v", l)
	}
	t.Logf("killed %d times", times+1)
}
