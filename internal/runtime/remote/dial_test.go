package remote

import (
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/health"
)

func TestDialProblems(t *testing.T) {
	for name, tc := range map[string]struct {
		make      func(t *testing.T, socket string)
		code, why string
	}{
		"no socket": {func(*testing.T, string) {}, "NoRuntime", "there is no such socket"},
		"nobody listens": {func(t *testing.T, socket string) {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			l.SetUnlinkOnClose(false)
			l.Close()
		}, "NoRuntime", "nobody listens there any more"},
		"another protocol": {func(t *testing.T, socket string) {
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			s := &http.Server{Handler: http.NotFoundHandler()}
			go s.Serve(l)
			t.Cleanup(func() { s.Close() })
		}, "NoCRI", "runtime API"},
		"no CRI": {func(t *testing.T, socket string) {
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			s := grpc.NewServer()
			go s.Serve(l)
			t.Cleanup(s.Stop)
		}, "NoCRI", "it does not serve runtime.v1.RuntimeService"},
		"no images": {func(t *testing.T, socket string) {
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			s := grpc.NewServer()
			runtimeapi.RegisterRuntimeServiceServer(s, newFake())
			go s.Serve(l)
			t.Cleanup(s.Stop)
		}, "NoCRI", "it does not serve runtime.v1.ImageService"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket := socketOf(t)
			tc.make(t, socket)
			_, err := Dial(t.Context(), Config{Endpoint: "unix://" + socket, Owner: "o", Log: slog.New(slog.DiscardHandler)})
			p, ok := health.As(err)
			if !ok || p.Code != tc.code || !strings.Contains(p.Why, tc.why) || p.Fix == "" {
				t.Errorf("got %v, want %s: %s", err, tc.code, tc.why)
			}
		})
	}
}

func TestVersionAndTimeout(t *testing.T) {
	socket := socketOf(t)
	newFake().serve(t, socket)
	c, err := Dial(t.Context(), Config{Endpoint: "unix://" + socket, Owner: "o", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Name != "fake" || c.Version != "v7" {
		t.Errorf("it is %s %s", c.Name, c.Version)
	}
	if _, _, err := c.Runtime.ExecSync(t.Context(), "c", []string{"sleep"}, time.Second); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a slow command: %v", err)
	}
	if _, err := address("/exec/token"); err == nil {
		t.Error("an address without a host was taken")
	}
}

// TestCgroupDriver: the runtime says who makes the cgroups.
func TestCgroupDriver(t *testing.T) {
	for driver, want := range map[runtimeapi.CgroupDriver]bool{runtimeapi.CgroupDriver_CGROUPFS: false, runtimeapi.CgroupDriver_SYSTEMD: true} {
		socket, f := socketOf(t), newFake()
		f.driver = driver
		f.serve(t, socket)
		c, err := Dial(t.Context(), Config{Endpoint: "unix://" + socket, Owner: "o", Log: slog.New(slog.DiscardHandler)})
		if err != nil || c.Systemd != want {
			t.Errorf("%v: %v", driver, err)
		}
	}
}
