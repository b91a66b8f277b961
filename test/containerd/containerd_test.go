package containerd

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const containerdConfig = `version = 3
root = "DIR/containerd/root"
state = "DIR/containerd/state"
[grpc]
  address = "DIR/containerd/containerd.sock"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'overlayfs'
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = 'docker.io/library/pause:1'
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = 'DIR/certs.d'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  cdi_spec_dirs = ['DIR/cdi']
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = 'runc'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = 'io.containerd.runc.v2'
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = 'runc'
        SystemdCgroup = false
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['PROGRAMS']
    conf_dir = 'DIR/cni/net.d'
    conf_template = 'DIR/cni/template'
[plugins.'io.containerd.nri.v1.nri']
  disable = true
[plugins.'io.containerd.internal.v1.opt']
  path = 'DIR/containerd/opt'
`

// cniTemplate becomes the configuration once the agent has told the node's range: that is what UpdateRuntimeConfig is for.
const cniTemplate = `{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "DIR/cni/ipam", "ranges": [[{"subnet": "{{.PodCIDR}}"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}, "backend": "nftables"}]}
`

// startContainerd starts containerd, or starts it again, and returns it and its endpoint.
func (m *machine) startContainerd() (*exec.Cmd, string) {
	m.Helper()
	fill := strings.NewReplacer("DIR", m.Dir, "PROGRAMS", programs).Replace
	for _, dir := range []string{"containerd", "cni/net.d"} {
		if err := os.MkdirAll(filepath.Join(m.Dir, dir), 0o755); err != nil {
			m.Fatal(err)
		}
	}
	for name, text := range map[string]string{"containerd/config.toml": containerdConfig, "cni/template": cniTemplate} {
		if err := os.WriteFile(filepath.Join(m.Dir, name), []byte(fill(text)), 0o600); err != nil {
			m.Fatal(err)
		}
	}
	os.Remove(m.log("containerd"))
	cmd := m.start("containerd", "containerd successfully booted", filepath.Join(programs, "containerd"), "--config", filepath.Join(m.Dir, "containerd/config.toml"))
	return cmd, "unix://" + filepath.Join(m.Dir, "containerd/containerd.sock")
}

// TestContainerd runs the examples on containerd with runc and the CNI plugins.
func TestContainerd(t *testing.T) {
	m := newMachine(t)
	daemon, endpoint := m.startContainerd()
	c := m.cluster(endpoint)
	leave := c.neighbour()
	c.mustCarob(c.upArgs()...)
	t.Cleanup(func() { c.carob("uninstall") })
	c.step("names", func() {
		want(c, "the node's runtime", c.get("node "+nodeName, "{.status.nodeInfo.containerRuntimeVersion}"), "containerd://v2.4.2")
		want(c, "carob status", c.mustCarob("status"), "containerd v2.4.2 at "+endpoint)
	})
	c.examples("containerd")
	c.step("images", func() {
		c.mustCarob("image", "pull", "docker.io/library/busybox:latest")
		want(c, "carob image ls", c.mustCarob("image", "ls"), "docker.io/library/busybox:latest", "docker.io/library/nginx:1.8")
		c.mustCarob("image", "rm", "docker.io/library/busybox:latest")
		if out := c.mustCarob("image", "ls"); strings.Contains(out, "busybox") {
			c.Errorf("busybox is still there:\n%s", out)
		}
		if out, err := c.carob("image", "pull", "docker.io/library/nobody:1"); err == nil || !strings.Contains(out, "(ImageNotFound)") || strings.Contains(out, "rpc error") {
			c.Errorf("an image that is nowhere: %v: %s", err, out)
		}
		for _, args := range [][]string{{"image", "rm", "docker.io/library/busybox:latest"}, {"image", "import", os.Args[0]}, {"image", "export", "nginx"}} {
			out, err := c.carob(args...)
			if err == nil || args[1] != "rm" && !strings.Contains(out, "ctr --namespace k8s.io images "+args[1]) || args[1] == "rm" && !strings.Contains(out, "ImageNotFound") {
				c.Errorf("carob %s: %v: %s", strings.Join(args, " "), err, out)
			}
		}
	})
	c.step("host port", func() {
		c.apply(busybox("port", "httpd -f -p 8080 -h /etc", `ports: [{containerPort: 8080, hostPort: 18080}]`))
		c.kubectl("wait", "--for=condition=Ready", "--timeout=30s", "pod/port")
		c.eventually(10*time.Second, "the host port answers", func() error {
			_, err := c.curl("http://192.0.2.10:18080/hostname")
			return err
		})
		c.kubectl("delete", "pod", "port", "--grace-period=1")
	})
	c.step("containerd away", func() {
		c.apply(busybox("away", "echo up; sleep 4; exit 7", ""))
		c.kubectl("wait", "--for=condition=Ready", "--timeout=30s", "pod/away")
		m.stop(daemon, syscall.SIGKILL)
		c.waitGet("node "+nodeName, `{.status.conditions[?(@.type=="Ready")].status}`, "False")
		out, _ := c.carob("status")
		want(c, "carob status", out, "NoRuntime")
		time.Sleep(4 * time.Second) // the container ends meanwhile
		daemon, _ = m.startContainerd()
		c.waitGet("node "+nodeName, `{.status.conditions[?(@.type=="Ready")].status}`, "True")
		// containerd itself forgets the codes of what ended while it was away.
		c.waitGet("pod away", "{.status.phase} {.status.containerStatuses[0].state.terminated.exitCode}", "Failed 255")
		c.kubectl("delete", "pod", "away", "--grace-period=0", "--force")
	})
	c.finish(leave)
}

// neighbour makes a sandbox that is none of Carob's. The function that it returns sees that it was left alone, and takes it away.
func (c *cluster) neighbour() (leave func()) {
	c.Helper()
	r, ctx := c.cri(), context.Background()
	made, err := r.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "neighbour", Namespace: "elsewhere", Uid: "neighbour"}, Linux: &runtimeapi.LinuxPodSandboxConfig{
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE}}}}})
	if err != nil {
		c.Fatal(err)
	}
	return func() {
		list, err := r.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
		if items := list.GetItems(); err != nil || len(items) != 1 || items[0].GetId() != made.GetPodSandboxId() || items[0].GetState() != runtimeapi.PodSandboxState_SANDBOX_READY {
			c.Errorf("sandboxes in the end: %v, %v; want the neighbour's alone, ready", items, err)
		}
		if all, err := r.ListContainers(ctx, &runtimeapi.ListContainersRequest{}); err != nil || len(all.GetContainers()) > 0 {
			c.Errorf("containers in the end: %v, %v", all, err)
		}
		if _, err := r.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: made.GetPodSandboxId()}); err != nil {
			c.Error(err)
		}
		if _, err := r.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: made.GetPodSandboxId()}); err != nil {
			c.Error(err)
		}
	}
}

// cri speaks with the runtime, past Carob.
func (c *cluster) cri() runtimeapi.RuntimeServiceClient {
	c.Helper()
	conn, err := grpc.NewClient(c.endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		c.Fatal(err)
	}
	c.top.Cleanup(func() { conn.Close() })
	return runtimeapi.NewRuntimeServiceClient(conn)
}

// step is a part of a test; the next one goes on although it failed.
func (c *cluster) step(name string, f func()) {
	c.Helper()
	whole, began := c.T, time.Now()
	whole.Run(name, func(t *testing.T) {
		c.T = t
		f()
	})
	c.T = whole
	c.Logf("%s: %s", name, time.Since(began).Round(time.Millisecond))
}

func want(t testing.TB, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s lacks %q:\n%s", what, p, text)
		}
	}
}

// busybox is a Pod of one container that runs a script.
func busybox(name, script, more string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox
    command: ["sh", "-c", %q]
    %s
`, name, script, more)
}
