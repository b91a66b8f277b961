package criconf

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/agent/podstate"
)

// TestUsers: sandbox, containers and every mount of a Pod with users of its own have the same mappings.
func TestUsers(t *testing.T) {
	pod := readPod(t, fullPod)
	ids := []*runtimeapi.IDMapping{{HostId: 65536, Length: 65536}}
	users := &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids}
	sandbox := Sandbox(SandboxInput{Pod: pod, Users: users})
	spec, _ := podstate.Find(pod, "a")
	c, err := Container(ContainerInput{Pod: pod, Spec: spec, Users: users, Mounts: []*runtimeapi.Mount{{ContainerPath: "/a"}, {ContainerPath: "/b"}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]*runtimeapi.UserNamespace{
		"sandbox":   sandbox.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions(),
		"container": c.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions(),
	} {
		if d := cmp.Diff(users, got, protocmp.Transform()); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	for _, m := range c.GetMounts() {
		if d := cmp.Diff(ids, m.GetUidMappings(), protocmp.Transform()) + cmp.Diff(ids, m.GetGidMappings(), protocmp.Transform()); d != "" {
			t.Errorf("%s: %s", m.GetContainerPath(), d)
		}
	}
	none := Sandbox(SandboxInput{Pod: pod})
	if u := none.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions(); u != nil {
		t.Errorf("a Pod that did not ask for users of its own has %v", u)
	}
}

func TestSeccomp(t *testing.T) {
	name := "profiles/a.json"
	for _, tt := range []struct {
		profile *corev1.SeccompProfile
		want    *runtimeapi.SecurityProfile
		err     string
	}{
		{nil, &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, ""},
		{&corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}, &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, ""},
		{&corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}, &runtimeapi.SecurityProfile{}, ""},
		{&corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &name},
			&runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "/seccomp/profiles/a.json"}, ""},
		{&corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost}, nil, "localhostProfile must be set if seccompProfile type is Localhost"},
	} {
		got, err := seccomp(tt.profile, "/seccomp")
		if tt.err != "" {
			if err == nil || err.Error() != tt.err {
				t.Errorf("%v: %v", tt.profile, err)
			}
			continue
		}
		if d := cmp.Diff(tt.want, got, protocmp.Transform()); d != "" || err != nil {
			t.Errorf("%v: %s %v", tt.profile, d, err)
		}
	}
}
