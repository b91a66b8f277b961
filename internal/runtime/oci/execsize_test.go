package oci

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestExecutable holds what is refused against the kernel itself: what fits can be started, what is refused cannot.
func TestExecutable(t *testing.T) {
	var stack unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_STACK, &stack); err != nil {
		t.Fatal(err)
	}
	room := int(max(min(maxRoom, stack.Cur/4), minRoom))
	many := func(n, size int) []string {
		env := make([]string, n)
		for i := range env {
			env[i] = fmt.Sprintf("A%09d=", i) + strings.Repeat("x", size-11)
		}
		return env
	}
	for name, v := range map[string]struct {
		args, env []string
		want      string
	}{
		"usual":              {[]string{"/bin/true", "a"}, []string{"A=b"}, ""},
		"largest variable":   {[]string{"/bin/true"}, many(1, maxString-1), ""},
		"variable too large": {[]string{"/bin/true"}, []string{"BIG=" + strings.Repeat("x", maxString-4)}, "the variable BIG has 131072 bytes"},
		"largest argument":   {[]string{"/bin/true", strings.Repeat("x", maxString-1)}, nil, ""},
		"argument too large": {[]string{"/bin/true", strings.Repeat("x", maxString)}, nil, "argument 1 has 131072 bytes"},
		// A process has some things more on its stack: the kernel's own strings take less than a page.
		"most variables":     {[]string{"/bin/true"}, many((room-4096)/(1000+1+pointer), 1000), ""},
		"too many variables": {[]string{"/bin/true"}, many(room/(1000+1+pointer)+1, 1000), "enableServiceLinks: false"},
	} {
		err := executable(v.args, v.env, stack.Cur)
		started := (&exec.Cmd{Path: v.args[0], Args: v.args, Env: v.env}).Run()
		if v.want == "" && (err != nil || started != nil) || v.want != "" && (err == nil || !strings.Contains(err.Error(), v.want) || started == nil) {
			t.Errorf("%s: %v; the kernel says %v", name, err, started)
		}
	}
}
