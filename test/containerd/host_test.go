package containerd

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"carob.dev/carob/internal/runtime/shim/pause"
	"carob.dev/carob/test/host"
	"carob.dev/carob/test/leak"
)

// What run.sh built: absolute paths.
var (
	carobBinary    = os.Getenv("CAROB_BINARY")
	kubectlBinary  = os.Getenv("KUBECTL_BINARY")
	registryBinary = os.Getenv("REGISTRY_BINARY")
	imageFolder    = os.Getenv("IMAGE_FOLDER")
	programs       = os.Getenv("PROGRAMS")
)

// machine is a test host with a registry and whatever runtime a test starts in it.
type machine struct {
	// T is that of the step under way, top that of the test: what is started lives as long as the test.
	*testing.T
	top *testing.T
	*host.Host
	helpers []*exec.Cmd
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	for _, v := range []string{carobBinary, kubectlBinary, registryBinary, imageFolder, programs} {
		if v == "" {
			t.Fatal("run these tests with test/containerd/run.sh, which builds what they need")
		}
	}
	m := &machine{T: t, top: t, Host: host.New(t)}
	// What containerd and CNI leave in places that no setting moves goes with the host.
	for _, dir := range []string{"/run/containerd", "/var/lib/cni", "/opt/containerd"} {
		if _, err := os.Stat(dir); err != nil {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.Remove(dir); os.Remove(filepath.Dir(dir)) })
		}
		m.must("mount", "-t", "tmpfs", "tmpfs", dir)
	}
	m.must("ip", "addr", "add", "192.0.2.10/32", "dev", "lo")
	images := filepath.Join(m.Dir, "images")
	if err := os.Mkdir(images, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"busybox", "debian", "nginx"} {
		if err := os.Symlink(filepath.Join(imageFolder, name+".tar"), filepath.Join(images, name+".tar")); err != nil {
			t.Fatal(err)
		}
	}
	if err := writePause(filepath.Join(images, "pause.tar")); err != nil {
		t.Fatal(err)
	}
	m.start("registry", "127.0.0.1:5000\n", registryBinary, "-addr", "127.0.0.1:5000", "-as", "docker.io", "-images", images, "-hosts", m.certs())
	return m
}

func (m *machine) certs() string { return filepath.Join(m.Dir, "certs.d") }

// must runs a command in the host.
func (m *machine) must(name string, args ...string) string {
	m.Helper()
	out, err := m.Command(name, args...).CombinedOutput()
	if err != nil {
		m.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// start runs a program in the host until the test ends or it is stopped; its output goes to a file. With a sign it is waited for until it
// prints that.
func (m *machine) start(name, sign, program string, args ...string) *exec.Cmd {
	m.Helper()
	log, err := os.OpenFile(m.log(name), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		m.Fatal(err)
	}
	defer log.Close()
	cmd := m.Command(program, args...)
	cmd.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		m.Fatal(err)
	}
	m.helpers = append(m.helpers, cmd)
	m.top.Cleanup(func() {
		if m.top.Failed() {
			m.showLog(name)
		}
		m.stop(cmd, syscall.SIGTERM)
	})
	if sign != "" {
		m.eventually(30*time.Second, name+" starts", func() error {
			raw, err := os.ReadFile(m.log(name))
			if err == nil && !bytes.Contains(raw, []byte(sign)) {
				err = fmt.Errorf("it said: %s", raw)
			}
			return err
		})
	}
	return cmd
}

func (m *machine) log(name string) string { return filepath.Join(m.Dir, name+".log") }

func (m *machine) showLog(name string) {
	raw, err := os.ReadFile(m.log(name))
	if err != nil {
		m.Logf("the log of %s: %v", name, err)
		return
	}
	if len(raw) > 8000 {
		raw = raw[len(raw)-8000:]
	}
	m.Logf("the end of the log of %s:\n%s", name, raw)
}

// stop ends a program with the signal, and by force if it takes its time.
func (m *machine) stop(cmd *exec.Cmd, sig syscall.Signal) {
	if cmd.ProcessState != nil {
		return
	}
	cmd.Process.Signal(sig)
	timer := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
	defer timer.Stop()
	cmd.Wait()
}

func (m *machine) eventually(limit time.Duration, what string, f func() error) {
	m.Helper()
	var err error
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	m.Fatalf("%s: not within %s: %v", what, limit, err)
}

// leftBehind looks for what is there although nothing should be, but for what the CNI plugins keep: their bridge and their table.
func (m *machine) leftBehind() {
	m.Helper()
	scope := leak.Scope{Root: m.Root, HolderPID: m.HolderPID()}
	for _, h := range m.helpers {
		if h.ProcessState == nil {
			scope.Ignore = append(scope.Ignore, h.Process.Pid)
		}
	}
	var found []string
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		leaks, err := leak.Find(scope)
		if err != nil {
			m.Fatalf("look for leaks: %v", err)
		}
		found = nil
		for _, l := range leaks {
			if text := l.String(); !strings.Contains(text, "link: cni0 ") && !strings.Contains(text, "cni_hostport") {
				found = append(found, text)
			}
		}
		if len(found) == 0 || time.Now().After(deadline) {
			break
		}
	}
	if len(found) > 0 {
		m.Errorf("left behind:\n%s", strings.Join(found, "\n"))
	}
}

const nodeName = "n1.example.com"

// cluster is a Carob on the machine.
type cluster struct {
	*machine
	kubeconfig, endpoint string
}

func (m *machine) cluster(endpoint string) *cluster {
	return &cluster{machine: m, kubeconfig: filepath.Join(m.Dir, "kubeconfig"), endpoint: endpoint}
}

// run runs a program of ours in the host.
func (c *cluster) run(stdin string, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := c.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig, "HOME="+c.Dir)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (c *cluster) upArgs() []string {
	return []string{"up", "-d", "--root", c.Root, "--kubeconfig", c.kubeconfig, "--node-name", nodeName, "--eviction-hard=none", "--registry-config-dir", c.certs(), "--runtime-endpoint=" + c.endpoint}
}

func (c *cluster) carob(args ...string) (string, error) {
	if args[0] != "up" {
		args = append(args, "--root", c.Root)
	}
	return c.run("", carobBinary, args...)
}

func (c *cluster) mustCarob(args ...string) string {
	c.Helper()
	out, err := c.carob(args...)
	if err != nil {
		c.Fatalf("carob %s: %v\n%s\n%s", strings.Join(args, " "), err, out, c.carobLog())
	}
	return out
}

func (c *cluster) carobLog() string {
	raw, _ := os.ReadFile(filepath.Join(c.Root, "carob.log"))
	if len(raw) > 6000 {
		raw = raw[len(raw)-6000:]
	}
	return "the end of carob.log:\n" + string(raw)
}

func (c *cluster) kubectl(args ...string) string {
	c.Helper()
	out, err := c.run("", kubectlBinary, args...)
	if err != nil {
		c.Fatalf("kubectl %s: %v\n%s\n%s", strings.Join(args, " "), err, out, c.carobLog())
	}
	return out
}

func (c *cluster) apply(manifest string) {
	c.Helper()
	if out, err := c.run(manifest, kubectlBinary, "apply", "-f", "-"); err != nil {
		c.Fatalf("kubectl apply: %v\n%s", err, out)
	}
}

// get asks for one field.
func (c *cluster) get(what, jsonPath string) string {
	out, err := c.run("", kubectlBinary, append([]string{"get", "-o", "jsonpath=" + jsonPath}, strings.Fields(what)...)...)
	if err != nil {
		return err.Error() + out
	}
	return out
}

func (c *cluster) waitGet(what, jsonPath, want string) {
	c.Helper()
	c.eventually(30*time.Second, what+" "+jsonPath, func() error {
		if got := c.get(what, jsonPath); got != want {
			return fmt.Errorf("%q, want %q", got, want)
		}
		return nil
	})
}

func (c *cluster) curl(url string) (string, error) {
	out, err := c.Command("curl", "-sS", "--max-time", "5", "-f", url).CombinedOutput()
	return string(out), err
}

// daemon is the process of `up -d`.
func (c *cluster) daemon() int {
	c.Helper()
	var s struct{ PID int }
	out, _ := c.carob("status", "-o", "json")
	if err := json.Unmarshal([]byte(out), &s); err != nil || s.PID == 0 {
		c.Fatalf("carob status: %v: %s", err, out)
	}
	return s.PID
}

// killDaemon ends the Carob as a crash would.
func (c *cluster) killDaemon() {
	c.Helper()
	pid := c.daemon()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		c.Fatal(err)
	}
	c.eventually(10*time.Second, "the daemon ends", func() error {
		if raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !strings.Contains(string(raw), ") Z ") {
			return fmt.Errorf("it lives")
		}
		return nil
	})
}

// processor is the processor time that a process has used, its ended children's not included.
func processor(t *testing.T, pid int) time.Duration {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	line, _ := bufio.NewReader(f).ReadString('\n')
	_, rest, _ := strings.Cut(line, ") ")
	var user, system int64
	fields := strings.Fields(rest)
	fmt.Sscan(fields[11], &user)
	fmt.Sscan(fields[12], &system)
	return time.Duration(user+system) * 10 * time.Millisecond
}

// writePause writes an OCI archive of Carob's own pause program as docker.io/library/pause:1.
func writePause(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	archive := tar.NewWriter(f)
	add := func(name string, mode int64, data []byte) error {
		if err := archive.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data))}); err != nil {
			return err
		}
		_, err := archive.Write(data)
		return err
	}
	type object = map[string]any
	blob := func(kind string, data []byte) (object, error) {
		sum := sha256.Sum256(data)
		digest := hex.EncodeToString(sum[:])
		return object{"mediaType": kind, "digest": "sha256:" + digest, "size": len(data)}, add("blobs/sha256/"+digest, 0o644, data)
	}
	var layer bytes.Buffer
	lt := tar.NewWriter(&layer)
	elf := pause.ELF()
	if err := lt.WriteHeader(&tar.Header{Name: "pause", Mode: 0o755, Size: int64(len(elf))}); err != nil {
		return err
	}
	if _, err := lt.Write(elf); err != nil {
		return err
	}
	if err := lt.Close(); err != nil {
		return err
	}
	layerDesc, err := blob("application/vnd.oci.image.layer.v1.tar", layer.Bytes())
	if err != nil {
		return err
	}
	raw, err := json.Marshal(object{"architecture": runtime.GOARCH, "os": "linux", "config": object{"Entrypoint": []string{"/pause"}},
		"rootfs": object{"type": "layers", "diff_ids": []any{layerDesc["digest"]}}})
	if err != nil {
		return err
	}
	configDesc, err := blob("application/vnd.oci.image.config.v1+json", raw)
	if err != nil {
		return err
	}
	raw, err = json.Marshal(object{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": configDesc, "layers": []any{layerDesc}})
	if err != nil {
		return err
	}
	manifest, err := blob("application/vnd.oci.image.manifest.v1+json", raw)
	if err != nil {
		return err
	}
	manifest["annotations"] = object{"io.containerd.image.name": "docker.io/library/pause:1", "org.opencontainers.image.ref.name": "1"}
	raw, err = json.Marshal(object{"schemaVersion": 2, "manifests": []any{manifest}})
	if err != nil {
		return err
	}
	if err := add("index.json", 0o644, raw); err != nil {
		return err
	}
	if err := add("oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	return archive.Close()
}
