package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChoice(t *testing.T) {
	names := []string{"[sig-apps] Job [Conformance]", "[sig-node] Pods [NodeConformance] [Conformance]", "[sig-node] Probes [NodeConformance]"}
	for _, tc := range []struct {
		choice choice
		want   []string
	}{
		{choice{set: "conformance"}, names[:2]},
		{choice{set: "conformance", focus: "sig-node|sig-storage"}, names[1:2]},
		{choice{set: "conformance", skip: "Pods"}, names[:1]},
		{choice{set: "nodeconformance"}, names[2:]},
	} {
		got, err := tc.choice.of(names)
		if diff := cmp.Diff(tc.want, got); diff != "" || err != nil {
			t.Errorf("%+v: %v (-want +got):\n%s", tc.choice, err, diff)
		}
	}
	for _, bad := range []choice{{set: "all"}, {set: "conformance", focus: "("}, {set: "conformance", skip: "("}} {
		if _, err := bad.of(names); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}
