package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

func TestNamesComeFromTheRoot(t *testing.T) {
	for _, c := range []struct{ root, id, run, nft string }{
		{"/var/lib/carob", "", "/run/carob", "carob"},
		{"/var/lib/carob/", "", "/run/carob", "carob"},
		{"/tmp/a", "d9b741ea", "/run/carob-d9b741ea", "carob_d9b741ea"},
	} {
		cfg := Default(c.root)
		if got := []string{cfg.ID(), cfg.RunDir(), cfg.NFTable()}; !cmp.Equal(got, []string{c.id, c.run, c.nft}) {
			t.Errorf("%s: got %v, want %v", c.root, got, c)
		}
	}
	long := Default("/" + strings.Repeat("r", 199))
	if sock := filepath.Join(long.RunDir(), "s", "0123456789ab"); len(sock) > 107 {
		t.Errorf("socket path %s is too long for the kernel", sock)
	}
}

func TestLoadOrder(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "carob.yaml")
	if err := os.WriteFile(file, []byte("max-pods: 1\napi-port: 1001\nlog-level: warn\ndatastore-endpoint: [http://a, http://b]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CAROB_API_PORT", "1002")
	t.Setenv("CAROB_LOG_LEVEL", "debug")
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	src := AddFlags(fs)
	if err := fs.Parse([]string{"--root", dir, "--config", file, "--log-level", "error", "--node-name", "n.example.com"}); err != nil {
		t.Fatal(err)
	}
	c, err := src.Load()
	if err != nil {
		t.Fatal(err)
	}
	got := []any{c.Root, c.MaxPods, int(c.APIBind.Port()), c.LogLevel, c.NodeName, c.DatastoreEndpoints}
	want := []any{dir, 1, 1002, "error", "n.example.com", []string{"http://a", "http://b"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestBadSettings(t *testing.T) {
	for _, c := range []struct {
		args []string
		file string
		want string
	}{
		{[]string{"--api-port", "0"}, "", "--api-port"},
		{[]string{"--api-port", "70000"}, "", "--api-port"},
		{[]string{"--node-name", "Not_Good"}, "", "--node-name"},
		{[]string{"--pod-cidr", "10.0.0.0"}, "", "--pod-cidr"},
		{[]string{"--pod-cidr", "10.43.0.0/17"}, "", "overlaps"},
		{[]string{"--node-cidr-mask-size", "8"}, "", "--node-cidr-mask-size"},
		{[]string{"--max-pods", "0"}, "", "--max-pods"},
		{[]string{"--max-container-restart-period", "6m"}, "", "--max-container-restart-period"},
		{[]string{"--container-log-max-size", "ten"}, "", "--container-log-max-size"},
		{[]string{"--container-log-max-size", "-1Mi"}, "", "--container-log-max-size"},
		{[]string{"--container-log-max-files", "1"}, "", "--container-log-max-files"},
		{[]string{"--max-parallel-downloads", "0"}, "", "--max-parallel-downloads"},
		{[]string{"--image-gc-low-threshold", "90"}, "", "--image-gc-low-threshold"},
		{[]string{"--image-gc-high-threshold", "101"}, "", "--image-gc-high-threshold"},
		{[]string{"--image-gc-low-threshold", "-1"}, "", "--image-gc-low-threshold"},
		{[]string{"--image-minimum-gc-age", "-1s"}, "", "--image-minimum-gc-age"},
		{[]string{"--image-maximum-gc-age", "1m"}, "", "--image-maximum-gc-age"},
		{[]string{"--warm-sandboxes", "-1"}, "", "--warm-sandboxes"},
		{[]string{"--shutdown-grace-period", "1500ms"}, "", "--shutdown-grace-period: 1.5s: want whole seconds"},
		{[]string{"--shutdown-grace-period", "-1s"}, "", "--shutdown-grace-period"},
		{[]string{"--shutdown-grace-period", "10s", "--shutdown-grace-period-critical-pods", "20s"}, "", "no more than the shutdown-grace-period of 10s"},
		{[]string{"--shutdown-grace-period", "10s", "--shutdown-grace-period-by-pod-priority", "0=1s"}, "", "cannot be set together"},
		{[]string{"--shutdown-grace-period-by-pod-priority", "high=1s"}, "", `"high" is no priority`},
		{[]string{"--shutdown-grace-period-by-pod-priority", "0=soon"}, "", "--shutdown-grace-period-by-pod-priority"},
		{[]string{"--memory-swap-behavior", "UnlimitedSwap"}, "", `"UnlimitedSwap": want NoSwap or LimitedSwap`},
		{[]string{"--memory-reservation-policy", "all"}, "", "--memory-reservation-policy"},
		{[]string{"--memory-throttling-factor", "1.1"}, "", "--memory-throttling-factor: 1.1: want 0 to 1"},
		{[]string{"--log-level", "loud"}, "", "--log-level"},
		{[]string{"--oci-runtime", "crun"}, "", "HANDLER=PROGRAM"},
		{[]string{"--root", "/"}, "", "--root"},
		{[]string{"--runtime-endpoint", "/run/containerd/containerd.sock"}, "", "--runtime-endpoint"},
		{[]string{"--runtime-endpoint", "unix://containerd.sock"}, "", "--runtime-endpoint"},
		{[]string{"--runtime-endpoint", "tcp://127.0.0.1:1"}, "", "--runtime-endpoint"},
		{[]string{"--runtime-endpoint", "unix:///a", "--image-endpoint", "b"}, "", "--image-endpoint"},
		{[]string{"--image-endpoint", "unix:///a"}, "", "--image-endpoint"},
		{nil, "max-pod: 3\n", `unknown setting "max-pod"`},
		{nil, "max-pods: {a: 1}\n", "max-pods"},
		{nil, "max-pods: 1\nmax-pods: 2\n", "max-pods"},
	} {
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		src := AddFlags(fs)
		args := append([]string{"--node-name", "n"}, c.args...)
		if c.file != "" {
			file := filepath.Join(t.TempDir(), "f.yaml")
			if err := os.WriteFile(file, []byte(c.file), 0o600); err != nil {
				t.Fatal(err)
			}
			args = append(args, "--config", file)
		}
		if err := fs.Parse(args); err != nil {
			t.Fatal(err)
		}
		if _, err := src.Load(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v %q: got %v, want an error with %q", c.args, c.file, err, c.want)
		}
	}
}

func TestCommandsKnowTheSettingsOfTheCarobThatRanLast(t *testing.T) {
	dir := t.TempDir()
	ran := Default(dir)
	ran.NodeName, ran.Kubeconfig, ran.MaxPods, ran.RuntimeEndpoint = "n.example.com", "/tmp/kc", 7, "unix:///run/a.sock"
	write := func(path string, data []byte) error { return os.WriteFile(path, data, 0o600) }
	if err := ran.Remember(write); err != nil {
		t.Fatal(err)
	}
	same := []cmp.Option{cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })}
	t.Setenv("CAROB_MAX_PODS", "8")
	if old, ok, err := Default(dir).Remembered(); err != nil || !ok || !cmp.Equal(ran, old, same...) {
		t.Errorf("remembered %v, %v: %s", ok, err, cmp.Diff(ran, old, same...))
	}
	os.Unsetenv("CAROB_MAX_PODS")
	if _, ok, err := Default(t.TempDir()).Remembered(); ok || err != nil {
		t.Errorf("a new root remembers: %v, %v", ok, err)
	}
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	src := AddRootFlag(fs)
	if err := fs.Parse([]string{"--root", dir}); err != nil {
		t.Fatal(err)
	}
	got, err := src.Load()
	if diff := cmp.Diff(ran, got, same...); diff != "" || err != nil {
		t.Error(diff, err)
	}
	fs = pflag.NewFlagSet("", pflag.ContinueOnError)
	src = AddFlags(fs)
	if err := fs.Parse([]string{"--root", dir}); err != nil {
		t.Fatal(err)
	}
	if fresh, err := src.Load(); err != nil || fresh.MaxPods != 110 {
		t.Errorf("a Carob that starts takes over old settings: %d Pods, %v", fresh.MaxPods, err)
	}
}

// TestDefaultsAreTaken: what a setting is by default it may be set to, for the daemon is told all settings.
func TestDefaultsAreTaken(t *testing.T) {
	for _, s := range settings() {
		c := Default("/x")
		if err := s.set(&c, s.get(&c)); err != nil {
			t.Errorf("%s: its default %q is not taken: %v", s.name, s.get(&c), err)
		}
	}
}
