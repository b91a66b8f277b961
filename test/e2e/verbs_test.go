//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	corev1 "k8s.io/api/core/v1"
)

// TestKubectlVerbs tries what people do with a Pod, and reads what they would read.
func TestKubectlVerbs(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		name string
		f    func(*testing.T)
	}{
		{"Get", verbGet}, {"Describe", verbDescribe}, {"Logs", verbLogs}, {"LogsPrevious", verbLogsPrevious}, {"Exec", verbExec},
		{"ExecTTY", verbExecTTY}, {"Attach", verbAttach}, {"PortForward", verbPortForward}, {"Copy", verbCopy}, {"Delete", verbDelete},
		{"Run", verbRun}, {"Debug", verbDebug}, {"LabelAndAnnotate", verbLabel}, {"About", verbAbout}, {"Proxy", verbProxy}, {"Evict", verbEvict},
	} {
		t.Run(v.name, v.f)
	}
}

func verbGet(t *testing.T) {
	s := newSpace(t)
	if _, stderr, _ := s.try("get", "pods"); stderr != "No resources found in "+s.ns+" namespace.\n" {
		t.Errorf("get of nothing printed %q", stderr)
	}
	s.apply(simple("web", forever))
	p := s.ready("web")
	wantMatch(t, "get pods", s.kubectl("get", "pods"), `^NAME +READY +STATUS +RESTARTS +AGE$`, `^web +1/1 +Running +0 +[0-9]+s$`)
	wantMatch(t, "get -o wide", s.kubectl("get", "pods", "-o", "wide"), `^web +1/1 +Running +0 +[0-9]+s +`+regexp.QuoteMeta(p.Status.PodIP)+` +n1\.example\.com +<none> +<none>$`)
	wantMatch(t, "get --show-labels", s.kubectl("get", "pods", "--show-labels"), `run=web$`)
	for args, printed := range map[string]string{
		"-o name":                              "pod/web\n",
		"-o jsonpath={.items[0].status.phase}": "Running",
		"-o custom-columns=N:.metadata.name --no-headers":                            "web\n",
		"-o go-template={{range.items}}{{.spec.nodeName}}{{end}}":                    nodeName,
		"--field-selector status.phase=Running,spec.nodeName=n1.example.com -o name": "pod/web\n",
		"--field-selector status.phase=Pending -o name":                              "",
		"-l run=web -o name":  "pod/web\n",
		"-l run!=web -o name": "",
	} {
		if got := s.kubectl(append([]string{"get", "pods"}, strings.Fields(args)...)...); got != printed {
			t.Errorf("get pods %s printed %q, want %q", args, got, printed)
		}
	}
	want(t, "get nothing there", s.refused("get", "pod", "nobody"), `Error from server (NotFound): pods "nobody" not found`)
	wantMatch(t, "get nodes", s.kubectl("get", "nodes", "-o", "wide"), `^NAME +STATUS +ROLES +AGE +VERSION +INTERNAL-IP +EXTERNAL-IP +OS-IMAGE +KERNEL-VERSION +CONTAINER-RUNTIME$`,
		`^n1\.example\.com +Ready +\S+ +\S+ +v1\.37\.\S+ +192\.0\.2\.10 +<none> +Debian`)
	wantMatch(t, "describe node", s.kubectl("describe", "node", nodeName), `^Name: +n1\.example\.com$`, `^ +Ready +True .*KubeletReady`, `^  cpu: +[0-9]+$`, `^Non-terminated Pods:`)
}

func verbDescribe(t *testing.T) {
	s := newSpace(t)
	s.apply(simple("web", forever, "volumes: [{name: v, emptyDir: {}}]"))
	p := s.ready("web")
	s.event("web", "Started", "")
	out := s.kubectl("describe", "pod", "web")
	wantMatch(t, "describe", out,
		`^Name: +web$`, `^Namespace: +`+s.ns+`$`, `^Priority: +0$`, `^Service Account: +default$`, `^Node: +n1\.example\.com/192\.0\.2\.10$`,
		`^Start Time: +\w{3}, `, `^Labels: +run=web$`, `^Status: +Running$`, `^IP: +`+regexp.QuoteMeta(p.Status.PodIP)+`$`,
		`^  main:$`, `^    Container ID: +\S+://[0-9a-f]{64}$`, `^    Image: +busybox$`, `^    Image ID: +\S*busybox@sha256:[0-9a-f]{64}$`, `^    State: +Running$`,
		`^    Ready: +True$`, `^    Restart Count: +0$`, `/var/run/secrets/kubernetes.io/serviceaccount from kube-api-access-\w+ \(ro\)`,
		`^  PodReadyToStartContainers +True`, `^  Ready +True`, `^    Type: +EmptyDir \(a temporary directory that shares a pod's lifetime\)$`, `^QoS Class: +BestEffort$`,
		`^Tolerations: +node\.kubernetes\.io/not-ready:NoExecute op=Exists for 300s$`, `Normal +Scheduled +\S+ +default-scheduler +Successfully assigned `+s.ns+`/web to n1\.example\.com`,
		`Normal +Started +\S+ +kubelet +spec\.containers\{main\}: Container started`)
}

func verbLogs(t *testing.T) {
	s := newSpace(t)
	s.apply(podOf("pair", "terminationGracePeriodSeconds: 1", "containers:",
		container("a", "i=1; while [ $i -le 5 ]; do echo line $i; i=$((i+1)); done; echo oops >&2; "+forever),
		container("b", "while [ ! -e /go ]; do sleep 0.1; done; echo later; rm /go; while [ ! -e /go ]; do sleep 0.1; done; echo last")))
	s.ready("pair")
	if got := s.kubectl("logs", "pair", "-c", "a"); got != "line 1\nline 2\nline 3\nline 4\nline 5\noops\n" {
		t.Errorf("logs -c a printed %q", got)
	}
	if out, stderr, err := s.try("logs", "pair"); err != nil || out == "" {
		t.Errorf("logs without -c: %v %q %q", err, out, stderr)
	} else {
		want(t, "logs without -c", stderr, `Defaulted container "a" out of: a, b`)
	}
	if got := s.kubectl("logs", "pair", "-c", "a", "--tail=2"); got != "line 5\noops\n" {
		t.Errorf("logs --tail=2 printed %q", got)
	}
	if got := s.kubectl("logs", "pair", "-c", "a", "--limit-bytes=8"); got != "line 1\nl" {
		t.Errorf("logs --limit-bytes=8 printed %q", got)
	}
	wantMatch(t, "logs --timestamps", s.kubectl("logs", "pair", "-c", "a", "--timestamps", "--tail=1"), `^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|\+00:00) oops$`)
	wantMatch(t, "logs --prefix", s.kubectl("logs", "-l", "run=pair", "--all-containers", "--prefix"), `^\[pod/pair/a\] line 1$`)
	if got := s.kubectl("logs", "pair", "-c", "a", "--since=1h"); !strings.HasPrefix(got, "line 1") {
		t.Errorf("logs --since printed %q", got)
	}

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	follow := s.command(ctx, "logs", "-f", "pair", "-c", "b")
	out, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	s.sh("pair", "b", "touch /go")
	if !lines.Scan() || lines.Text() != "later" {
		t.Errorf("logs -f printed %q", lines.Text())
	}
	s.sh("pair", "b", "touch /go")
	if !lines.Scan() || lines.Text() != "last" {
		t.Errorf("logs -f printed %q", lines.Text())
	}
	if lines.Scan() {
		t.Errorf("logs -f went on: %q", lines.Text())
	}
	if err := follow.Wait(); err != nil {
		t.Errorf("logs -f did not end by itself when its container did: %v", err)
	}
	want(t, "logs of no container", s.refused("logs", "pair", "-c", "nobody"), "error: container nobody is not valid for pod pair")
}

func verbLogsPrevious(t *testing.T) {
	s := newSpace(t)
	s.apply(simple("web", `echo "I am $HOSTNAME, run $(cat /v/n 2>/dev/null)"; echo again >> /v/n; [ $(wc -l < /v/n) = 1 ] && exit 3; `+forever, "volumes: [{name: v, emptyDir: {}}]"))
	_ = s
	s.kubectl("delete", "pod", "web", "--grace-period=1")
	s.apply(podOf("again", "terminationGracePeriodSeconds: 1", "volumes: [{name: v, emptyDir: {}}]", "containers:",
		container("main", "n=$(cat /v/n 2>/dev/null || echo 0); n=$((n+1)); echo $n > /v/n; echo run $n; [ $n = 1 ] && exit 3; "+forever, "volumeMounts: [{name: v, mountPath: /v}]")))
	s.waitPod("again", func(p *corev1.Pod) error {
		if c := status(p, "main"); c.RestartCount != 1 || c.State.Running == nil {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	if got := s.kubectl("logs", "again"); got != "run 2\n" {
		t.Errorf("logs printed %q", got)
	}
	if got := s.kubectl("logs", "again", "--previous"); got != "run 1\n" {
		t.Errorf("logs --previous printed %q", got)
	}
	s.apply(simple("first", forever))
	s.ready("first")
	want(t, "logs --previous of a first run", s.refused("logs", "first", "--previous"), `previous terminated container "main" in pod "first" not found`)
}

func verbExec(t *testing.T) {
	s := newSpace(t)
	s.apply(simple("web", forever))
	s.ready("web")
	out, stderr, err := s.try("exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
	var exit *exec.ExitError
	if out != "out\n" || stderr != "err\ncommand terminated with exit code 7\n" || !asExit(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("exec: %q %q %v", out, stderr, err)
	}
	if out, stderr, err := s.run("through stdin", "exec", "-i", "web", "--", "cat"); err != nil || out != "through stdin" {
		t.Errorf("exec -i: %q %q %v", out, stderr, err)
	}
	big := strings.Repeat("0123456789abcde\n", 1<<16)
	if out, stderr, err := s.run(big, "exec", "-i", "web", "--", "cat"); err != nil || out != big {
		t.Errorf("exec -i of 1 MiB: %d bytes came back, %q %v", len(out), stderr, err)
	}
	_, stderr, err = s.try("exec", "web", "--", "/no/such/program")
	if err == nil || !strings.Contains(stderr, "no such file or directory") {
		t.Errorf("exec of a program that does not exist: %q %v", stderr, err)
	}
	want(t, "exec in no container", s.refused("exec", "web", "-c", "nobody", "--", "true"), "container nobody is not valid for pod web")
}

func asExit(err error, target **exec.ExitError) bool {
	e, ok := err.(*exec.ExitError)
	if ok {
		*target = e
	}
	return ok
}

// terminal is one of 33 rows and 111 columns that kubectl runs on.
type terminal struct {
	*os.File
	cmd  *exec.Cmd
	mu   sync.Mutex // guards seen
	seen bytes.Buffer
	done chan struct{}
}

func (s *space) terminal(args ...string) *terminal {
	s.Helper()
	cmd := s.command(context.Background(), args...)
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 33, Cols: 111})
	if err != nil {
		s.Fatal(err)
	}
	t := &terminal{File: tty, cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		buf := make([]byte, 4096)
		for {
			n, err := tty.Read(buf)
			t.mu.Lock()
			t.seen.Write(buf[:n])
			t.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	s.Cleanup(func() { cmd.Process.Kill(); tty.Close(); <-t.done; cmd.Wait() })
	return t
}

func (t *terminal) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen.String()
}

// types sends a line again and again until the terminal shows the text. The first may come before the other end listens.
func (s *space) types(t *terminal, line, text string) {
	s.Helper()
	next := time.Time{}
	s.eventually(fmt.Sprintf("%q on the terminal", text), func() error {
		if strings.Contains(t.text(), text) {
			return nil
		}
		if time.Now().After(next) {
			io.WriteString(t, line+"\n")
			next = time.Now().Add(time.Second)
		}
		return fmt.Errorf("it shows:\n%s", t.text())
	})
}

func verbExecTTY(t *testing.T) {
	s := newSpace(t)
	s.apply(simple("web", forever))
	s.ready("web")
	tty := s.terminal("exec", "-it", "web", "--", "sh")
	s.types(tty, "tty", "/dev/pts/0")
	s.types(tty, "stty size", "33 111")
	if err := pty.Setsize(tty.File, &pty.Winsize{Rows: 44, Cols: 99}); err != nil {
		t.Fatal(err)
	}
	s.types(tty, "stty size", "44 99")
	io.WriteString(tty, "exit 5\n")
	select {
	case <-tty.done:
		var exit *exec.ExitError
		if err := tty.cmd.Wait(); !asExit(err, &exit) || exit.ExitCode() != 5 {
			t.Errorf("exec -it ended with %v, want exit code 5", err)
		}
	case <-time.After(patience):
		t.Error("exec -it did not end with its shell")
	}
}

func verbAttach(t *testing.T) {
	s := newSpace(t)
	s.apply(podOf("reader", "restartPolicy: Never", "containers:",
		container("main", "while read line; do echo got $line; [ \"$line\" = end ] && exit 0; done; echo eof", "stdin: true", "stdinOnce: true")))
	s.ready("reader")
	out, stderr, err := s.run("hello\nend\n", "attach", "-i", "reader")
	if err != nil || !strings.Contains(out, "got hello\ngot end\n") {
		t.Errorf("attach -i: %q %q %v", out, stderr, err)
	}
	s.phase("reader", corev1.PodSucceeded)

	s.apply(podOf("shell", "restartPolicy: Never", "terminationGracePeriodSeconds: 1", "containers:", container("main", "exec sh", "stdin: true", "tty: true")))
	s.ready("shell")
	tty := s.terminal("attach", "-it", "shell")
	s.types(tty, "echo sum $((20+22))", "sum 42")
	s.types(tty, "stty size", "33 111")
}

func verbPortForward(t *testing.T) {
	s := newSpace(t)
	s.apply(podOf("web", "terminationGracePeriodSeconds: 1", "containers:", "- {name: nginx, image: nginx, ports: [{containerPort: 80, name: http}]}"))
	s.ready("web")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := s.command(ctx, "port-forward", "pod/web", ":80")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Signal(os.Interrupt); cmd.Wait() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	m := regexp.MustCompile(`^Forwarding from (127\.0\.0\.1:\d+) -> 80\n$`).FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("port-forward printed %q %v %s", line, err, stderr.String())
	}
	for range 3 {
		page, err := s.curl("http://" + m[1] + "/")
		if err != nil || !strings.Contains(page, "Welcome to nginx!") {
			t.Errorf("through port-forward: %q %v", page, err)
		}
	}
}

func verbCopy(t *testing.T) {
	s := newSpace(t)
	s.apply(podOf("box", "terminationGracePeriodSeconds: 1", "containers:", `- {name: main, image: debian, command: ["sleep", "999"]}`))
	s.ready("box")
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "tree/deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	content := bytes.Repeat([]byte("carob\x00\n"), 100_000)
	if err := os.WriteFile(filepath.Join(dir, "tree/deep/file"), content, 0o640); err != nil {
		t.Fatal(err)
	}
	s.kubectl("cp", filepath.Join(dir, "tree"), "box:/srv/tree")
	if got := strings.TrimSpace(s.sh("box", "", "wc -c < /srv/tree/deep/file; stat -c %a /srv/tree/deep/file")); got != "700000\n640" {
		t.Errorf("in the Pod: %q", got)
	}
	s.kubectl("cp", "box:/srv/tree/deep/file", filepath.Join(dir, "back"))
	if got, err := os.ReadFile(filepath.Join(dir, "back")); err != nil || !bytes.Equal(got, content) {
		t.Errorf("came back: %d bytes, %v", len(got), err)
	}
}

func verbDelete(t *testing.T) {
	s := newSpace(t)
	s.apply(podOf("good", "containers:", container("main", forever)) + simple("stubborn", "trap '' TERM; while :; do sleep 1000 & wait; done"))
	s.ready("good", "stubborn")
	start := time.Now()
	if out := s.kubectl("delete", "pod", "good"); out != fmt.Sprintf("pod \"good\" deleted from %s namespace\n", s.ns) {
		t.Errorf("delete printed %q", out)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("the delete of a Pod that obeys SIGTERM took %s", took)
	}
	start = time.Now()
	s.kubectl("delete", "pod", "stubborn")
	if took := time.Since(start); took < 900*time.Millisecond || took > 10*time.Second {
		t.Errorf("the delete of a Pod that ignores SIGTERM, with a grace of 1 s, took %s", took)
	}
	s.apply(simple("forced", "trap '' TERM; while :; do sleep 1000 & wait; done"))
	pid := s.mainProcess(s.ready("forced"), "main").pid
	_, stderr, err := s.try("delete", "pod", "forced", "--force", "--grace-period=0")
	if err != nil || !strings.Contains(stderr, "Immediate deletion does not wait for confirmation that the running resource has been terminated.") {
		t.Errorf("delete --force: %q %v", stderr, err)
	}
	s.noProcess(pid)
	want(t, "delete of nothing", s.refused("delete", "pod", "nobody"), `Error from server (NotFound): pods "nobody" not found`)

	s.apply(podOf("slow", "terminationGracePeriodSeconds: 20", "containers:", container("main", "trap 'sleep 2; exit 0' TERM; sleep 1000 & wait")))
	s.ready("slow")
	s.kubectl("delete", "pod", "slow", "--wait=false")
	wantMatch(t, "get of a Pod that ends", s.kubectl("get", "pod", "slow"), `^slow +1/1 +Terminating +0`)
	s.waitGone("slow")
}

func verbRun(t *testing.T) {
	s := newSpace(t)
	out, stderr, err := s.run("from here\n", "run", "once", "--image=busybox", "--restart=Never", "--rm", "-i", "--quiet", "--", "sh", "-c", "read l; echo said: $l")
	if err != nil || !strings.Contains(out, "said: from here\n") {
		t.Errorf("run --rm -i: %q %q %v", out, stderr, err)
	}
	s.waitGone("once")
	if out := s.kubectl("run", "web", "--image=nginx", "--port=80", "--env=A=b", "--labels=app=x"); out != "pod/web created\n" {
		t.Errorf("run printed %q", out)
	}
	p := s.ready("web")
	if p.Labels["app"] != "x" || p.Spec.Containers[0].Env[0].Value != "b" {
		t.Errorf("%+v", p)
	}
}

func verbDebug(t *testing.T) {
	s := newSpace(t)
	s.apply(simple("web", "exec sleep 12345"))
	s.ready("web")
	s.kubectl("debug", "web", "--image=busybox", "-c", "look", "--target=main", "--profile=general", "--", "sh", "-c", "ps -o args; echo seen")
	s.eventually("the debug container's log", func() error {
		out, stderr, _ := s.try("logs", "web", "-c", "look")
		if !strings.Contains(out, "sleep 12345") || !strings.Contains(out, "seen") {
			return fmt.Errorf("%q %q", out, stderr)
		}
		return nil
	})
	p := s.waitPod("web", func(p *corev1.Pod) error {
		if c := status(p, "look"); c.State.Terminated == nil {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	if p.Status.Phase != corev1.PodRunning || !hasCondition(p, corev1.PodReady, corev1.ConditionTrue) {
		t.Errorf("a debug container that ended changed the Pod: %+v", p.Status)
	}
}

func verbLabel(t *testing.T) {
	s := newSpace(t)
	s.apply(simple("web", forever))
	s.ready("web")
	for _, step := range []struct {
		args    []string
		printed string
	}{
		{[]string{"label", "pod", "web", "tier=front"}, "pod/web labeled\n"},
		{[]string{"annotate", "pod", "web", "note=hello"}, "pod/web annotated\n"},
		{[]string{"get", "pods", "-l", "tier=front", "-o", "name"}, "pod/web\n"},
		{[]string{"get", "pods", "-l", "tier in (back),run=web", "-o", "name"}, ""},
		{[]string{"label", "pod", "web", "tier-"}, "pod/web unlabeled\n"},
	} {
		if got := s.kubectl(step.args...); got != step.printed {
			t.Errorf("kubectl %v printed %q", step.args, got)
		}
	}
	want(t, "label again", s.kubectl("label", "pod", "web", "run=other", "--overwrite"), "labeled")
	want(t, "a bad label", s.refused("label", "pod", "web", "a=b/c/d"), "error: invalid label value")
}

func verbAbout(t *testing.T) {
	s := newSpace(t)
	wantMatch(t, "version", s.kubectl("version"), `^Server Version: v1\.37\.`)
	want(t, "cluster-info", s.kubectl("cluster-info"), "Kubernetes control plane")
	out := s.kubectl("api-resources")
	wantMatch(t, "api-resources", out, `^pods +po +v1 +true +Pod$`, `^deployments +deploy +apps/v1 +true +Deployment$`, `^replicasets +rs +apps/v1 `, `^events +ev +events\.k8s\.io/v1 `,
		`^leases +coordination\.k8s\.io/v1 `, `^endpointslices +discovery\.k8s\.io/v1 `, `^controllerrevisions +apps/v1 `)
	want(t, "api-versions", s.kubectl("api-versions"), "apps/v1\n", "v1\n", "coordination.k8s.io/v1\n")
	wantMatch(t, "get cm", s.kubectl("get", "cm"), `^kube-root-ca\.crt +1 +`)
	if got := s.kubectl("get", "--raw", "/readyz"); got != "ok" {
		t.Errorf("/readyz: %q", got)
	}
}

func verbProxy(t *testing.T) {
	s := newSpace(t)
	s.apply(podOf("web", "terminationGracePeriodSeconds: 1", "containers:", "- {name: nginx, image: nginx}"))
	s.ready("web")
	want(t, "the Pod's proxy", s.kubectl("get", "--raw", "/api/v1/namespaces/"+s.ns+"/pods/web:80/proxy/"), "Welcome to nginx!")
	want(t, "the node's proxy", s.kubectl("get", "--raw", "/api/v1/nodes/"+nodeName+"/proxy/healthz"), "ok")
}

func verbEvict(t *testing.T) {
	s := newSpace(t)
	s.apply(simple("web", forever))
	s.ready("web")
	body := fmt.Sprintf(`{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"web","namespace":%q}}`, s.ns)
	if out, stderr, err := s.run(body, "create", "--raw", "/api/v1/namespaces/"+s.ns+"/pods/web/eviction", "-f", "-"); err != nil {
		t.Fatalf("evict: %v %s %s", err, out, stderr)
	}
	s.waitGone("web")
}
