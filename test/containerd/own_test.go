package containerd

import (
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
	root := filepath.Join(m.Dir, "runtime")
	daemon := m.start("runtime", "the runtime serves ", carobBinary, "runtime", "--root", root, "--registry-config-dir", m.certs())
	raw, err := os.ReadFile(m.log("runtime"))
	if err != nil {
		t.Fatal(err)
	}
	c := m.cluster(regexp.MustCompile(`unix://\S+`).FindString(string(raw)))
	c.mustCarob(c.upArgs()...)
	t.Cleanup(func() { c.carob("uninstall") })
	want(t, "carob status", c.mustCarob("status"), "carob 0.1.0 at "+c.endpoint)
	c.examples("carob")
	c.finish(func() {
		m.stop(daemon, syscall.SIGTERM)
		m.must(carobBinary, "uninstall", "--root", root)
	})
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
