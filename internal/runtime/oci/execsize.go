package oci

import (
	"fmt"
	"strings"
)

const (
	// maxString is what the kernel takes of one argument or variable, its closing zero byte included (MAX_ARG_STRLEN, include/uapi/linux/binfmts.h).
	maxString = 131072
	// minRoom and maxRoom bound what it takes of all together; between them it is a quarter of the stack's limit (bprm_stack_limits in fs/exec.c).
	minRoom = 131072
	maxRoom = 6 << 20
	pointer = 8
)

// executable says whether the kernel can start a process with these arguments and variables. It would say no more than "argument list too
// long", and only when the container has been started. stack is the limit of the process's stack, in bytes.
func executable(args, env []string, stack uint64) error {
	total := uint64(len(args[0]) + 1) // the file's name stands there once more
	for i, s := range args {
		if len(s) >= maxString {
			return fmt.Errorf("command: argument %d has %d bytes, and the kernel takes no more than %d: put it into a file of a volume", i, len(s), maxString-1)
		}
		total += uint64(len(s)) + 1 + pointer
	}
	for _, s := range env {
		if len(s) >= maxString {
			name, _, _ := strings.Cut(s, "=")
			return fmt.Errorf("env: the variable %s has %d bytes, and the kernel takes no more than %d with its name: put it into a file of a volume", name, len(s), maxString-1)
		}
		total += uint64(len(s)) + 1 + pointer
	}
	if room := max(min(maxRoom, stack/4), minRoom); total > room {
		return fmt.Errorf("env: the command and its %d variables need %d bytes, and the kernel takes no more than %d: set fewer; those of a namespace's Services are left out with enableServiceLinks: false", len(env), total, room)
	}
	return nil
}
