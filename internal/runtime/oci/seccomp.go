package oci

import (
	_ "embed"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

//go:embed seccomp.txt
var seccompTable string

// namespaceBits are the flags of clone(2) that make namespaces.
const namespaceBits = 0x7E020000

// DefaultSeccomp is the RuntimeDefault profile for a process with the given capabilities on an architecture as Go names it.
func DefaultSeccomp(goarch string, capabilities []string) *specs.LinuxSeccomp {
	eperm, enosys := uint(1), uint(38)
	s := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &eperm, Architectures: architectures(goarch)}
	var names []string
	for line := range strings.Lines(seccompTable) {
		f := strings.Fields(line)
		if len(f) > 1 && (f[0] == "allow" || slices.Contains(capabilities, f[0])) {
			names = append(names, f[1:]...)
		}
	}
	slices.Sort(names)
	s.Syscalls = []specs.LinuxSyscall{{Names: slices.Compact(names), Action: specs.ActAllow}}
	add := func(name string, action specs.LinuxSeccompAction, errno *uint, args ...specs.LinuxSeccompArg) {
		s.Syscalls = append(s.Syscalls, specs.LinuxSyscall{Names: []string{name}, Action: action, ErrnoRet: errno, Args: args})
	}
	for _, persona := range []uint64{0, 8, 0x20000, 0x20008, 0xffffffff} {
		add("personality", specs.ActAllow, nil, specs.LinuxSeccompArg{Index: 0, Value: persona, Op: specs.OpEqualTo})
	}
	// Sockets of all families but vsock (40), which reaches past the network namespace to the hypervisor.
	add("socket", specs.ActAllow, nil, specs.LinuxSeccompArg{Index: 0, Value: 40, Op: specs.OpNotEqual})
	if !slices.Contains(capabilities, "CAP_SYS_ADMIN") {
		add("clone", specs.ActAllow, nil, specs.LinuxSeccompArg{Index: 0, Value: namespaceBits, ValueTwo: 0, Op: specs.OpMaskedEqual})
		add("clone3", specs.ActErrno, &enosys) // its flags cannot be seen: libc falls back to clone
	}
	return s
}

func architectures(goarch string) []specs.Arch {
	switch goarch {
	case "amd64":
		return []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
	case "arm64":
		return []specs.Arch{specs.ArchAARCH64, specs.ArchARM}
	}
	return nil
}
