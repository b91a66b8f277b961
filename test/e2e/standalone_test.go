//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// lone is an agent without an API server. What it runs is seen through its CRI socket.
type lone struct {
	*testing.T
	c   *cluster
	url string
	cmd *exec.Cmd
	cri runtimeapi.RuntimeServiceClient
}

// start runs the agent, the way a service unit would.
func (l *lone) start() {
	l.Helper()
	l.cmd = l.c.command(context.Background(), carobBinary, append([]string{"agent", "--standalone", "--pod-manifests-url", l.url}, l.c.upArgs()[2:]...)...)
	var out bytes.Buffer
	l.cmd.Stdout, l.cmd.Stderr = &out, &out
	if err := l.cmd.Start(); err != nil {
		l.Fatal(err)
	}
	cmd := l.cmd
	l.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if l.Failed() {
			l.Logf("the agent said:\n%s", out.String())
		}
	})
}

// running waits until exactly these containers run, each as "pod/attempt", and returns their IDs.
func (l *lone) running(want string) map[string]string {
	l.Helper()
	ids := map[string]string{}
	eventually(l, "the containers "+want, func() error {
		r, err := l.cri.ListContainers(l.Context(), &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{
			State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}}})
		if err != nil {
			return err
		}
		clear(ids)
		var all []string
		for _, pod := range []string{"file-" + nodeName, "url-" + nodeName} {
			for _, c := range r.Containers {
				if c.Labels["io.kubernetes.pod.name"] == pod {
					all = append(all, fmt.Sprintf("%s/%d", strings.TrimSuffix(pod, "-"+nodeName), c.Metadata.Attempt))
					ids[pod] = c.Id
				}
			}
		}
		if got := strings.Join(all, " "); got != want || len(r.Containers) != len(all) {
			return fmt.Errorf("%d run: %s", len(r.Containers), got)
		}
		return nil
	})
	return ids
}

// TestStandalone runs Pods of a folder and of a URL without an API server. They are started again when they end, outlive a kill of the agent, and go
// on when the URL does not answer.
func TestStandalone(t *testing.T) {
	t.Parallel()
	l := &lone{T: t, c: newCluster(t)}
	server, err := l.c.listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	manifest := func(name string) string { return strings.TrimPrefix(simple(name, forever), "---\n") }
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		fmt.Fprint(w, manifest("url"))
	})}
	go web.Serve(server)
	defer web.Close()
	l.url = "http://" + server.Addr().String() + "/pods"
	if err := os.MkdirAll(l.c.manifests(), 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(l.c.manifests(), "file.yaml")
	if err := os.WriteFile(file, []byte(manifest("file")), 0o600); err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(fmt.Sprintf("unix:///proc/%d/root/run/carob-%s/cri.sock", l.c.host.HolderPID(), l.c.host.ID()),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	l.cri = runtimeapi.NewRuntimeServiceClient(conn)

	l.start()
	first := l.running("file/0 url/0")
	if _, err := l.cri.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: first["file-"+nodeName]}); err != nil {
		t.Fatal(err)
	}
	again := l.running("file/1 url/0")
	if asked.Load() == 0 {
		t.Error("the URL was not asked")
	}

	web.Close()
	if err := l.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	l.cmd.Wait()
	l.start()
	for pod, id := range l.running("file/1 url/0") {
		if id != again[pod] {
			t.Errorf("%s was started anew with the agent", pod)
		}
	}
	if out, err := l.c.carob("status", "--root", l.c.host.Root); err != nil || !strings.Contains(out, nodeName) {
		t.Errorf("carob status: %v\n%s", err, out)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	l.running("url/0")
	if out, err := l.c.carob("down", "--root", l.c.host.Root); err != nil || !strings.Contains(out, "url-"+nodeName+" stopped") {
		t.Errorf("carob down: %v\n%s", err, out)
	}
	ended := make(chan struct{})
	go func() { l.cmd.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("the agent did not end with carob down")
	}
}
