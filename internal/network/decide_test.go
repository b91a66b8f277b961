package network

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestLinkName(t *testing.T) {
	for id, want := range map[string]string{
		idA:                     "cbaaaaaaaaaaaa",
		"AB12CD34EF56AB12":      "cbab12cd34ef56",
		"short":                 "cbf9b0078b5df5",
		strings.Repeat("z", 64): "",
	} {
		got := linkName(id)
		if want != "" && got != want || len(got) >= unix.IFNAMSIZ || len(got) != 14 {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
}

func TestRemovedLinksPassesOverWhatItCannotParse(t *testing.T) {
	for _, data := range [][]byte{nil, {1}, make([]byte, 15), make([]byte, 64), {16, 0, 0, 0, unix.RTM_DELLINK, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}} {
		if got := removedLinks(data); len(got) > 0 {
			t.Errorf("%v: %v", data, got)
		}
	}
}

func FuzzRemovedLinks(f *testing.F) {
	f.Add([]byte{16, 0, 0, 0, unix.RTM_DELLINK, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) { removedLinks(data) })
}

func TestValidate(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no range":            func(c *Config) { c.NodeCIDRs = nil },
		"outside the cluster": func(c *Config) { c.NodeCIDRs = []netip.Prefix{netip.MustParsePrefix("10.99.0.0/24")} },
		"wider than it":       func(c *Config) { c.NodeCIDRs = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} },
		"two of one family":   func(c *Config) { c.NodeCIDRs = append(c.NodeCIDRs, c.NodeCIDRs[0]) },
		"no table":            func(c *Config) { c.NFTable = "" },
	} {
		cfg := testConfig(t)
		change(&cfg)
		if err := cfg.validate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestDockerRules(t *testing.T) {
	cfg := testConfig(t)
	cfg.PodCIDRs = append(cfg.PodCIDRs, netip.MustParsePrefix("fd42::/48"))
	var got []string
	for _, r := range dockerRules(cfg) {
		got = append(got, iptables(r)+" "+strings.Join(r, " "))
	}
	want := []string{
		"iptables DOCKER-USER -s 10.42.0.0/16 -m comment --comment carob_test: Pod network -j ACCEPT",
		"iptables DOCKER-USER -d 10.42.0.0/16 -m comment --comment carob_test: Pod network -j ACCEPT",
		"ip6tables DOCKER-USER -s fd42::/48 -m comment --comment carob_test: Pod network -j ACCEPT",
		"ip6tables DOCKER-USER -d fd42::/48 -m comment --comment carob_test: Pod network -j ACCEPT",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
