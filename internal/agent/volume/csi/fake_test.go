package csi

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
	clocktesting "k8s.io/utils/clock/testing"
)

const nodeEnv = "CAROB_CSI_TEST_NODE"

// TestMain runs the tests again in a mount namespace of their own.
func TestMain(m *testing.M) {
	if os.Getuid() != 0 || os.Getenv(nodeEnv) != "" {
		if os.Getenv(nodeEnv) != "" {
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				fmt.Fprintln(os.Stderr, "make mounts private:", err)
				os.Exit(1)
			}
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), nodeEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "tests in their own mount namespace:", err)
		os.Exit(1)
	}
}

// fakeDriver keeps each volume in a folder of its own and binds that where it is told. It is as strict as the specification.
type fakeDriver struct {
	spec.UnimplementedNodeServer
	registerapi.UnimplementedRegistrationServer
	name string
	data string
	caps []spec.NodeServiceCapability_RPC_Type
	// topology is where it says that the node stands.
	topology map[string]string
	kind     string
	endpoint string

	mu         sync.Mutex
	calls      []string
	staged     map[string]string
	published  map[string]string
	fail       map[string]error
	registered chan *registerapi.RegistrationStatus
	last       *spec.NodePublishVolumeRequest
}

func (d *fakeDriver) called(what, volume string) error {
	d.calls = append(d.calls, what+" "+volume)
	return d.fail[what]
}

func (d *fakeDriver) GetInfo(context.Context, *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	return &registerapi.PluginInfo{Type: d.kind, Name: d.name, Endpoint: d.endpoint, SupportedVersions: []string{"1.0.0"}}, nil
}

func (d *fakeDriver) NotifyRegistrationStatus(_ context.Context, s *registerapi.RegistrationStatus) (*registerapi.RegistrationStatusResponse, error) {
	d.registered <- s
	return &registerapi.RegistrationStatusResponse{}, nil
}

func (d *fakeDriver) NodeGetInfo(context.Context, *spec.NodeGetInfoRequest) (*spec.NodeGetInfoResponse, error) {
	return &spec.NodeGetInfoResponse{NodeId: "id-of-n1", MaxVolumesPerNode: 7, AccessibleTopology: &spec.Topology{Segments: d.topology}}, nil
}

func (d *fakeDriver) NodeGetCapabilities(context.Context, *spec.NodeGetCapabilitiesRequest) (*spec.NodeGetCapabilitiesResponse, error) {
	resp := &spec.NodeGetCapabilitiesResponse{}
	for _, c := range d.caps {
		resp.Capabilities = append(resp.Capabilities, &spec.NodeServiceCapability{Type: &spec.NodeServiceCapability_Rpc{Rpc: &spec.NodeServiceCapability_RPC{Type: c}}})
	}
	return resp, nil
}

func (d *fakeDriver) NodeStageVolume(_ context.Context, r *spec.NodeStageVolumeRequest) (*spec.NodeStageVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.called("stage", r.GetVolumeId()); err != nil {
		return nil, err
	}
	if _, err := os.Stat(r.GetStagingTargetPath()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	d.staged[r.GetVolumeId()] = r.GetStagingTargetPath()
	return &spec.NodeStageVolumeResponse{}, nil
}

func (d *fakeDriver) NodeUnstageVolume(_ context.Context, r *spec.NodeUnstageVolumeRequest) (*spec.NodeUnstageVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.called("unstage", r.GetVolumeId()); err != nil {
		return nil, err
	}
	for target, volume := range d.published {
		if volume == r.GetVolumeId() {
			return nil, status.Error(codes.FailedPrecondition, "still published at "+target)
		}
	}
	delete(d.staged, r.GetVolumeId())
	return &spec.NodeUnstageVolumeResponse{}, nil
}

func (d *fakeDriver) NodePublishVolume(_ context.Context, r *spec.NodePublishVolumeRequest) (*spec.NodePublishVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = r
	if err := d.called("publish", r.GetVolumeId()); err != nil {
		return nil, err
	}
	if len(d.caps) > 0 && d.staged[r.GetVolumeId()] != r.GetStagingTargetPath() {
		return nil, status.Error(codes.FailedPrecondition, "not staged there")
	}
	if d.published[r.GetTargetPath()] != "" {
		return &spec.NodePublishVolumeResponse{}, nil
	}
	folder := filepath.Join(d.data, r.GetVolumeId())
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	if err := os.Mkdir(r.GetTargetPath(), 0o750); err != nil && !os.IsExist(err) {
		return nil, err
	}
	if err := unix.Mount(folder, r.GetTargetPath(), "", unix.MS_BIND, ""); err != nil {
		return nil, err
	}
	d.published[r.GetTargetPath()] = r.GetVolumeId()
	return &spec.NodePublishVolumeResponse{}, nil
}

func (d *fakeDriver) NodeUnpublishVolume(_ context.Context, r *spec.NodeUnpublishVolumeRequest) (*spec.NodeUnpublishVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.called("unpublish", r.GetVolumeId()); err != nil {
		return nil, err
	}
	if d.published[r.GetTargetPath()] != "" {
		if err := unix.Unmount(r.GetTargetPath(), 0); err != nil {
			return nil, err
		}
		delete(d.published, r.GetTargetPath())
	}
	return &spec.NodeUnpublishVolumeResponse{}, nil
}

func (d *fakeDriver) NodeExpandVolume(_ context.Context, r *spec.NodeExpandVolumeRequest) (*spec.NodeExpandVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &spec.NodeExpandVolumeResponse{}, d.called("expand", fmt.Sprint(r.GetVolumeId(), " ", r.GetCapacityRange().GetRequiredBytes()))
}

func (d *fakeDriver) NodeGetVolumeStats(_ context.Context, r *spec.NodeGetVolumeStatsRequest) (*spec.NodeGetVolumeStatsResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.called("stats", r.GetVolumeId()); err != nil {
		return nil, err
	}
	if d.published[r.GetVolumePath()] != r.GetVolumeId() || d.staged[r.GetVolumeId()] != r.GetStagingTargetPath() {
		return nil, status.Error(codes.NotFound, "not published or staged there")
	}
	return &spec.NodeGetVolumeStatsResponse{Usage: []*spec.VolumeUsage{{Unit: spec.VolumeUsage_BYTES, Total: 100, Used: 30, Available: 60}, {Unit: spec.VolumeUsage_INODES, Total: -1, Used: 7}}}, nil
}

// told are the calls so far; it forgets them.
func (d *fakeDriver) told() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := d.calls
	d.calls = nil
	return list
}

func (d *fakeDriver) failing(what string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail[what] = err
}

// bench is a node with one driver.
type bench struct {
	t      *testing.T
	root   string
	client *fake.Clientset
	clock  *clocktesting.FakeClock
	driver *fakeDriver
	server *grpc.Server
	node   *Node
	stop   func()
}

func newBench(t *testing.T, caps []spec.NodeServiceCapability_RPC_Type, objects ...runtime.Object) *bench {
	t.Helper()
	if os.Getenv(nodeEnv) == "" {
		t.Skip("needs root")
	}
	objects = append(objects, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "node-1"}})
	b := &bench{t: t, root: t.TempDir(), client: fake.NewClientset(objects...), clock: clocktesting.NewFakeClock(time.Unix(1000, 0)), stop: func() {},
		driver: &fakeDriver{name: "disk.example", kind: registerapi.CSIPlugin, data: t.TempDir(), caps: caps, topology: map[string]string{"disk.example/zone": "z"},
			staged: map[string]string{}, published: map[string]string{}, fail: map[string]error{}, registered: make(chan *registerapi.RegistrationStatus, 100)}}
	b.driver.endpoint = filepath.Join(b.root, "d.sock")
	b.start()
	t.Cleanup(func() { b.stop(); b.quit() })
	return b
}

// start makes a new Node over the same folder, as after kill -9, and lets it hear.
func (b *bench) start() {
	b.t.Helper()
	b.stop()
	var err error
	b.node, err = New(Config{NodeName: "n1", Client: b.client, Root: b.root, Log: slog.New(slog.NewTextHandler(b.t.Output(), nil)), Clock: b.clock,
		Secret: func(_ context.Context, _, name string) (*corev1.Secret, error) {
			if name != "s" {
				return nil, apierrors.NewNotFound(corev1.Resource("secrets"), name)
			}
			return &corev1.Secret{Data: map[string][]byte{"password": []byte("p")}}, nil
		},
		Token: func(_ context.Context, _ *corev1.Pod, s authenticationv1.TokenRequestSpec) (*authenticationv1.TokenRequestStatus, error) {
			return &authenticationv1.TokenRequestStatus{Token: "token-for-" + s.Audiences[0]}, nil
		}})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	node := b.node
	go func() { node.Run(ctx); close(done) }()
	b.stop = func() { cancel(); <-done; b.stop = func() {} }
}

// serve has the driver listen and register.
func (b *bench) serve() {
	b.t.Helper()
	b.server = grpc.NewServer()
	spec.RegisterNodeServer(b.server, b.driver)
	registerapi.RegisterRegistrationServer(b.server, b.driver)
	for _, path := range []string{b.driver.endpoint, filepath.Join(b.root, registryDir, b.driver.name+"-reg.sock")} {
		b.eventually("the folder of "+path, func() bool { _, err := os.Stat(filepath.Dir(path)); return err == nil })
		l, err := net.Listen("unix", path)
		if err != nil {
			b.t.Fatal(err)
		}
		go b.server.Serve(l)
	}
}

// quit ends the driver; its sockets go.
func (b *bench) quit() {
	if b.server != nil {
		b.server.Stop()
		b.server = nil
	}
}

func (b *bench) register() {
	b.t.Helper()
	b.serve()
	select {
	case s := <-b.driver.registered:
		if !s.GetPluginRegistered() {
			b.t.Fatalf("not registered: %s", s.GetError())
		}
	case <-time.After(10 * time.Second):
		b.t.Fatal("not registered within ten seconds")
	}
}

func (b *bench) eventually(what string, ok func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	b.t.Fatalf("%s: not within ten seconds", what)
}
