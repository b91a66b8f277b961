package containerd

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// TestCarobRuntime runs the examples on Carob's own runtime, served by another process.
func TestCarobRuntime(t *testing.T) {
	m := newMachine(t)
	endpoint, end := m.startOwn()
	c := m.cluster(endpoint)
	c.mustCarob(c.upArgs()...)
	t.Cleanup(func() { c.carob("uninstall") })
	want(t, "carob status", c.mustCarob("status"), "carob 0.1.0 at "+c.endpoint)
	c.examples("carob")
	c.finish(end)
}

// startOwn starts `carob runtime`; end takes it away.
func (m *machine) startOwn() (endpoint string, end func()) {
	m.Helper()
	root := filepath.Join(m.Dir, "runtime")
	daemon := m.start("runtime", "the runtime serves ", carobBinary, "runtime", "--root", root, "--registry-config-dir", m.certs())
	raw, err := os.ReadFile(m.log("runtime"))
	if err != nil {
		m.Fatal(err)
	}
	return regexp.MustCompile(`unix://\S+`).FindString(string(raw)), func() {
		m.stop(daemon, syscall.SIGTERM)
		m.must(carobBinary, "uninstall", "--root", root)
	}
}

// TestGoingOver changes the runtime under a cluster: never while its Pods run, and nothing stays behind.
func TestGoingOver(t *testing.T) {
	m := newMachine(t)
	endpoint, end := m.startOwn()
	c := m.cluster("")
	t.Cleanup(func() { c.carob("uninstall") })
	c.mustCarob(c.upArgs()...)
	c.apply(strings.Replace(busybox("stays", "sleep 999", ""), "restartPolicy: Never", "restartPolicy: Always", 1))
	runs := func(restarts int) {
		t.Helper()
		c.waitGet("pod stays", "{.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}", fmt.Sprint(restarts, " true"))
	}
	for i, next := range []string{endpoint, ""} {
		runs(i)
		c.killDaemon()
		c.endpoint = next
		out, err := c.carob(c.upArgs()...)
		if err == nil {
			t.Fatalf("it went over to %q although a Pod runs", next)
		}
		want(t, "carob up", out, "PodsElsewhere", "carob down --root "+c.Root)
		c.mustCarob("down")
		c.mustCarob(c.upArgs()...)
	}
	runs(2)
	c.mustCarob("uninstall")
	end()
	m.leftBehind()
}

// TestProblems has `carob up` meet what it cannot use.
func TestProblems(t *testing.T) {
	m := newMachine(t)
	file := filepath.Join(m.Dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		endpoint string
		want     []string
	}{
		"missing":      {"unix://" + m.Dir + "/none.sock", []string{"NoRuntime", "there is no such socket", "systemctl start containerd"}},
		"no socket":    {"unix://" + file, []string{"NoRuntime", "nobody listens there"}},
		"no endpoint":  {"/run/containerd.sock", []string{"--runtime-endpoint", "unix:///run/containerd/containerd.sock"}},
		"not for that": {"tcp://127.0.0.1:5000", []string{"--runtime-endpoint"}},
	} {
		c := m.cluster(tc.endpoint)
		out, err := c.carob(c.upArgs()...)
		if err == nil {
			t.Errorf("%s: it started: %s", name, out)
		}
		want(t, name, out, tc.want...)
		if out, err := c.run("", carobBinary, append([]string{"check"}, c.upArgs()[2:]...)...); err == nil || !strings.Contains(out, tc.want[0]) {
			t.Errorf("%s: carob check: %v: %s", name, err, out)
		}
	}
	m.must(carobBinary, "uninstall", "--root", m.Root)
	m.leftBehind()
}
