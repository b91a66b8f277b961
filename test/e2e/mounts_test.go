//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMountPropagation has mounts made in one container be seen, or not, by the machine and by others as their volumeMounts say.
func TestMountPropagation(t *testing.T) {
	s := newSpace(t)
	dir := filepath.Join(s.c.host.Dir, "propagation")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s.apply(podOf("web", "terminationGracePeriodSeconds: 1", "volumes: [{name: h, hostPath: {path: "+dir+"}}]", "containers:",
		container("both", forever, mounts("h:/h:mountPropagation: Bidirectional"), "securityContext: {privileged: true}"),
		container("hears", forever, mounts("h:/h:mountPropagation: HostToContainer")),
		container("private", forever, mounts("h:/h"))))
	s.ready("web")
	s.sh("web", "both", "mkdir -p /h/m && mount -t tmpfs none /h/m && echo here > /h/m/f")
	for c, want := range map[string]string{"both": "here\n", "hears": "here\n", "private": ""} {
		if got := s.sh("web", c, "cat /h/m/f 2>/dev/null; true"); got != want {
			t.Errorf("%s sees %q, want %q", c, got, want)
		}
	}
	s.sh("web", "both", "umount /h/m")
	if got := s.sh("web", "hears", "ls /h/m"); got != "" {
		t.Errorf("after the end of the mount: %q", got)
	}
}

// TestRecursiveReadOnly has what is mounted in a volume be read-only too where the Pod asks for that.
func TestRecursiveReadOnly(t *testing.T) {
	s := newSpace(t)
	dir := filepath.Join(s.c.host.Dir, "recursive")
	if err := os.MkdirAll(dir+"/in", 0o777); err != nil {
		t.Fatal(err)
	}
	if out, err := s.c.host.Command("mount", "-t", "tmpfs", "none", dir+"/in").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { s.c.host.Command("umount", "-l", dir+"/in").Run() })
	s.apply(podOf("web", "terminationGracePeriodSeconds: 1", "volumes: [{name: h, hostPath: {path: "+dir+"}}]", "containers:",
		container("main", forever, mounts("h:/top:readOnly: true", "h:/all:readOnly: true, recursiveReadOnly: Enabled", "h:/maybe:readOnly: true, recursiveReadOnly: IfPossible"))))
	s.ready("web")
	got := s.sh("web", "", "for d in /top /all /maybe; do for f in $d/f $d/in/f; do (echo x > $f) 2>/dev/null && echo $f; done; done; true")
	if got != "/top/in/f\n" {
		t.Errorf("could be written: %q", got)
	}
	if got := s.kubectl("get", "pod", "web", "-o", "jsonpath={.status.containerStatuses[0].volumeMounts[?(@.name=='h')].recursiveReadOnly}"); strings.Fields(got)[1] != "Enabled" {
		t.Errorf("status: %q", fmt.Sprint(got))
	}
}
