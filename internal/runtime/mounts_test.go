package runtime

import (
	"context"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/sys"
)

// TestMountedForStart holds that a container that has started needs no mount on the machine, however carob comes and goes, and that all
// containers of a Pod have one /dev/shm for as long as pause lives.
func TestMountedForStart(t *testing.T) {
	for _, handler := range []string{"", "runc"} {
		t.Run("handler "+handler, func(t *testing.T) {
			b := newBench(t)
			pod, err := b.RunPodSandbox(context.Background(), b.podConfig("mounts"), handler)
			if err != nil {
				t.Fatal(err)
			}
			mounted := func(when string, want int) {
				t.Helper()
				b.beside.Wait()
				var all []string
				for _, dir := range []string{b.cfg.Root, b.cfg.RunDir} {
					m, err := sys.MountsBelow(dir)
					if err != nil {
						t.Fatal(err)
					}
					all = append(all, m...)
				}
				if len(all) != want {
					t.Errorf("%s %d are mounted, want %d: %v", when, len(all), want, all)
				}
			}
			mounted("before the first container", 0)
			c := containerConfig("a", "sh", "-c", "echo kept >/dev/shm/a; stat -f -c %T /dev/shm; df -m /dev/shm | tail -1 | awk '{print $2}'; exec sleep 1000")
			c.Mounts = append(c.Mounts, &runtimeapi.Mount{ContainerPath: "/image", Readonly: true, Image: &runtimeapi.ImageSpec{Image: c.Image.Image}})
			a := b.create(pod, c)
			mounted("after a container was made", 3) // root, image, /dev/shm
			if err := b.StartContainer(context.Background(), a); err != nil {
				t.Fatal(err)
			}
			mounted("after it was started", 0)
			made := b.create(pod, containerConfig("made", "cat", "/dev/shm/a"))
			b.Close(context.Background())
			b.open()
			mounted("after carob was started again", 2)
			out, _, err := b.ExecSync(context.Background(), a, []string{"cat", "/dev/shm/a"}, 0)
			if err != nil || string(out) != "kept\n" {
				t.Errorf("a command sees %q: %v", out, err)
			}
			if err := b.StopContainer(context.Background(), a, 0); err != nil {
				t.Fatal(err)
			}
			if err := b.StartContainer(context.Background(), made); err != nil {
				t.Fatal(err)
			}
			b.ended(made)
			if got := b.log(made); got != "stdout F kept\n" {
				t.Errorf("a later container sees %q", got)
			}
			bad := b.create(pod, containerConfig("bad", "/no/such/program"))
			if err := b.StartContainer(context.Background(), bad); err == nil {
				t.Error("a program that is not there was started")
			}
			mounted("after a start failed", 0)
			if want := "stdout F tmpfs\nstdout F 64\n"; b.log(a) != want {
				t.Errorf("/dev/shm is %q, want %q", b.log(a), want)
			}
		})
	}
}
