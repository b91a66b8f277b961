//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestBadInput: what is wrong gets Kubernetes' own words, and harms nothing.
func TestBadInput(t *testing.T) {
	t.Parallel()
	t.Run("Manifests", func(t *testing.T) {
		s := newSpace(t)
		ok := simple("web", forever)
		for name, v := range map[string]struct {
			manifest string
			words    []string
		}{
			"not YAML":         {"a: b: c\n", []string{"error parsing STDIN", "mapping values are not allowed"}},
			"no object":        {"hello\n", []string{"error"}},
			"no kind":          {"apiVersion: v1\nmetadata: {name: a}\n", []string{"kind", "not set"}},
			"unknown field":    {strings.Replace(ok, "containers:", "contaners: []\n  containers:", 1), []string{`unknown field "spec.contaners"`}},
			"wrong type":       {strings.Replace(ok, "GracePeriodSeconds: 1", "GracePeriodSeconds: soon", 1), []string{"cannot unmarshal string into Go struct field", "terminationGracePeriodSeconds of type int64"}},
			"wrong name":       {strings.Replace(ok, "name: web", "name: Web!", 1), []string{`metadata.name: Invalid value: "Web!": a lowercase RFC 1123 subdomain must consist of`}},
			"no containers":    {podOf("web", "containers: []"), []string{"spec.containers: Required value"}},
			"same name twice":  {podOf("web", "containers:", container("a", forever), container("a", forever)), []string{`spec.containers[1].name: Duplicate value: "a"`}},
			"no image":         {strings.Replace(ok, "image: busybox", "image: ''", 1), []string{"spec.containers[0].image: Required value"}},
			"port twice":       {podOf("web", "containers:", container("a", forever, "ports: [{containerPort: 80, hostPort: 8}, {containerPort: 81, hostPort: 8}]")), []string{`spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//8"`}},
			"port too high":    {podOf("web", "containers:", container("a", forever, "ports: [{containerPort: 70000}]")), []string{"spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"}},
			"bad policy":       {podOf("web", "restartPolicy: Sometimes", "containers:", container("a", forever)), []string{`spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"`}},
			"bad quantity":     {podOf("web", "containers:", container("a", forever, "resources: {limits: {cpu: lots}}")), []string{"quantities must match the regular expression"}},
			"requests > limit": {podOf("web", "containers:", container("a", forever, "resources: {limits: {cpu: 1}, requests: {cpu: 2}}")), []string{`spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1`}},
			"no volume":        {podOf("web", "containers:", container("a", forever, mounts("none:/x"))), []string{`spec.containers[0].volumeMounts[0].name: Not found: "none"`}},
			"same path twice":  {podOf("web", "volumes: [{name: v, emptyDir: {}}]", "containers:", container("a", forever, mounts("v:/x", "v:/x"))), []string{`spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/x": must be unique`}},
			"two sources":      {podOf("web", "volumes: [{name: v, emptyDir: {}, hostPath: {path: /}}]", "containers:", container("a", forever)), []string{"spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"}},
			"bad label":        {strings.Replace(ok, "run: web", "run: a/b", 1), []string{`metadata.labels: Invalid value: "a/b"`}},
			"negative grace":   {strings.Replace(ok, "GracePeriodSeconds: 1", "GracePeriodSeconds: -1", 1), nil},
			"no such account":  {podOf("web", "serviceAccountName: nobody", "containers:", container("a", forever)), []string{`pods "web" is forbidden: error looking up service account ` + s.ns + `/nobody: serviceaccount "nobody" not found`}},
			"no namespace":     {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: nowhere}\n", []string{"the namespace from the provided object \"nowhere\" does not match"}},
			"replicas < 0":     {deployment("d", -1), []string{"spec.replicas: Invalid value: -1: must be greater than or equal to 0"}},
			"bad data key":     {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {\"a/b\": c}\n", []string{`data[a/b]: Invalid value: "a/b": a valid config key must consist of`}},
			"bad base64":       {"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {a: '%%%'}\n", []string{"illegal base64 data"}},
		} {
			if v.words == nil {
				continue
			}
			want(t, name, s.applyRefused(v.manifest), v.words...)
		}
		if out := s.kubectl("get", "pods,deploy,secrets", "-o", "name"); out != "" {
			t.Errorf("something was made of bad input: %s", out)
		}
		big := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: big}\ndata: {a: " + strings.Repeat("x", 1<<20+1) + "}\n"
		out, stderr, err := s.run(big, "create", "-f", "-")
		if err == nil || !strings.Contains(stderr, "Too long: may not be more than 1048576 bytes") {
			t.Errorf("a configMap over 1 MiB: %s %.300s %v", out, stderr, err)
		}
	})
	t.Run("NotSupported", func(t *testing.T) {
		s := newSpace(t)
		// Fields that are not acted on yet are refused with their path, never ignored.
		for field, line := range map[string]string{
			"spec.volumes[0].iscsi": "volumes: [{name: v, iscsi: {targetPortal: '192.0.2.1', iqn: iqn.2026-01.com.example:a, lun: 0}}]",
			"spec.resourceClaims":   "resourceClaims: [{name: a, resourceClaimName: b}]",
		} {
			stderr := s.applyRefused(simple("web", forever, line))
			want(t, line, stderr, field)
		}
	})
	t.Run("CarobFlags", func(t *testing.T) {
		for args, code := range map[string]int{
			"up --no-such-flag": 2, "no-such-command": 1, "up --node-name Not_Valid": 2, "up --pod-cidr 10.0.0.0/99": 2, "status --root /nonexistent-root": 3,
			"tree -o unicorn": 2,
		} {
			out, err := shared.carob(strings.Fields(args)...)
			e, ok := err.(*exec.ExitError)
			if !ok || (e.ExitCode() != code && args != "no-such-command" && args != "tree -o unicorn") {
				t.Errorf("carob %s: %v, want exit code %d\n%s", args, err, code, out)
			}
			if !strings.Contains(out, "carob: ") && !strings.Contains(out, "error ") {
				t.Errorf("carob %s does not say what is wrong: %s", args, out)
			}
		}
	})
}

// TestBadHost: what is wrong with the machine is said with its cause and its fix, and costs nothing.
func TestBadHost(t *testing.T) {
	t.Parallel()
	t.Run("PortInUse", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t)
		args := append(c.upArgs(), "--api-port=5000")
		out, err := c.carob(args...)
		if err == nil {
			t.Fatal("carob up on a port in use worked")
		}
		want(t, "port in use", out, "PortInUse", "5000", "fix:", "--api-port")
		c.up(t)
	})
	t.Run("NotRoot", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		copyOf := filepath.Join(os.TempDir(), "carob-for-nobody")
		raw, err := os.ReadFile(carobBinary)
		if err != nil {
			t.Fatal(err)
		}
		os.Chmod(os.TempDir(), 0o755)
		if err := os.WriteFile(copyOf, raw, 0o755); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(copyOf)
		cmd := exec.Command(copyOf, "up", "-d", "--root", filepath.Join(dir, "root"), "--kubeconfig", filepath.Join(dir, "kc"))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		cmd.Dir = "/"
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Fatal("carob up worked for nobody")
		}
		want(t, "not root", string(out), "NotRoot", "fix:", "sudo")
	})
	t.Run("NoCrun", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t)
		out, err := c.carob(append(c.upArgs(), "--oci-runtime=crun=/no/such/crun")...)
		if err == nil {
			t.Fatal("carob up without crun worked")
		}
		want(t, "no crun", out, "crun", "fix:", "apt-get install")
		c.up(t)
	})
	t.Run("DamagedStore", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t)
		c.up(t)
		s := c.space(t)
		s.apply(simple("web", forever))
		s.ready("web")
		c.kill(t)
		files, err := filepath.Glob(filepath.Join(c.host.Root, "store", "*"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no store: %v", err)
		}
		saved := map[string][]byte{}
		for _, f := range files {
			if fi, err := os.Stat(f); err != nil || !fi.Mode().IsRegular() {
				continue
			}
			if saved[f], err = os.ReadFile(f); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(f, []byte(strings.Repeat("damaged ", 4096)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		out, err := c.carob(c.upArgs()...)
		if err == nil {
			t.Error("carob up on a damaged store worked")
		}
		want(t, "damaged store", out, "store", "fix:")
		for f, raw := range saved {
			if err := os.WriteFile(f, raw, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c.up(t)
		s.ready("web")
		if p := s.pod("web"); status(p, "main").RestartCount != 0 {
			t.Errorf("the Pod did not live through it: %+v", p.Status)
		}
	})
	t.Run("FullDisk", func(t *testing.T) {
		t.Parallel()
		c, s := onSmallDisk(t)
		c.fill(t)
		s.eventually("an error that speaks of space", func() error {
			_, stderr, err := s.run("apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: fill-}\ndata: {a: "+strings.Repeat("x", 1<<19)+"}\n", "create", "-f", "-")
			if err == nil || !(strings.Contains(stderr, "no space left on device") || strings.Contains(stderr, "database space exceeded")) {
				return fmt.Errorf("%v %s", err, stderr)
			}
			return nil
		})
		if page := s.sh("web", "", "echo alive"); page != "alive\n" {
			t.Errorf("the Pod on a full disk: %q", page)
		}
		c.makeRoom(t)
		s.eventually("a create once there is room", func() error {
			_, stderr, err := s.try("create", "configmap", "room")
			if err != nil && !strings.Contains(stderr, "already exists") {
				return fmt.Errorf("%v %s", err, stderr)
			}
			return nil
		})
		s.apply(simple("next", forever))
		s.ready("next")
		if p := s.pod("web"); p.Status.Phase != corev1.PodRunning || status(p, "main").RestartCount != 0 {
			t.Errorf("the Pod: %+v", p.Status)
		}
	})
	t.Run("FullDiskDown", func(t *testing.T) {
		t.Parallel()
		c, s := onSmallDisk(t)
		pid := s.mainProcess(s.pod("web"), "main").pid
		c.fill(t)
		start := time.Now()
		out, err := c.carobWithin(patience, "down", "--root", c.host.Root)
		c.makeRoom(t)
		if took := time.Since(start); err != nil {
			t.Errorf("carob down on a full disk: %v after %s\n%s", err, took, out)
		}
		s.noProcess(pid)
	})
}

// onSmallDisk is a cluster whose root lies on a disk of 128 MB, which only the test host sees, with a Pod that runs.
func onSmallDisk(t *testing.T) (*cluster, *space) {
	c := newCluster(t)
	disk := filepath.Join(c.host.Dir, "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	c.inHost(t, "mount -t tmpfs -o size=128m small "+disk)
	c.host.Root = filepath.Join(disk, "root")
	c.note(t)
	c.up(t)
	s := c.space(t)
	s.apply(simple("web", forever))
	s.ready("web")
	return c, s
}

func (c *cluster) inHost(t *testing.T, script string) {
	t.Helper()
	if out, err := c.host.Command("sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v %s", script, err, out)
	}
}

// fill leaves no byte free on the cluster's disk.
func (c *cluster) fill(t *testing.T) {
	t.Helper()
	c.inHost(t, "cd "+c.host.Dir+"/disk && for bs in 1M 4k 512; do dd if=/dev/zero of=filler.$bs bs=$bs; done; df -k . | tail -1 | awk '{exit $4 > 0}'")
}

// makeRoom undoes fill.
func (c *cluster) makeRoom(t *testing.T) {
	t.Helper()
	c.inHost(t, "rm -f "+c.host.Dir+"/disk/filler.*")
}
