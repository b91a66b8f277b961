//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"carob.dev/carob/test/host"
	"carob.dev/carob/test/leak"
)

// What run.sh built, and hands on as absolute paths.
var (
	carobBinary    = os.Getenv("CAROB_BINARY")
	kubectlBinary  = os.Getenv("KUBECTL_BINARY")
	registryBinary = os.Getenv("REGISTRY_BINARY")
	imageFolder    = os.Getenv("IMAGE_FOLDER")
)

const (
	nodeName  = "n1.example.com"
	nodeIP    = "192.0.2.10"
	privateAs = "private.example.com"
)

// cluster is a Carob in a test host of its own, with registries beside it.
type cluster struct {
	host       *host.Host
	kubeconfig string
	kube       kubernetes.Interface
	helpers    []*exec.Cmd
	gone       bool
}

// newCluster makes the host and its registries; up starts the Carob. Both end with the test, and nothing may be left then.
func newCluster(t testing.TB) *cluster {
	t.Helper()
	for _, v := range []string{carobBinary, kubectlBinary, registryBinary, imageFolder} {
		if v == "" {
			t.Fatal("run these tests with test/e2e/run.sh, which builds what they need")
		}
	}
	c := &cluster{host: host.New(t)}
	c.kubeconfig = filepath.Join(c.host.Dir, "kubeconfig")
	c.note(t)
	t.Cleanup(func() { os.Remove(c.notePath()) })
	t.Cleanup(func() {
		if !c.gone {
			c.uninstall(t)
		}
	})
	if out, err := c.host.Command("ip", "addr", "add", nodeIP+"/32", "dev", "lo").CombinedOutput(); err != nil {
		t.Fatalf("give the host an address: %v: %s", err, out)
	}
	c.startRegistry(t, "127.0.0.1:5000", "docker.io")
	c.startRegistry(t, "127.0.0.1:5001", privateAs, "-private", "nginx=tester:secret")
	return c
}

// note tells run.sh which host to clean up if this process is cut short.
func (c *cluster) note(t testing.TB) {
	t.Helper()
	if err := os.WriteFile(c.notePath(), []byte(c.host.Root+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) notePath() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("host-%d", c.host.HolderPID()))
}

func (c *cluster) certs() string { return filepath.Join(c.host.Dir, "certs.d") }

func (c *cluster) startRegistry(t testing.TB, addr, as string, more ...string) {
	t.Helper()
	cmd := c.host.Command(registryBinary, append([]string{"-addr", addr, "-as", as, "-images", imageFolder, "-hosts", c.certs()}, more...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.helpers = append(c.helpers, cmd)
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	lines := bufio.NewReader(out)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatalf("the registry for %s did not start: %v", as, err)
	}
	go lines.WriteTo(bytes.NewBuffer(nil))
}

// flags of every `carob up` of this cluster.
func (c *cluster) upArgs() []string {
	return []string{"up", "-d", "--root", c.host.Root, "--kubeconfig", c.kubeconfig, "--registry-config-dir", c.certs(), "--node-name", nodeName,
		"--kubelet-dir", c.kubeletDir(),
		"--pod-manifests", c.manifests(),
		"--eviction-hard=memory.available<10Mi", // the disk of the machine is not the tests' own
		"--allowed-unsafe-sysctls", "kernel.msg*"}
}

// manifests is the folder of static Pods.
func (c *cluster) manifests() string { return filepath.Join(c.host.Dir, "manifests") }

// kubeletDir is the node's folder as CSI drivers know it.
func (c *cluster) kubeletDir() string { return filepath.Join(c.host.Dir, "kubelet") }

// up starts the Carob and returns what it printed once the node is Ready.
func (c *cluster) up(t testing.TB) string {
	t.Helper()
	out, err := c.carob(c.upArgs()...)
	if err != nil {
		c.showLog()
		t.Fatalf("carob up: %v\n%s", err, out)
	}
	if c.kube == nil {
		c.kube = c.client(t)
	}
	return out
}

// carob runs the binary in the host. It leaves the environment's KUBECONFIG out.
func (c *cluster) carob(args ...string) (string, error) { return c.carobWithin(2*time.Minute, args...) }

func (c *cluster) carobWithin(limit time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	out, err := c.command(ctx, carobBinary, args...).CombinedOutput()
	return string(out), err
}

func (c *cluster) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := c.host.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig, "HOME="+c.host.Dir, "CAROB_ROOT="+c.host.Root)
	return cmd
}

// uninstall stops all and looks for anything left.
func (c *cluster) uninstall(t testing.TB) {
	t.Helper()
	c.gone = true
	if out, err := c.carob("down", "--root", c.host.Root); err != nil {
		t.Errorf("carob down: %v\n%s", err, out)
	}
	// Mounts, cgroups and tables stay for the next start: down only ends what lives.
	if left := c.leaks(t, leak.Scope{KeepRoot: true}, "process", "namespace", "link"); len(left) > 0 {
		t.Errorf("left after carob down:\n%s", strings.Join(left, "\n"))
	}
	log, _ := os.ReadFile(filepath.Join(c.host.Root, "carob.log"))
	os.WriteFile(c.savedLog(), log, 0o600)
	if out, err := c.carob("uninstall", "--root", c.host.Root); err != nil {
		t.Errorf("carob uninstall: %v\n%s", err, out)
	}
	c.nothingLeft(t)
}

// nothingLeft checks what an uninstall left on the machine.
func (c *cluster) nothingLeft(t testing.TB) {
	t.Helper()
	if left := c.leaks(t, leak.Scope{}); len(left) > 0 {
		t.Errorf("left after carob uninstall:\n%s", strings.Join(left, "\n"))
	}
	if _, err := os.Stat(c.kubeconfig); err == nil {
		t.Errorf("left after carob uninstall: the kubeconfig %s", c.kubeconfig)
	}
}

// leaks finds what is there although it should not be, of the given kinds or of all. What is on its way out has a moment for it.
func (c *cluster) leaks(t testing.TB, scope leak.Scope, kinds ...string) (found []string) {
	t.Helper()
	scope.Root, scope.HolderPID = c.host.Root, c.host.HolderPID()
	for _, h := range c.helpers {
		scope.Ignore = append(scope.Ignore, h.Process.Pid)
	}
	for deadline := time.Now().Add(3 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		leaks, err := leak.Find(scope)
		if err != nil {
			t.Fatalf("look for leaks: %v", err)
		}
		found = nil
		for _, l := range leaks {
			if len(kinds) == 0 || slices.Contains(kinds, l.Kind) {
				found = append(found, l.String())
			}
		}
		if len(found) == 0 || time.Now().After(deadline) {
			return found
		}
	}
}

// showLog prints the end of the Carob's log.
func (c *cluster) showLog() {
	if c == nil || c.host == nil {
		return
	}
	log, _ := os.ReadFile(filepath.Join(c.host.Root, "carob.log"))
	if len(log) == 0 {
		log, _ = os.ReadFile(c.savedLog())
	}
	if len(log) > 8000 {
		log = log[len(log)-8000:]
	}
	fmt.Printf("the end of carob.log:\n%s\n", log)
}

// savedLog outlives the root.
func (c *cluster) savedLog() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("carob-%d.log", c.host.HolderPID()))
}

// checkLog looks for signs of a loop that turns without end, and of a panic.
func (c *cluster) checkLog(t testing.TB) {
	t.Helper()
	log, err := os.ReadFile(c.savedLog())
	if err != nil {
		t.Fatal(err)
	}
	for _, sign := range []string{"too many queued events", "panic", "goroutine "} {
		for line := range strings.Lines(string(log)) {
			if strings.Contains(line, sign) && !strings.Contains(line, "panicked: false") {
				t.Errorf("carob.log has %d lines with %q, the first is:\n%s", strings.Count(string(log), sign), sign, line)
				break
			}
		}
	}
}

// client talks to the API server from outside the host. It only waits and counts: what is tried goes through kubectl.
func (c *cluster) client(t testing.TB) kubernetes.Interface {
	t.Helper()
	rc, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	rc.QPS, rc.Burst = 1000, 1000
	rc.Dial = c.dial
	kube, err := kubernetes.NewForConfig(rc)
	if err != nil {
		t.Fatal(err)
	}
	return kube
}

// dial connects from inside the host's network namespace.
func (c *cluster) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return inNetwork(c, func() (net.Conn, error) {
		d := net.Dialer{Timeout: 5 * time.Second}
		return d.DialContext(ctx, network, addr)
	})
}

// listen listens inside the host's network namespace.
func (c *cluster) listen(addr string) (net.Listener, error) {
	return inNetwork(c, func() (net.Listener, error) { return net.Listen("tcp", addr) })
}

// inNetwork runs f in the host's network namespace: a socket stays in the one that it was made in.
func inNetwork[T any](c *cluster, f func() (T, error)) (made T, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread is never given back: it ends with this goroutine, in the namespace it entered.
		runtime.LockOSThread()
		var ns *os.File
		if ns, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", c.host.HolderPID())); err != nil {
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			made, err = f()
		}
	}()
	<-done
	return made, err
}
