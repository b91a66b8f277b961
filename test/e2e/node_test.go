//go:build e2e

package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// agent is a client of the node's own server, with the administrator's certificate or with a token.
func (c *cluster) agent(t testing.TB, token string) func(method, path string) (int, string) {
	t.Helper()
	rc, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(rc.CAData)
	conf := &tls.Config{RootCAs: pool}
	if token == "" {
		pair, err := tls.X509KeyPair(rc.CertData, rc.KeyData)
		if err != nil {
			t.Fatal(err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: c.dial, TLSClientConfig: conf, DisableKeepAlives: true}}
	return func(method, path string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "https://"+nodeIP+":10250"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" && token != "none" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
}

// TestNodeServer asks kubelet's HTTPS API as its clients do.
func TestNodeServer(t *testing.T) {
	s := newSpace(t)
	s.apply(simple("web", "echo hello; dd if=/dev/zero of=/x bs=1M count=2 2>/dev/null; >/written; "+forever, "  readinessProbe: {exec: {command: [test, -e, /written]}, periodSeconds: 1}"))
	s.ready("web")
	admin := s.c.agent(t, "")
	for path, want := range map[string]string{
		"/healthz": "ok", "/pods": `"name":"web"`, "/runningpods/": `"name":"web"`, "/configz": `"kind":"KubeletConfiguration"`,
		"/containerLogs/" + s.ns + "/web/main": "hello",
		"/metrics":                             "kubelet_running_pods ",
		"/metrics/resource":                    fmt.Sprintf(`container_memory_working_set_bytes{container="main",namespace=%q,pod="web"}`, s.ns),
		"/metrics/probes":                      fmt.Sprintf(`namespace=%q,pod="web"`, s.ns),
		"/metrics/cadvisor":                    "container_memory_usage_bytes{",
	} {
		if code, body := admin("GET", path); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d, no %q in %.300q", path, code, want, body)
		}
	}
	if code, body := admin("POST", "/run/"+s.ns+"/web/main?cmd=id"); code != 200 || !strings.Contains(body, "uid=0(root)") {
		t.Errorf("run: %d %q", code, body)
	}
	s.eventually("what the Pod uses", func() error { // a measurement is some seconds old at times
		var sum stats.Summary
		if err := json.Unmarshal([]byte(s.kubectl("get", "--raw", "/api/v1/nodes/"+nodeName+"/proxy/stats/summary")), &sum); err != nil {
			return err
		}
		if *sum.Node.Memory.WorkingSetBytes == 0 || *sum.Node.Fs.CapacityBytes == 0 {
			return fmt.Errorf("%+v", sum.Node)
		}
		for _, p := range sum.Pods {
			if p.PodRef.Namespace != s.ns || p.PodRef.Name != "web" {
				continue
			}
			if len(p.Containers) == 1 && *p.Containers[0].Rootfs.UsedBytes >= 2<<20 && p.CPU.UsageNanoCores != nil && *p.EphemeralStorage.UsedBytes >= 2<<20 {
				return nil
			}
			text, err := json.Marshal(p)
			return errors.Join(err, fmt.Errorf("%s", text))
		}
		return errors.New("the Pod is not there")
	})
	if code, body := s.c.agent(t, "none")("GET", "/healthz"); code != 401 {
		t.Errorf("nobody: %d %q", code, body)
	}
	s.kubectl("create", "serviceaccount", "scraper")
	s.kubectl("create", "serviceaccount", "other")
	role := s.ns + "-metrics"
	s.kubectl("create", "clusterrole", role, "--verb=get", "--resource=nodes/metrics")
	s.kubectl("create", "clusterrolebinding", role, "--clusterrole="+role, "--serviceaccount="+s.ns+":scraper")
	t.Cleanup(func() { s.try("delete", "clusterrole,clusterrolebinding", role) })
	scraper, other := s.c.agent(t, s.kubectl("create", "token", "scraper")), s.c.agent(t, s.kubectl("create", "token", "other"))
	s.eventually("the scraper may", func() error { // the role is known a moment after it is made
		if code, body := scraper("GET", "/metrics/cadvisor"); code != 200 {
			return fmt.Errorf("%d %q", code, body)
		}
		return nil
	})
	if code, body := scraper("GET", "/pods"); code != 403 || !strings.Contains(body, "subresource(s)=[pods proxy]") {
		t.Errorf("more than the role allows: %d %q", code, body)
	}
	if code, body := other("GET", "/metrics"); code != 403 {
		t.Errorf("somebody else: %d %q", code, body)
	}
}

// TestClaimsAreMeasured asks what is used of claims' volumes, also after the daemon was killed.
func TestClaimsAreMeasured(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.up(t)
	s := c.space(t)
	const size = "accessModes: [ReadWriteOnce], resources: {requests: {storage: 5Mi}}"
	s.apply("apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\nspec: {" + size + "}\n---\n" +
		podOf("web", "volumes: [{name: v, persistentVolumeClaim: {claimName: data}}, {name: e, ephemeral: {volumeClaimTemplate: {spec: {"+size+"}}}}]", "containers:",
			container("main", "dd if=/dev/zero of=/v/x bs=1M count=3 2>/dev/null; >/written; "+forever, mounts("v:/v", "e:/e"),
				"readinessProbe: {exec: {command: [test, -e, /written]}, periodSeconds: 1}")))
	s.ready("web")
	check := func() {
		t.Helper()
		s.eventually("what the Pod uses", func() error {
			var sum stats.Summary
			if err := json.Unmarshal([]byte(s.kubectl("get", "--raw", "/api/v1/nodes/"+nodeName+"/proxy/stats/summary")), &sum); err != nil {
				return err
			}
			used := map[string]uint64{}
			for _, p := range sum.Pods {
				for _, v := range p.VolumeStats {
					if v.PVCRef != nil && *v.CapacityBytes > *v.UsedBytes && *v.InodesUsed > 0 {
						used[v.Name+" of "+v.PVCRef.Namespace+"/"+v.PVCRef.Name] = *v.UsedBytes >> 20
					}
				}
			}
			if n, ok := used["e of "+s.ns+"/web-e"]; len(used) != 2 || used["v of "+s.ns+"/data"] != 3 || n != 0 || !ok {
				return fmt.Errorf("in MiB: %v", used)
			}
			return nil
		})
		_, body := c.agent(t, "")("GET", "/metrics")
		want(t, "metrics", body, fmt.Sprintf("kubelet_volume_stats_used_bytes{namespace=%q,persistentvolumeclaim=\"data\"} 3.1", s.ns),
			fmt.Sprintf("kubelet_volume_stats_inodes_used{namespace=%q,persistentvolumeclaim=\"web-e\"} ", s.ns))
	}
	check()
	c.kill(t)
	c.up(t)
	check()
}

// TestTop asks what nodes and Pods use.
func TestTop(t *testing.T) {
	s := newSpace(t)
	s.apply(podOf("busy", "terminationGracePeriodSeconds: 0", "containers:", container("spins", "while :; do :; done", "resources: {limits: {cpu: 200m}}"), container("sleeps", forever)))
	s.ready("busy")
	time.Sleep(2 * time.Second)
	lines := strings.Fields(s.kubectl("top", "pod", "busy", "--containers", "--no-headers"))
	got := strings.Join(lines, " ")
	wantMatch(t, "kubectl top", got, `busy sleeps [0-9]m [0-9]+Mi`, `busy spins ([3-9][0-9]|1[0-9]{2}|2[0-4][0-9])m [0-9]+Mi`) // its limit; less where others want the processor too
	wantMatch(t, "kubectl top node", s.kubectl("top", "node", nodeName, "--no-headers"), `[0-9]+m +[0-9]+% +[0-9]+Mi +[0-9]+%`)
	wantMatch(t, "the group", s.kubectl("api-resources", "--api-group=metrics.k8s.io"), `nodes.*false.*NodeMetrics`, `pods.*true.*PodMetrics`)
}

// TestOwnDiskLimit: a Pod that keeps more on the disk than it may is ended with kubelet's words.
func TestOwnDiskLimit(t *testing.T) {
	s := newSpace(t)
	s.apply(podOf("volume", "terminationGracePeriodSeconds: 1", "containers:", container("main", "dd if=/dev/zero of=/v/x bs=1M count=3 2>/dev/null; "+forever, "volumeMounts: [{name: v, mountPath: /v}]"),
		"volumes: [{name: v, emptyDir: {sizeLimit: 1Mi}}]"))
	s.apply(podOf("layer", "terminationGracePeriodSeconds: 1", "containers:",
		container("main", "dd if=/dev/zero of=/x bs=1M count=3 2>/dev/null; "+forever, "resources: {limits: {ephemeral-storage: 1Mi}}")))
	s.apply(podOf("within", "terminationGracePeriodSeconds: 1", "containers:", container("main", "dd if=/dev/zero of=/x bs=1M count=3 2>/dev/null; "+forever,
		"resources: {limits: {ephemeral-storage: 8Mi}}")))
	for name, message := range map[string]string{"volume": `Usage of EmptyDir volume "v" exceeds the limit "1Mi". `,
		"layer": "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. "} {
		p := s.phase(name, corev1.PodFailed)
		if p.Status.Reason != "Evicted" || p.Status.Message != message {
			t.Errorf("%s: %q %q", name, p.Status.Reason, p.Status.Message)
		}
		s.event(name, "Evicted", strings.TrimSpace(message))
	}
	s.ready("within")
}

// TestAddressChanges gives the machine another address: all that names the node by it follows, without a restart.
func TestAddressChanges(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.up(t)
	s := c.space(t)
	s.apply(simple("web", forever))
	s.ready("web")
	const other = "192.0.2.99"
	for _, args := range [][]string{{"addr", "add", other + "/32", "dev", "lo"}, {"addr", "del", nodeIP + "/32", "dev", "lo"}} {
		if out, err := c.host.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	s.waitPod("web", func(p *corev1.Pod) error {
		if p.Status.HostIP != other {
			return fmt.Errorf("hostIP %s", p.Status.HostIP)
		}
		return nil
	})
	want := func(what, args string) {
		t.Helper()
		s.eventually(what, func() error {
			out, stderr, err := s.try(strings.Fields(args)...)
			if err != nil || out != other {
				return fmt.Errorf("%s %s", out, stderr)
			}
			return nil
		})
	}
	want("the Node", "get node "+nodeName+" -o jsonpath={.status.addresses[?(@.type=='InternalIP')].address}")
	want("Endpoints", "get endpoints kubernetes -n default -o jsonpath={.subsets[*].addresses[*].ip}")
	want("the EndpointSlice", "get endpointslice kubernetes -n default -o jsonpath={.endpoints[*].addresses[*]}")
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(s.kubectl("get", "configmap", "kube-root-ca.crt", "-o", "jsonpath={.data.ca\\.crt}")))
	for _, port := range []string{"6443", "10250"} {
		conn, err := c.dial(t.Context(), "tcp", net.JoinHostPort(other, port))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: other}).HandshakeContext(t.Context()); err != nil {
			t.Errorf("port %s: %v", port, err)
		}
	}
	// A Pod reaches the server by the Service's address still.
	s.apply(podOf("client", "restartPolicy: Never", "containers:", container("main", "echo | nc -w 5 10.43.0.1 443 >/dev/null && echo open")))
	s.phase("client", corev1.PodSucceeded)
	s.kubectl("delete", "service", "kubernetes", "-n", "default")
	s.eventually("the Service is there again", func() error {
		_, stderr, err := s.try("get", "service", "kubernetes", "-n", "default")
		if err != nil {
			return errors.New(stderr)
		}
		return nil
	})
}
