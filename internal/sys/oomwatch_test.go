package sys

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestOOMWatch: a child that is killed for want of memory is heard of while its parent, in the same cgroup, lives on.
func TestOOMWatch(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	path := "/carob-test-" + time.Now().Format("150405.000000")
	if err := CgroupCreate(path, Resources{Memory: 16 << 20}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { CgroupKillAll(path); CgroupRemove(path) })
	w, err := NewOOMWatch()
	if err != nil {
		t.Fatal(err)
	}
	if kills, err := w.Add("a", path); err != nil || kills != 0 {
		t.Fatal(err)
	}
	heard := make(chan string, 10)
	ended := make(chan struct{})
	go func() { w.Run(func(name string) { heard <- name }); close(ended) }()
	cmd := exec.Command("sh", "-c", "read x; tail /dev/zero; read y")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := CgroupEnter(path, cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	in.Write([]byte("go\n"))
	select {
	case name := <-heard:
		if name != "a" {
			t.Errorf("heard of %s", name)
		}
	case <-time.After(20 * time.Second):
		t.Error("nothing was heard of")
	}
	in.Close()
	if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("the parent ended with %v", err)
	}
	w.Remove("a")
	w.Close()
	<-ended
}
