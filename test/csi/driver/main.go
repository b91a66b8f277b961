// Command driver is a storage driver for tests: each volume is a folder or, where a device is asked for, a file behind a loop device. It serves CSI at <plugins>/csi.sock, registers at
// <registry>/<name>-reg.sock, and does all that a driver of disks does, as strictly as it can: create, attach, stage, publish, expand and back.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

func main() {
	d := &driver{}
	flag.StringVar(&d.name, "name", "folder.test.carob.dev", "the driver's name")
	flag.StringVar(&d.node, "node", "", "this node's name")
	flag.StringVar(&d.data, "data", "", "folder of the volumes")
	flag.StringVar(&d.registered, "endpoint", "", "the driver's socket as the node knows it")
	plugins := flag.String("plugins", "", "folder for the driver's socket")
	registry := flag.String("registry", "", "folder for the registration socket")
	flag.Parse()
	server := grpc.NewServer(grpc.UnaryInterceptor(d.tell))
	csi.RegisterIdentityServer(server, d)
	csi.RegisterControllerServer(server, d)
	csi.RegisterNodeServer(server, d)
	registerapi.RegisterRegistrationServer(server, d)
	ended := make(chan error)
	for _, path := range []string{filepath.Join(*plugins, "csi.sock"), filepath.Join(*registry, d.name+"-reg.sock")} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			log.Fatal(err)
		}
		l, err := net.Listen("unix", path)
		if err != nil {
			log.Fatal(err)
		}
		go func() { ended <- server.Serve(l) }()
	}
	log.Fatal(<-ended)
}

type driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer
	registerapi.UnimplementedRegistrationServer
	name, node, data, registered string
}

func (d *driver) tell(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	resp, err := next(ctx, req)
	if !strings.HasSuffix(info.FullMethod, "/Probe") {
		log.Printf("%s {%v}: %v", filepath.Base(info.FullMethod), req, err)
	}
	return resp, err
}

func (d *driver) GetInfo(context.Context, *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	return &registerapi.PluginInfo{Type: registerapi.CSIPlugin, Name: d.name, Endpoint: d.registered, SupportedVersions: []string{"1.0.0"}}, nil
}

func (d *driver) NotifyRegistrationStatus(_ context.Context, s *registerapi.RegistrationStatus) (*registerapi.RegistrationStatusResponse, error) {
	if !s.GetPluginRegistered() {
		log.Printf("not registered: %s", s.GetError())
	}
	return &registerapi.RegistrationStatusResponse{}, nil
}

func (d *driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: d.name, VendorVersion: "1"}, nil
}

func (d *driver) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{
		{Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{Type: csi.PluginCapability_Service_CONTROLLER_SERVICE}}},
		{Type: &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: &csi.PluginCapability_VolumeExpansion{Type: csi.PluginCapability_VolumeExpansion_ONLINE}}},
	}}, nil
}

func (d *driver) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}

func (d *driver) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	resp := &csi.ControllerGetCapabilitiesResponse{}
	for _, t := range []csi.ControllerServiceCapability_RPC_Type{csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME, csi.ControllerServiceCapability_RPC_EXPAND_VOLUME} {
		resp.Capabilities = append(resp.Capabilities, &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: t}}})
	}
	return resp, nil
}

// folder is where a volume is kept: its files in data, its size and where it is attached and staged beside them.
func (d *driver) folder(id string) (string, error) {
	if id == "" || strings.Contains(id, "/") || strings.HasPrefix(id, ".") {
		return "", status.Errorf(codes.InvalidArgument, "volume ID %q", id)
	}
	return filepath.Join(d.data, id), nil
}

// existing is the folder of a volume that there is.
func (d *driver) existing(id string) (string, error) {
	dir, err := d.folder(id)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err != nil {
		return "", status.Errorf(codes.NotFound, "volume %q", id)
	}
	return dir, nil
}

func note(dir, what, text string) error {
	return os.WriteFile(filepath.Join(dir, what), []byte(text), 0o600)
}

func noted(dir, what string) string {
	raw, _ := os.ReadFile(filepath.Join(dir, what))
	return string(raw)
}

func (d *driver) CreateVolume(_ context.Context, r *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	dir, err := d.folder(r.GetName())
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "data"), 0o755); err != nil {
		return nil, err
	}
	size := r.GetCapacityRange().GetRequiredBytes()
	if slices.ContainsFunc(r.GetVolumeCapabilities(), func(c *csi.VolumeCapability) bool { return c.GetBlock() != nil }) {
		if err := makeDisk(dir, size); err != nil {
			return nil, err
		}
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: r.GetName(), CapacityBytes: size, VolumeContext: r.GetParameters()}},
		note(dir, "size", strconv.FormatInt(size, 10))
}

func (d *driver) DeleteVolume(_ context.Context, r *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	dir, err := d.folder(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if noted(dir, "attached") != "" {
		return nil, status.Error(codes.FailedPrecondition, "attached")
	}
	return &csi.DeleteVolumeResponse{}, os.RemoveAll(dir)
}

func (d *driver) ControllerPublishVolume(_ context.Context, r *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
	dir, err := d.existing(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if r.GetNodeId() != "id-of-"+d.node {
		return nil, status.Errorf(codes.NotFound, "node %q", r.GetNodeId())
	}
	return &csi.ControllerPublishVolumeResponse{PublishContext: map[string]string{"slot": "7"}}, note(dir, "attached", r.GetNodeId())
}

func (d *driver) ControllerUnpublishVolume(_ context.Context, r *csi.ControllerUnpublishVolumeRequest) (*csi.ControllerUnpublishVolumeResponse, error) {
	dir, err := d.folder(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if noted(dir, "staged") != "" {
		return nil, status.Error(codes.FailedPrecondition, "staged")
	}
	if err := os.Remove(filepath.Join(dir, "attached")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return &csi.ControllerUnpublishVolumeResponse{}, nil
}

func (d *driver) ControllerExpandVolume(_ context.Context, r *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	dir, err := d.existing(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	size := r.GetCapacityRange().GetRequiredBytes()
	if isDisk(dir) {
		if err := makeDisk(dir, size); err != nil {
			return nil, err
		}
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: size, NodeExpansionRequired: true}, note(dir, "size", strconv.FormatInt(size, 10))
}

func (d *driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: "id-of-" + d.node}, nil
}

func (d *driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	resp := &csi.NodeGetCapabilitiesResponse{}
	for _, t := range []csi.NodeServiceCapability_RPC_Type{csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME, csi.NodeServiceCapability_RPC_EXPAND_VOLUME} {
		resp.Capabilities = append(resp.Capabilities, &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: t}}})
	}
	return resp, nil
}

// bind shows source at target, unless something is shown there already.
func bind(source, target string) error {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, target, unix.AT_SYMLINK_NOFOLLOW, 0, &st)
	if err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return nil
	}
	if err := os.Mkdir(target, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s on %s: %w", source, target, err)
	}
	return nil
}

func unbind(target string) error {
	if err := unix.Unmount(target, 0); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	return nil
}

func (d *driver) NodeStageVolume(_ context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	dir, err := d.existing(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if noted(dir, "attached") == "" || r.GetPublishContext()["slot"] != "7" {
		return nil, status.Error(codes.FailedPrecondition, "not attached")
	}
	if isDisk(dir) != (r.GetVolumeCapability().GetBlock() != nil) {
		return nil, status.Error(codes.InvalidArgument, "a device is asked for, or is what there is, but not both")
	}
	if isDisk(dir) {
		err = attachLoop(dir)
	} else {
		err = bind(filepath.Join(dir, "data"), r.GetStagingTargetPath())
	}
	if err != nil {
		return nil, err
	}
	return &csi.NodeStageVolumeResponse{}, note(dir, "staged", r.GetStagingTargetPath())
}

func (d *driver) NodeUnstageVolume(_ context.Context, r *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	dir, err := d.folder(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if isDisk(dir) {
		err = detachLoop(dir)
	} else {
		err = unbind(r.GetStagingTargetPath())
	}
	if err != nil {
		return nil, err
	}
	if err := os.Remove(filepath.Join(dir, "staged")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

func (d *driver) NodePublishVolume(_ context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if strings.HasPrefix(r.GetVolumeId(), "csi-") && r.GetStagingTargetPath() == "" { // of the Pod's own
		dir := filepath.Join(d.data, r.GetVolumeId())
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		if err := note(dir, "for", r.GetVolumeContext()["csi.storage.k8s.io/pod.name"]); err != nil {
			return nil, err
		}
		return &csi.NodePublishVolumeResponse{}, bind(dir, r.GetTargetPath())
	}
	dir, err := d.existing(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if noted(dir, "staged") != r.GetStagingTargetPath() {
		return nil, status.Error(codes.FailedPrecondition, "not staged there")
	}
	if isDisk(dir) {
		return &csi.NodePublishVolumeResponse{}, bindDevice(noted(dir, "device"), r.GetTargetPath())
	}
	return &csi.NodePublishVolumeResponse{}, bind(r.GetStagingTargetPath(), r.GetTargetPath())
}

func (d *driver) NodeUnpublishVolume(_ context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := unbind(r.GetTargetPath()); err != nil {
		return nil, err
	}
	if err := os.Remove(r.GetTargetPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if strings.HasPrefix(r.GetVolumeId(), "csi-") {
		return &csi.NodeUnpublishVolumeResponse{}, os.RemoveAll(filepath.Join(d.data, filepath.Base(r.GetVolumeId())))
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (d *driver) NodeExpandVolume(_ context.Context, r *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	dir, err := d.existing(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	size := r.GetCapacityRange().GetRequiredBytes()
	if isDisk(dir) {
		if err := growLoop(dir); err != nil {
			return nil, err
		}
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: size}, note(dir, "node-size", strconv.FormatInt(size, 10))
}
