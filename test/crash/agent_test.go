//go:build crash

package crash

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"carob.dev/carob/test/host"
	"carob.dev/carob/test/leak"
)

// wholeLife is a Pod that uses everything that has an order: init containers, a sidecar, hooks, a container that fails once. Each writes
// down what it does.
const wholeLife = `
apiVersion: v1
kind: Pod
metadata: {name: life}
spec:
  restartPolicy: OnFailure
  terminationGracePeriodSeconds: 10
  volumes: [{name: w, hostPath: {path: %q}}]
  initContainers:
  - {name: i, image: "docker.io/library/busybox:latest", imagePullPolicy: IfNotPresent, command: [sh, -c, "echo i >> /w/log"], volumeMounts: [{name: w, mountPath: /w}]}
  - {name: j, image: "docker.io/library/busybox:latest", imagePullPolicy: IfNotPresent, command: [sh, -c, "echo j >> /w/log"], volumeMounts: [{name: w, mountPath: /w}]}
  - name: side
    image: docker.io/library/busybox:latest
    imagePullPolicy: IfNotPresent
    restartPolicy: Always
    command: [sh, -c, "mkdir /w/side || echo two side >> /w/log; echo side >> /w/log; trap 'echo side-end >> /w/log; exit 0' TERM; while :; do sleep 0.05; done"]
    lifecycle: {postStart: {exec: {command: [sh, -c, "echo side-hook >> /w/log"]}}}
    volumeMounts: [{name: w, mountPath: /w}]
  containers:
  - name: a
    image: docker.io/library/busybox:latest
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "mkdir /w/a || echo two a >> /w/log; echo a >> /w/log; trap 'echo a-end >> /w/log; exit 0' TERM; n=0; while [ ! -e /w/failed ]; do sleep 0.05; n=$((n+1)); [ ! -e /w/hooked ] && [ $n -lt 60 ] || { touch /w/failed; rmdir /w/a; exit 3; }; done; while :; do sleep 0.05; done"]
    lifecycle: {postStart: {exec: {command: [sh, -c, "echo a-hook >> /w/log; touch /w/hooked"]}}, preStop: {exec: {command: [sh, -c, "echo a-stop >> /w/log"]}}}
    volumeMounts: [{name: w, mountPath: /w}]
`

// TestWorkerPoints has carob die at each point between two side effects of a Pod's worker, and live on: what is to be in order stays in order,
// nothing runs twice, hooks run once for each instance at most and never out of turn, and restarts are counted right.
func TestWorkerPoints(t *testing.T) {
	n := newNode(t)
	points := n.life(t, "")
	if len(points) < 20 {
		t.Fatalf("only %d points: %v", len(points), points)
	}
	if i := slices.IndexFunc(points, func(p point) bool { return p.String() == *from }); i > 0 {
		points = points[i:]
	}
	died := 0
	for _, p := range points {
		if *only != "" && *only != p.String() {
			continue
		}
		began := time.Now()
		n.life(t, p.String())
		t.Logf("%v: died %v, %v", p, n.died, time.Since(began).Round(time.Millisecond))
		if n.died {
			died++
		}
		if t.Failed() {
			t.Fatalf("died at %v", p)
		}
	}
	t.Logf("died at %d of %d points", died, len(points))
	if died < len(points)*3/4 {
		t.Errorf("%d of %d points were not met again", len(points)-died, len(points))
	}
	n.end(t)
}

// node is a whole Carob in a test host.
type node struct {
	host            *host.Host
	bin, kubeconfig string
	pid             int
	died            bool
}

func newNode(t *testing.T) *node {
	t.Helper()
	bin, err := filepath.Abs("../../bin/carob")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{host: host.New(t), bin: bin}
	n.kubeconfig = filepath.Join(n.host.Dir, "kubeconfig")
	if out, err := n.host.Command("ip", "addr", "add", "192.0.2.10/32", "dev", "lo").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() { n.try(nil, "uninstall", "--root", n.host.Root) })
	n.up(t)
	if out, err := n.try(nil, "image", "import", "--root", n.host.Root, "../../build/images/busybox.tar"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return n
}

func (n *node) try(env []string, args ...string) (string, error) {
	cmd := n.host.Command(n.bin, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// up starts carob.
func (n *node) up(t *testing.T, env ...string) {
	t.Helper()
	if out, err := n.try(env, "up", "-d", "--root", n.host.Root, "--kubeconfig", n.kubeconfig, "--node-name", "n", "--eviction-hard=none"); err != nil {
		t.Fatalf("up: %v\n%s", err, out)
	}
	var status struct{ PID int }
	out, err := n.try(nil, "status", "--root", n.host.Root, "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &status)
	}
	if err != nil || status.PID == 0 {
		t.Fatalf("status: %v\n%s", err, out)
	}
	n.pid = status.PID
}

// down ends carob and leaves its Pods.
func (n *node) down() {
	syscall.Kill(n.pid, syscall.SIGTERM)
	for deadline := time.Now().Add(10 * time.Second); n.alive() && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
	}
}

func (n *node) alive() bool { return n.pid > 0 && syscall.Kill(n.pid, 0) == nil }

// kubectl tries until it is answered; a carob that has died is started again, and dies no more.
func (n *node) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	var out string
	var err error
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(250 * time.Millisecond) {
		if !n.alive() {
			n.died = true
			n.up(t)
		}
		out, err = n.try(nil, append([]string{"kubectl", "--kubeconfig", n.kubeconfig}, args...)...)
		if err == nil || n.alive() && !slices.ContainsFunc([]string{"refused", "EOF", "broken pipe", "reset by peer"}, func(s string) bool { return strings.Contains(out, s) }) {
			break
		}
	}
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// life lives one Pod's life with a carob that dies at the point. Without a point it lists those there are.
func (n *node) life(t *testing.T, at string) (list []point) {
	t.Helper()
	n.died = false
	dir := t.TempDir()
	file := filepath.Join(dir, "pod.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, wholeLife, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Chmod(dir, 0o777)
	n.down()
	env := []string{"CAROB_FAILPOINT=" + at}
	if at == "" {
		env = []string{"CAROB_FAILPOINT_LIST=" + filepath.Join(n.host.Dir, "points")}
	}
	n.up(t, env...)
	n.kubectl(t, "apply", "-f", file)
	uid := n.kubectl(t, "get", "pod", "life", "-o", "jsonpath={.metadata.uid}")
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(250 * time.Millisecond) {
		got := n.kubectl(t, "get", "pod", "life", "-o", `jsonpath={.status.phase} {range .status.containerStatuses[*]}{.restartCount} {.ready}{end}`)
		if got == "Running 1 true" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("died at %s: the Pod is %q\n%s\n%s", at, got, read(dir), n.kubectl(t, "describe", "pod", "life"))
		}
	}
	n.kubectl(t, "delete", "pod", "life", "--ignore-not-found", "--wait=false")
	for deadline := time.Now().Add(30 * time.Second); n.kubectl(t, "get", "pods", "-o", "name") != "" || n.left(uid); time.Sleep(250 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("died at %s: the Pod does not go\n%s", at, read(dir))
		}
	}
	checkLife(t, at, read(dir))
	if at != "" {
		return nil
	}
	n.down()
	raw, err := os.ReadFile(filepath.Join(n.host.Dir, "points"))
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for name := range strings.FieldsSeq(string(raw)) {
		if !strings.HasPrefix(name, "agent/") && !strings.HasPrefix(name, "volume/") {
			continue
		}
		if count[name]++; strings.HasPrefix(name, "agent/status/") && count[name] > 4 {
			continue // they are all alike
		}
		list = append(list, point{name, count[name]})
	}
	return list
}

// left says whether something of the Pod is still on the node.
func (n *node) left(uid string) bool {
	run, _ := filepath.Glob("/run/carob*/agent/" + uid + ".json")
	pods, _ := filepath.Glob(filepath.Join(n.host.Root, "pods", uid))
	return len(run)+len(pods) > 0
}

func read(dir string) []string {
	raw, _ := os.ReadFile(filepath.Join(dir, "log"))
	return strings.Split(strings.TrimSpace(string(raw)), "\n")
}

func checkLife(t *testing.T, at string, log []string) {
	t.Helper()
	count := map[string]int{}
	for _, l := range log {
		count[l]++
	}
	for what, times := range map[string]int{"i": 1, "j": 1, "side": 1, "a": 2, "side-end": 1, "a-end": 1, "two a": 0, "two side": 0} {
		if count[what] != times {
			t.Errorf("died at %s: %q %d times, want %s", at, what, count[what], strconv.Itoa(times))
		}
	}
	// A hook is on record before it runs: it may be missed by a death just then, and never comes twice.
	for what, most := range map[string]int{"side-hook": 1, "a-hook": 2, "a-stop": 1} {
		if n := count[what]; n > most || at == "" && n != most || n < most-1 {
			t.Errorf("died at %s: %q %d times, want %d", at, what, n, most)
		}
	}
	last := -1
	for _, what := range []string{"i", "j", "side", "a", "a-end", "side-end"} {
		i := slices.Index(log, what)
		if i < last {
			t.Errorf("died at %s: %q came too soon", at, what)
		}
		last = max(last, i)
	}
	if t.Failed() {
		t.Logf("%q", log)
	}
}

// end uninstalls and holds that nothing is left.
func (n *node) end(t *testing.T) {
	t.Helper()
	if out, err := n.try(nil, "uninstall", "--root", n.host.Root); err != nil {
		t.Fatalf("uninstall: %v\n%s", err, out)
	}
	leaks, err := leak.Find(leak.Scope{Root: n.host.Root, HolderPID: n.host.HolderPID()})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range leaks {
		t.Errorf("left behind: %v", l)
	}
}
