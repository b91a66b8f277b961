package oci

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var update = flag.Bool("update", false, "write the golden files anew")

func input() Input {
	return Input{ID: "c1", Rootfs: "/r", PausePID: 42, CgroupPath: "/carob/kubepods/podx/c1", Resolv: "/s/resolv.conf", Hostname: "/s/hostname",
		Hosts: "/s/hosts", Shm: "/s/shm", User: User{UID: 1000, GID: 1000, Groups: []uint32{50, 1000}, Home: "/home/ann"},
		Node:    Node{GOARCH: "amd64", Bounding: []string{"CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN"}, Unified: true, Hostname: "node"},
		Sandbox: &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: "web"}, Annotations: map[string]string{"run.oci.x": "evil"}},
		Image:   ocispec.ImageConfig{Entrypoint: []string{"/entry"}, Cmd: []string{"cmd"}, Env: []string{"A=1", "PATH=/x"}, WorkingDir: "/w"},
		Container: &runtimeapi.ContainerConfig{Args: []string{"arg"}, Annotations: map[string]string{"run.oci.y": "evil"},
			Envs: []*runtimeapi.KeyValue{{Key: "A", Value: []byte("2")}},
			Mounts: []*runtimeapi.Mount{{HostPath: "/h/deep", ContainerPath: "/data/deep", Readonly: true},
				{HostPath: "/h", ContainerPath: "/data", Propagation: runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER},
				{HostPath: "/etc-hosts", ContainerPath: "/etc/hosts"}},
			Linux: &runtimeapi.LinuxContainerConfig{Resources: &runtimeapi.LinuxContainerResources{CpuShares: 512, MemoryLimitInBytes: 1 << 26, OomScoreAdj: 1000},
				SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
					MaskedPaths: []string{"/proc/kcore"}, ReadonlyPaths: []string{"/proc/sys"}}}}}
}

func TestGolden(t *testing.T) {
	cases := map[string]func(*Input){
		"plain": func(*Input) {},
		"shared": func(in *Input) {
			in.Container.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
			in.Node.Unified = false
		},
		"host": func(in *Input) {
			in.Container.Linux.SecurityContext.NamespaceOptions = &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE,
				Pid: runtimeapi.NamespaceMode_NODE, Ipc: runtimeapi.NamespaceMode_NODE}
			in.Container.Linux.SecurityContext.Privileged = true
			in.Devices = func(string, string) ([]specs.LinuxDevice, error) {
				return []specs.LinuxDevice{{Path: "/dev/kvm", Type: "c", Major: 10, Minor: 232}}, nil
			}
		},
	}
	for name, change := range cases {
		in := input()
		change(&in)
		s, err := Build(in)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(got), "evil") {
			t.Errorf("%s: an annotation of the Pod reached the specification", name)
		}
		file := "testdata/" + name + ".json"
		if *update {
			if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), string(got)+"\n"); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestRefused(t *testing.T) {
	for want, change := range map[string]func(*runtimeapi.ContainerConfig){
		"run_as_group: a group is given without a user": func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.RunAsGroup = &runtimeapi.Int64Value{Value: 5}
		},
		"selinux_options": func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.SelinuxOptions = &runtimeapi.SELinuxOption{Level: "s0"}
		},
		"unknown capability": func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"FLY"}}
		},
		"not absolute":              func(c *runtimeapi.ContainerConfig) { c.Mounts[0].HostPath = "x/y" },
		"the image was not mounted": func(c *runtimeapi.ContainerConfig) { c.Mounts[0].Image = &runtimeapi.ImageSpec{Image: "i"} },
		"mount option \"dirsync\"":  func(c *runtimeapi.ContainerConfig) { c.Mounts[0].MountOptions = []string{"dirsync"} },
		`apparmor: profile "p": AppArmor is not enabled on this machine`: func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.Apparmor = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "p"}
		},
	} {
		in := input()
		in.Node.SELinux = true
		change(in.Container)
		if _, err := Build(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestSELinuxElsewhere: labels mean nothing to a kernel that has none, so they stop no container there.
func TestSELinuxElsewhere(t *testing.T) {
	in := input()
	in.Container.Linux.SecurityContext.SelinuxOptions = &runtimeapi.SELinuxOption{User: "u", Role: "r", Type: "t", Level: "s0"}
	s, err := Build(in)
	if err != nil || s.Process.SelinuxLabel != "" || s.Linux.MountLabel != "" {
		t.Errorf("%v %+v", err, s)
	}
}

func TestCommand(t *testing.T) {
	image := ocispec.ImageConfig{Entrypoint: []string{"e"}, Cmd: []string{"c"}}
	for _, c := range []struct{ command, args, want []string }{
		{nil, nil, []string{"e", "c"}},
		{nil, []string{"a"}, []string{"e", "a"}},
		{[]string{"x"}, nil, []string{"x"}},
		{[]string{"x"}, []string{"a"}, []string{"x", "a"}},
	} {
		got, err := Command(&runtimeapi.ContainerConfig{Command: c.command, Args: c.args}, image)
		if d := cmp.Diff(c.want, got); d != "" || err != nil {
			t.Errorf("%v: %s %v", c, d, err)
		}
	}
	if _, err := Command(&runtimeapi.ContainerConfig{}, ocispec.ImageConfig{}); err != ErrNoCommand {
		t.Error(err)
	}
}

func TestCapabilities(t *testing.T) {
	bounding := []string{"CAP_CHOWN", "CAP_KILL", "CAP_NET_ADMIN", "CAP_SYS_TIME"}
	for _, c := range []struct {
		add, drop, keep []string
		privileged      bool
		want, ambient   []string
	}{
		{want: []string{"CAP_CHOWN", "CAP_KILL"}},
		{add: []string{"net_admin", "SYS_RESOURCE"}, drop: []string{"KILL"}, want: []string{"CAP_CHOWN", "CAP_NET_ADMIN"}},
		{add: []string{"KILL"}, drop: []string{"ALL"}, want: []string{"CAP_KILL"}},
		{add: []string{"ALL"}, drop: []string{"SYS_TIME"}, want: []string{"CAP_CHOWN", "CAP_KILL", "CAP_NET_ADMIN"}},
		{privileged: true, want: bounding},
		{keep: []string{"NET_ADMIN", "SYS_RESOURCE"}, drop: []string{"all"}, want: []string{"CAP_NET_ADMIN"}, ambient: []string{"CAP_NET_ADMIN"}},
		{keep: []string{"KILL"}, add: []string{"KILL"}, drop: []string{"KILL"}, want: []string{"CAP_CHOWN"}},
		{keep: []string{"ALL"}, drop: []string{"KILL"}, want: []string{"CAP_CHOWN", "CAP_NET_ADMIN", "CAP_SYS_TIME"},
			ambient: []string{"CAP_CHOWN", "CAP_NET_ADMIN", "CAP_SYS_TIME"}},
	} {
		got, ambient, err := capabilities(&runtimeapi.LinuxContainerSecurityContext{Privileged: c.privileged,
			Capabilities: &runtimeapi.Capability{AddCapabilities: c.add, DropCapabilities: c.drop, AddAmbientCapabilities: c.keep}}, bounding)
		if d := cmp.Diff(c.want, got) + cmp.Diff(c.ambient, ambient); d != "" || err != nil {
			t.Errorf("%+v: %s %v", c, d, err)
		}
	}
	if _, _, err := capabilities(&runtimeapi.LinuxContainerSecurityContext{Capabilities: &runtimeapi.Capability{AddAmbientCapabilities: []string{"FLY"}}},
		bounding); err == nil {
		t.Error("an unknown capability is kept")
	}
}

func TestResolveUser(t *testing.T) {
	const passwd = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbroken\n"
	const group = "root:x:0:\nstaff:x:50:bob,ann\nann:x:1000:\n"
	v := func(n int64) *runtimeapi.Int64Value { return &runtimeapi.Int64Value{Value: n} }
	type sc = runtimeapi.LinuxContainerSecurityContext
	for name, c := range map[string]struct {
		sc    *sc
		image string
		want  User
		err   string
	}{
		"nothing":       {&sc{}, "", User{Home: "/root", Groups: []uint32{0}}, ""},
		"image name":    {&sc{}, "ann", User{1000, 1000, []uint32{50, 1000}, "/home/ann"}, ""},
		"image both":    {&sc{}, "ann:staff", User{1000, 50, []uint32{50}, "/home/ann"}, ""},
		"unknown id":    {&sc{}, "77:88", User{77, 88, []uint32{88}, "/"}, ""},
		"unknown name":  {&sc{}, "nobody", User{}, `user "nobody" is not in the image's /etc/passwd`},
		"unknown group": {&sc{}, "ann:nope", User{}, `group "nope" is not in the image's /etc/group`},
		"pod user":      {&sc{RunAsUser: v(1000), RunAsGroup: v(7), SupplementalGroups: []int64{9}}, "root:root", User{1000, 7, []uint32{7, 9, 50}, "/home/ann"}, ""},
		"strict": {&sc{RunAsUser: v(1000), SupplementalGroupsPolicy: runtimeapi.SupplementalGroupsPolicy_Strict}, "",
			User{1000, 1000, []uint32{1000}, "/home/ann"}, ""},
	} {
		got, err := ResolveUser(c.sc, c.image, strings.NewReader(passwd), strings.NewReader(group))
		if c.err != "" {
			if err == nil || err.Error() != c.err {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if d := cmp.Diff(c.want, got); d != "" || err != nil {
			t.Errorf("%s: %s %v", name, d, err)
		}
	}
}

func TestSeccompTable(t *testing.T) {
	plain, admin := DefaultSeccomp("amd64", nil), DefaultSeccomp("amd64", []string{"CAP_SYS_ADMIN"})
	has := func(s *specs.LinuxSeccomp, name string) bool {
		for _, n := range s.Syscalls[0].Names {
			if n == name {
				return true
			}
		}
		return false
	}
	for _, name := range strings.Fields("read openat execve futex clone_x") {
		if has(plain, name) != (name != "clone_x") {
			t.Error(name)
		}
	}
	for _, name := range strings.Fields("mount bpf setns unshare keyctl io_uring_setup kexec_load userfaultfd socket clone clone3") {
		if has(plain, name) {
			t.Errorf("%s is allowed", name)
		}
	}
	if !has(admin, "mount") || !has(admin, "clone") || has(admin, "kexec_load") {
		t.Error("CAP_SYS_ADMIN")
	}
}

func TestAppArmor(t *testing.T) {
	profile := func(kind runtimeapi.SecurityProfile_ProfileType, ref string) *runtimeapi.LinuxContainerSecurityContext {
		return &runtimeapi.LinuxContainerSecurityContext{Apparmor: &runtimeapi.SecurityProfile{ProfileType: kind, LocalhostRef: ref}}
	}
	enforcing := Node{AppArmor: func(p string) bool { return p == "loaded" || p == "carob-default" }}
	bare := Node{AppArmor: func(string) bool { return false }}
	old := func(ref string) *runtimeapi.LinuxContainerSecurityContext {
		return &runtimeapi.LinuxContainerSecurityContext{ApparmorProfile: ref}
	}
	both := profile(runtimeapi.SecurityProfile_Unconfined, "")
	both.ApparmorProfile = "localhost/loaded"
	privileged := profile(runtimeapi.SecurityProfile_Localhost, "loaded")
	privileged.Privileged = true
	for name, c := range map[string]struct {
		node Node
		sc   *runtimeapi.LinuxContainerSecurityContext
		want string
		err  string
	}{
		"none":                   {enforcing, &runtimeapi.LinuxContainerSecurityContext{}, "carob-default", ""},
		"none, none loaded":      {bare, &runtimeapi.LinuxContainerSecurityContext{}, "", ""},
		"default, none loaded":   {bare, profile(runtimeapi.SecurityProfile_RuntimeDefault, ""), "", ""},
		"unconfined":             {enforcing, profile(runtimeapi.SecurityProfile_Unconfined, ""), "", ""},
		"default":                {enforcing, profile(runtimeapi.SecurityProfile_RuntimeDefault, ""), "carob-default", ""},
		"default, not enforcing": {Node{}, profile(runtimeapi.SecurityProfile_RuntimeDefault, ""), "", ""},
		"loaded":                 {enforcing, profile(runtimeapi.SecurityProfile_Localhost, "loaded"), "loaded", ""},
		"loaded, by old name":    {enforcing, profile(runtimeapi.SecurityProfile_Localhost, "localhost/loaded"), "loaded", ""},
		"privileged":             {enforcing, privileged, "", ""},
		"old, loaded":            {enforcing, old("localhost/loaded"), "loaded", ""},
		"old, default":           {enforcing, old("runtime/default"), "carob-default", ""},
		"old, unconfined":        {enforcing, old("unconfined"), "", ""},
		"old, not loaded":        {enforcing, old("localhost/x"), "", `apparmor: profile "x" is not loaded into the kernel`},
		"old, nonsense":          {enforcing, old("x"), "", `apparmor: profile "x": want runtime/default, unconfined or localhost/<name>`},
		"both":                   {enforcing, both, "", ""},
		"not loaded":             {enforcing, profile(runtimeapi.SecurityProfile_Localhost, "x"), "", `apparmor: profile "x" is not loaded into the kernel`},
		"not enforcing":          {Node{}, profile(runtimeapi.SecurityProfile_Localhost, "x"), "", `apparmor: profile "x": AppArmor is not enabled on this machine`},
	} {
		got, err := apparmor(c.node, c.sc)
		if c.err == "" && err != nil || c.err != "" && (err == nil || err.Error() != c.err) || got != c.want {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
}

func TestUserNamespace(t *testing.T) {
	in := input()
	ids := []*runtimeapi.IDMapping{{HostId: 65536, Length: 65536}}
	in.Container.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids}
	s, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	want := []specs.LinuxIDMapping{{HostID: 65536, Size: 65536}}
	if d := cmp.Diff(want, s.Linux.UIDMappings) + cmp.Diff(want, s.Linux.GIDMappings); d != "" {
		t.Error(d)
	}
	found := false
	for _, ns := range s.Linux.Namespaces {
		found = found || ns.Type == specs.UserNamespace && ns.Path == "/proc/42/ns/user"
	}
	if !found {
		t.Errorf("pause's user namespace is not joined: %v", s.Linux.Namespaces)
	}
	in.Container.Mounts[0].UidMappings = ids
	if _, err := Build(in); err == nil || !strings.Contains(err.Error(), "mount /data/deep: uid_mappings") {
		t.Errorf("mappings that nobody applied: %v", err)
	}
}

func TestHugepages(t *testing.T) {
	limits := func(n uint64) *runtimeapi.LinuxContainerResources {
		return &runtimeapi.LinuxContainerResources{HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: n}}}
	}
	for _, unified := range []bool{false, true} {
		with, without := Node{Unified: unified, Controllers: []string{"cpu", "hugetlb"}}, Node{Unified: unified, Controllers: []string{"cpu"}}
		r, err := Resources(limits(4<<20), with)
		if d := cmp.Diff([]specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}, r.HugepageLimits); d != "" || err != nil {
			t.Errorf("unified %v: %s %v", unified, d, err)
		}
		if _, err := Resources(limits(0), without); err != nil {
			t.Errorf("unified %v: zeros for what the machine does not have: %v", unified, err)
		}
		if _, err := Resources(limits(4<<20), without); err == nil || !strings.Contains(err.Error(), "hugepage_limits: this machine has no hugetlb controller") {
			t.Errorf("unified %v: %v", unified, err)
		}
	}
}

func TestDevices(t *testing.T) {
	host := func(from, to string) ([]specs.LinuxDevice, error) {
		switch from {
		case "/dev":
			return []specs.LinuxDevice{{Path: "/dev/one", Type: "c", Major: 1, Minor: 1}}, nil
		case "/dev/one":
			return []specs.LinuxDevice{{Path: to, Type: "c", Major: 1, Minor: 1}}, nil
		}
		return nil, errors.New("no such device")
	}
	for name, c := range map[string]struct {
		device     *runtimeapi.Device
		privileged bool
		paths      []string
		access     string
		err        string
	}{
		"as it is":         {&runtimeapi.Device{HostPath: "/dev/one", Permissions: "r"}, false, []string{"/dev/one"}, "r", ""},
		"elsewhere":        {&runtimeapi.Device{HostPath: "/dev/one", ContainerPath: "/dev/x", Permissions: "rw"}, false, []string{"/dev/x"}, "rw", ""},
		"no permissions":   {&runtimeapi.Device{HostPath: "/dev/one"}, false, []string{"/dev/one"}, "rwm", ""},
		"among all":        {&runtimeapi.Device{HostPath: "/dev/one"}, true, []string{"/dev/one"}, "rwm", ""},
		"beside all":       {&runtimeapi.Device{HostPath: "/dev/one", ContainerPath: "/dev/x"}, true, []string{"/dev/one", "/dev/x"}, "rwm", ""},
		"other permission": {&runtimeapi.Device{HostPath: "/dev/one", Permissions: "rx"}, false, nil, "", `permissions: "rx" has others than r, w and m`},
		"relative":         {&runtimeapi.Device{HostPath: "dev/one"}, false, nil, "", "the paths must be absolute"},
		"relative inside":  {&runtimeapi.Device{HostPath: "/dev/one", ContainerPath: "x"}, false, nil, "", "the paths must be absolute"},
		"not there":        {&runtimeapi.Device{HostPath: "/dev/two"}, false, nil, "", "device /dev/two: no such device"},
	} {
		in := input()
		in.Devices = host
		in.Container.Devices = []*runtimeapi.Device{c.device}
		in.Container.Linux.SecurityContext.Privileged = c.privileged
		s, err := Build(in)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var paths []string
		for _, d := range s.Linux.Devices {
			paths = append(paths, d.Path)
		}
		rules := s.Linux.Resources.Devices
		if d := cmp.Diff(c.paths, paths); d != "" || rules[0].Allow != c.privileged || rules[1].Access != c.access {
			t.Errorf("%s: %s %v", name, d, rules)
		}
	}
}
