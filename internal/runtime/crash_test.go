package runtime

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// childEnv makes the test binary play the part of a carob that is killed: its value is the bench's Config.
const childEnv = "CAROB_RUNTIME_TEST_CHILD"

// Busy, if set, are containers that it does something with in place of making Pods: see busyChild.
type childConfig struct {
	Root, RunDir, CgroupRoot, Layer string
	Busy                            map[string]string
}

func TestMain(m *testing.M) {
	if raw := os.Getenv(childEnv); raw != "" {
		if err := child(raw); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// child makes Pods one after the other until it is killed. It prints each container that it started.
func child(raw string) error {
	var c childConfig
	if err := json.Unmarshal([]byte(raw), &c); err != nil {
		return err
	}
	ctx := context.Background()
	r, err := New(ctx, Config{Root: c.Root, RunDir: c.RunDir, CgroupRoot: c.CgroupRoot, Images: fakeImages{c.Layer},
		Network: &fakeNetwork{attached: map[string]bool{}}, OCIRuntimes: map[string]string{"": "crun"}})
	if err != nil {
		return err
	}
	if c.Busy != nil {
		return busyChild(r, c.Busy)
	}
	b := &bench{Runtime: r, cfg: r.cfg}
	for i := 0; ; i++ {
		name := fmt.Sprintf("p%d-%d", os.Getpid(), i)
		pod, err := r.RunPodSandbox(ctx, b.podConfig(name), "")
		if err != nil {
			return err
		}
		id, err := r.CreateContainer(ctx, pod, containerConfig("c", "sh", "-c", "sleep 0.1; exit 5"), nil)
		if err != nil {
			return err
		}
		if err := r.StartContainer(ctx, id); err != nil {
			return err
		}
		fmt.Println(id)
		if i%2 == 1 {
			if err := r.RemovePodSandbox(ctx, pod); err != nil {
				return err
			}
		}
	}
}

// TestKilled kills a carob with SIGKILL at some moment, opens a new one on what it left, and again: no started container is lost, none is
// doubled, all ends are known, and what was half made is gone.
func TestKilled(t *testing.T) {
	b := newBench(t)
	b.Close(context.Background())
	raw, err := json.Marshal(childConfig{b.cfg.Root, b.cfg.RunDir, b.cfg.CgroupRoot, b.cfg.Images.(fakeImages).layer, nil})
	if err != nil {
		t.Fatal(err)
	}
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	for i := range rounds {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), childEnv+"="+string(raw))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Duration(60+37*i)*time.Millisecond, func() { cmd.Process.Kill() })
		var started []string
		for sc := bufio.NewScanner(out); sc.Scan(); {
			started = append(started, sc.Text())
		}
		if cmd.Wait(); !strings.Contains(cmd.ProcessState.String(), "killed") {
			t.Fatalf("the child ended by itself: %v", cmd.ProcessState)
		}
		b.open()
		checkSurvivors(t, b, started)
		if i%3 == 2 {
			removeAll(t, b)
		}
		b.Close(context.Background())
	}
	b.open()
}

func checkSurvivors(t *testing.T, b *bench, started []string) {
	t.Helper()
	ctx := context.Background()
	list, err := b.ListContainers(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, c := range list {
		known[c.Id] = true
		if c.State == runtimeapi.ContainerState_CONTAINER_CREATED {
			continue
		}
		if s := b.ended(c.Id); s.ExitCode != 5 && s.ExitCode != 137 {
			t.Errorf("container %s: %v", c.Id, s)
		}
	}
	for i, id := range started {
		if i%2 == 0 && !known[id] {
			t.Errorf("container %s, which was started, is lost", id)
		}
	}
}

func removeAll(t *testing.T, b *bench) {
	t.Helper()
	list, err := b.ListPodSandbox(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		if err := b.RemovePodSandbox(context.Background(), p.Id); err != nil {
			t.Error(err)
		}
	}
}
