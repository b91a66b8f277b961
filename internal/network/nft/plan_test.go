package nft

import (
	"flag"
	"net/netip"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func port(proto, hostIP string, hostPort uint16, target string) Port {
	p := Port{Protocol: proto, HostPort: hostPort, Target: netip.MustParseAddrPort(target)}
	if hostIP != "" {
		p.HostIP = netip.MustParseAddr(hostIP)
	}
	return p
}

func TestPlan(t *testing.T) {
	for name, in := range map[string]Input{
		"empty": {Table: "carob", Group: 7, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")}},
		"ports": {
			Table: "carob_0a1b2c3d", Group: 7, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16"), netip.MustParsePrefix("fd42::/48")},
			Services: []Service{{netip.MustParseAddrPort("10.43.0.1:443"), netip.MustParseAddrPort("192.0.2.1:6443")},
				{netip.MustParseAddrPort("[fd43::1]:443"), netip.MustParseAddrPort("[fd00::1]:6443")}},
			Ports: []Port{
				port("UDP", "", 53, "10.42.0.3:53"),
				port("TCP", "", 8080, "10.42.0.2:80"), port("TCP", "", 8080, "[fd42::2]:80"),
				port("TCP", "192.0.2.1", 8443, "10.42.0.2:443"), port("TCP", "fd00::1", 8443, "[fd42::2]:443"),
				port("SCTP", "", 9, "10.42.0.2:9"),
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := Plan(in).String()
			golden := "testdata/" + name + ".nft"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error(diff)
			}
			reversed := in
			reversed.Ports = nil
			for _, p := range in.Ports {
				reversed.Ports = append([]Port{p}, reversed.Ports...)
			}
			if diff := cmp.Diff(got, Plan(reversed).String()); diff != "" {
				t.Errorf("the order of the input matters: %s", diff)
			}
		})
	}
}

func TestEncode(t *testing.T) {
	key := encode([]any{netip.MustParseAddr("192.0.2.1"), protocol("UDP"), uint16(0x1234)})
	if diff := cmp.Diff([]byte{192, 0, 2, 1, 17, 0, 0, 0, 0x12, 0x34, 0, 0}, key); diff != "" {
		t.Error(diff)
	}
	for prefix, want := range map[string]string{"10.42.0.0/16": "10.43.0.0", "fd00::/8": "fe00::", "0.0.0.0/0": "invalid IP", "255.0.0.0/8": "invalid IP"} {
		if got := afterRange(netip.MustParsePrefix(prefix)).String(); got != want {
			t.Errorf("after %s: %s, want %s", prefix, got, want)
		}
	}
}
