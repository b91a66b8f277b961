package containerd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// examples runs the two examples and all that people do with Pods. runtime is the runtime's name.
func (c *cluster) examples(runtime string) {
	c.Helper()
	folder := filepath.Join(c.Dir, "page")
	example := func(name string) {
		c.Helper()
		raw, err := os.ReadFile("../../examples/" + name)
		if err != nil {
			c.Fatal(err)
		}
		c.apply(strings.ReplaceAll(string(raw), "/var/tmp/carob-example-page", folder))
	}
	ip := ""
	c.step("two containers", func() {
		example("two-containers.yaml")
		c.kubectl("wait", "--for=condition=Ready", "--timeout=60s", "pod/two-containers")
		ip = c.get("pod two-containers", "{.status.podIP}")
		if !strings.HasPrefix(ip, "10.42.0.") {
			c.Errorf("the Pod's address is %q", ip)
		}
		c.eventually(10*time.Second, "nginx serves the page", func() error { return c.hello(ip) })
		if raw, err := os.ReadFile(filepath.Join(folder, "index.html")); string(raw) != hello {
			c.Errorf("the machine sees %q, %v", raw, err)
		}
		want(c, "container IDs", c.get("pod two-containers", "{.status.containerStatuses[*].containerID}"), runtime+"://")
	})
	c.step("deployment", func() {
		example("nginx-deployment.yaml")
		c.kubectl("rollout", "status", "deployment/nginx-deployment", "--timeout=90s")
		ips := strings.Fields(c.get("pods -l app=nginx", "{.items[*].status.podIP}"))
		if len(ips) != 4 {
			c.Fatalf("addresses of the four Pods: %v", ips)
		}
		for _, ip := range ips {
			c.eventually(10*time.Second, ip+" serves the page", func() error { return c.hello(ip) })
		}
	})
	c.step("logs", func() {
		c.apply(busybox("talker", "for i in 1 2 3 4 5; do echo line $i; sleep 0.3; done; sleep 0.2; echo oops >&2; exit 3", ""))
		c.kubectl("wait", "--for=condition=Ready", "--timeout=30s", "pod/talker")
		if out := c.kubectl("logs", "-f", "talker"); out != "line 1\nline 2\nline 3\nline 4\nline 5\noops\n" {
			c.Errorf("kubectl logs -f: %q", out)
		}
		c.waitGet("pod talker", "{.status.phase} {.status.containerStatuses[0].state.terminated.exitCode}", "Failed 3")
		if out := c.kubectl("logs", "talker", "--tail=1"); out != "oops\n" {
			c.Errorf("kubectl logs --tail=1: %q", out)
		}
	})
	c.step("exec", func() {
		out := c.kubectl("exec", "two-containers", "-c", "debian-container", "--", "cat", "/pod-data/index.html")
		if out != hello {
			c.Errorf("kubectl exec: %q", out)
		}
		out, err := c.run("", kubectlBinary, "exec", "two-containers", "-c", "debian-container", "--", "sh", "-c", "echo bad >&2; exit 9")
		if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 9 || !strings.Contains(out, "bad") {
			c.Errorf("an exec that fails: %v %q", err, out)
		}
		out, err = c.run("over\nand out\n", kubectlBinary, "exec", "-i", "two-containers", "-c", "debian-container", "--", "wc", "-l")
		if err != nil || strings.TrimSpace(out) != "2" {
			c.Errorf("exec with input: %v %q", err, out)
		}
		out, err = c.run("", "script", "-qec", kubectlBinary+" exec -it two-containers -c debian-container -- sh -c 'stty size; tty'", "/dev/null")
		if err != nil || !strings.Contains(out, "/dev/pts/") || !regexp.MustCompile(`\d+ \d+`).MatchString(out) {
			c.Errorf("exec on a terminal: %v %q", err, out)
		}
	})
	c.step("attach", func() {
		c.apply(busybox("echoer", "while read line; do echo got $line; done", "stdin: true\n    stdinOnce: true"))
		c.kubectl("wait", "--for=condition=Ready", "--timeout=30s", "pod/echoer")
		out, err := c.run("one\ntwo\n", kubectlBinary, "attach", "-i", "echoer")
		if err != nil || !strings.Contains(out, "got one\ngot two\n") {
			c.Errorf("kubectl attach: %v %q", err, out)
		}
		c.waitGet("pod echoer", "{.status.phase}", "Succeeded")
	})
	c.step("port-forward", func() { c.portForward(filepath.Join(folder, "big")) })
	c.step("probes and hooks", func() {
		c.apply(busybox("probed", "touch /tmp/ok; sleep 2; rm /tmp/ok; sleep 999", `lifecycle: {postStart: {exec: {command: ["touch", "/tmp/hooked"]}}}
    readinessProbe: {exec: {command: ["sh", "-c", "test -e /tmp/ok && test -e /tmp/hooked"]}, periodSeconds: 1, failureThreshold: 1}`))
		c.kubectl("wait", "--for=condition=Ready", "--timeout=30s", "pod/probed")
		c.kubectl("wait", "--for=condition=Ready=false", "--timeout=30s", "pod/probed")
	})
	c.step("restart", func() {
		c.apply(strings.Replace(busybox("crasher", "sleep 0.5; exit 1", ""), "restartPolicy: Never", "restartPolicy: Always", 1))
		c.waitGet("pod crasher", "{.status.containerStatuses[0].restartCount}", "1")
		c.waitGet("pod crasher", "{.status.containerStatuses[0].lastState.terminated.exitCode}", "1")
	})
	c.step("stats", c.stats)
	c.step("tree", func() {
		out, err := c.run("", carobBinary, "tree", "pod", "two-containers")
		if err != nil {
			c.Errorf("carob tree: %v", err)
		}
		want(c, "carob tree", out, "pause", "nginx: master process", "sleep 999")
		if !regexp.MustCompile(`pause +pid \d+, .* holds .*net`).MatchString(out) {
			c.Errorf("carob tree does not say what pause holds:\n%s", out)
		}
	})
	c.step("behind its back", c.behind)
	c.step("killed Carob", func() { c.killed(ip) })
	c.step("delete", func() {
		c.kubectl("delete", "pod", "two-containers", "talker", "echoer", "probed", "crasher", "robust", "--grace-period=1")
		c.kubectl("delete", "deployment", "nginx-deployment")
		c.eventually(60*time.Second, "no Pod is left", func() error {
			if out := c.get("pods", "{.items[*].metadata.name}"); out != "" {
				return fmt.Errorf("still there: %s", out)
			}
			return nil
		})
		if entries, err := os.ReadDir(filepath.Join(c.Root, "pods")); err != nil || len(entries) > 0 {
			c.Errorf("folders of Pods: %v %v", entries, err)
		}
	})
}

// hello is the page of the examples.
const hello = "Hello from the debian container\n"

// hello asks for it.
func (c *cluster) hello(ip string) error {
	page, err := c.curl("http://" + ip + "/")
	if page != hello {
		return fmt.Errorf("%s served %q, %v", ip, page, err)
	}
	return nil
}

// portForward has requests run beside each other, and one that is large.
func (c *cluster) portForward(file string) {
	c.Helper()
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	if err := os.WriteFile(file, big, 0o644); err != nil {
		c.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := c.CommandContext(ctx, kubectlBinary, "port-forward", "pod/two-containers", "19090:80", "19091:81")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	if err := cmd.Start(); err != nil {
		c.Fatal(err)
	}
	defer func() { cancel(); cmd.Wait() }()
	c.eventually(20*time.Second, "the forwarded port answers", func() error {
		_, err := c.curl("http://127.0.0.1:19090/")
		return err
	})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if out, err := c.curl("http://127.0.0.1:19090/big"); err != nil || out != string(big) {
				c.Errorf("a file of 1 MiB came as %d bytes, %v", len(out), err)
			}
		})
	}
	wg.Wait()
	if out, err := c.curl("http://127.0.0.1:19091/"); err == nil {
		c.Errorf("a port where nobody listens answered %q", out)
	}
}

func (c *cluster) stats() {
	c.Helper()
	var s struct {
		Pods []struct {
			PodRef     struct{ Name string }
			Containers []struct {
				Name   string
				Memory struct{ WorkingSetBytes uint64 }
				CPU    struct{ UsageCoreNanoSeconds uint64 }
			}
		}
	}
	raw := c.kubectl("get", "--raw", "/api/v1/nodes/"+nodeName+"/proxy/stats/summary")
	if err := json.Unmarshal([]byte(raw), &s); err != nil {
		c.Fatal(err)
	}
	seen := 0
	for _, p := range s.Pods {
		for _, ctr := range p.Containers {
			if p.PodRef.Name == "two-containers" && ctr.Memory.WorkingSetBytes > 0 && ctr.CPU.UsageCoreNanoSeconds > 0 {
				seen++
			}
		}
	}
	if seen != 2 {
		c.Errorf("the summary tells what %d of the two containers use:\n%s", seen, raw)
	}
}

// behind ends a Pod's pause, and takes a Pod's sandbox away by the runtime's own means: the Pod starts anew each time.
func (c *cluster) behind() {
	c.Helper()
	c.apply(strings.Replace(busybox("robust", "sleep 999", ""), "restartPolicy: Never", "restartPolicy: Always", 1))
	runs := func(restarts int) {
		c.Helper()
		c.waitGet("pod robust", "{.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}", fmt.Sprint(restarts, " true"))
	}
	runs(0)
	out, err := c.run("", carobBinary, "tree", "pod", "robust")
	pid := regexp.MustCompile(`pause +pid (\d+)`).FindStringSubmatch(out)
	if err != nil || pid == nil {
		c.Fatalf("carob tree: %v\n%s", err, out)
	}
	c.must("kill", "-9", pid[1])
	runs(1)
	r, ctx := c.cri(), context.Background()
	list, err := r.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{
		State: &runtimeapi.PodSandboxStateValue{}, LabelSelector: map[string]string{"io.kubernetes.pod.name": "robust"}}})
	if err != nil || len(list.GetItems()) != 1 {
		c.Fatalf("the ready sandboxes of the Pod: %v, %v", list, err)
	}
	id := list.GetItems()[0].GetId()
	if _, err := r.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
		c.Fatal(err)
	}
	if _, err := r.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
		c.Fatal(err)
	}
	runs(2)
}

// killed ends the daemon by force while Pods run, one ends and one is to be deleted; the next one finds them.
func (c *cluster) killed(ip string) {
	c.Helper()
	c.apply(busybox("short", "sleep 3; echo done; exit 5", ""))
	c.kubectl("wait", "--for=condition=Ready", "--timeout=30s", "pod/short")
	before := c.get("pod two-containers", "{.status.containerStatuses[*].containerID}")
	c.killDaemon()
	if err := c.hello(ip); err != nil {
		c.Errorf("without Carob: %v", err)
	}
	time.Sleep(3 * time.Second) // the short one ends meanwhile
	c.mustCarob(c.upArgs()...)
	c.waitGet("pod short", "{.status.phase} {.status.containerStatuses[0].state.terminated.exitCode} {.status.containerStatuses[0].restartCount}", "Failed 5 0")
	if out := c.kubectl("logs", "short"); out != "done\n" {
		c.Errorf("the log of the time without Carob: %q", out)
	}
	if after := c.get("pod two-containers", "{.status.containerStatuses[*].containerID}"); after != before {
		c.Errorf("the containers are others: %s, before %s", after, before)
	}
	if out := c.get("pod two-containers", "{.status.podIP}"); out != ip {
		c.Errorf("the Pod has another address: %s, before %s", out, ip)
	}
	c.kubectl("delete", "pod", "short", "--grace-period=1")
}

// finish leaves a Pod to `carob down` and all else to `carob uninstall`, and looks for what is left after that and the last of the runtime.
func (c *cluster) finish(last func()) {
	c.Helper()
	c.step("down", func() {
		c.apply(busybox("left", "sleep 999", ""))
		c.kubectl("wait", "--for=condition=Ready", "--timeout=30s", "pod/left")
		want(c, "carob down", c.mustCarob("down"), "pod default/left stopped")
		out, err := c.carob("down")
		if err != nil || !strings.Contains(out, "no daemon is running") {
			c.Errorf("carob down once more: %v %s", err, out)
		}
		c.mustCarob(c.upArgs()...)
		c.waitGet("pod left", "{.status.phase} {.status.containerStatuses[0].state.terminated.reason}", "Failed Error")
		c.apply(busybox("running", "sleep 999", ""))
		c.kubectl("wait", "--for=condition=Ready", "--timeout=30s", "pod/running")
		if err := syscall.Kill(c.daemon(), syscall.SIGKILL); err != nil {
			c.Fatal(err)
		}
	})
	c.step("uninstall", func() {
		c.mustCarob("uninstall")
		last()
		c.leftBehind()
	})
}
