package csi

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// callTimeout bounds one call of a driver, as kubelet's does.
const callTimeout = 2 * time.Minute

// driver is a registered driver. It does not change.
type driver struct {
	name string
	conn *grpc.ClientConn
	node spec.NodeClient
	caps []spec.NodeServiceCapability_RPC_Type
	info *spec.NodeGetInfoResponse
}

// dial returns a connection to a driver's socket; it connects at the first call.
func dial(endpoint string) (*grpc.ClientConn, error) {
	path := strings.TrimPrefix(endpoint, "unix://")
	return grpc.NewClient("passthrough:///"+path, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", addr)
		}))
}

// meet asks a driver who it is on this node and what it can do.
func meet(ctx context.Context, name, endpoint string) (*driver, error) {
	conn, err := dial(endpoint)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", endpoint, err)
	}
	d := &driver{name: name, conn: conn, node: spec.NewNodeClient(conn)}
	if d.info, err = d.node.NodeGetInfo(ctx, &spec.NodeGetInfoRequest{}); err == nil && d.info.GetNodeId() == "" {
		err = errNoNode
	}
	if err == nil {
		var resp *spec.NodeGetCapabilitiesResponse
		if resp, err = d.node.NodeGetCapabilities(ctx, &spec.NodeGetCapabilitiesRequest{}); err == nil {
			for _, c := range resp.GetCapabilities() {
				d.caps = append(d.caps, c.GetRpc().GetType())
			}
		}
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("ask driver %s: %w", name, unwrapStatus(err))
	}
	return d, nil
}

func (d *driver) can(c spec.NodeServiceCapability_RPC_Type) bool { return slices.Contains(d.caps, c) }

// unwrapStatus is a driver's error in its own words, with the code.
func unwrapStatus(err error) error {
	s, ok := status.FromError(err)
	if !ok || s.Code() == codes.OK {
		return err
	}
	return fmt.Errorf("rpc error: code = %s desc = %s", s.Code(), s.Message())
}
