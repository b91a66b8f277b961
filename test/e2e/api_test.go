//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// TestAPI tries what clients expect of a Kubernetes API, through kubectl.
func TestAPI(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		name string
		f    func(*testing.T)
	}{
		{"Explain", apiExplain}, {"Apply", apiApply}, {"ServerSideApply", apiServerSide}, {"Patches", apiPatches}, {"Watch", apiWatch}, {"Selectors", apiSelectors},
		{"DryRun", apiDryRun}, {"Strict", apiStrict}, {"Tables", apiTables}, {"Stranger", apiStranger}, {"Pages", apiPages}, {"Namespaces", apiNamespaces},
		{"Immutable", apiImmutable}, {"Conflict", apiConflict}, {"Events", apiEvents}, {"Raw", apiRaw}, {"Generated", apiGenerated}, {"Wait", apiWait}, {"Diff", apiDiff},
	} {
		t.Run(v.name, v.f)
	}
}

func apiExplain(t *testing.T) {
	s := newSpace(t)
	wantMatch(t, "explain pod", s.kubectl("explain", "pod.spec.containers.livenessProbe.httpGet"), `^KIND: +Pod$`, `^FIELD: +httpGet <HTTPGetAction>$`, `^  port\s<IntOrString> -required-$`)
	want(t, "explain deployment", s.kubectl("explain", "deployment.spec.strategy", "--recursive"), "rollingUpdate", "maxSurge", "maxUnavailable")
	for _, kind := range []string{"namespaces", "nodes", "configmaps", "secrets", "serviceaccounts", "events", "services", "endpointslices", "replicasets", "leases", "controllerrevisions"} {
		want(t, "explain "+kind, s.kubectl("explain", kind), "FIELDS:")
	}
	want(t, "explain of nothing", s.refused("explain", "pod.spec.unicorn"), `field "unicorn" does not exist`)
}

func apiApply(t *testing.T) {
	s := newSpace(t)
	cm := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cm, labels: {a: one}}\ndata: {x: \"1\", y: \"2\"}\n"
	for _, step := range [][2]string{
		{cm, "configmap/cm created\n"}, {cm, "configmap/cm unchanged\n"}, {strings.Replace(cm, ", y: \"2\"", "", 1), "configmap/cm configured\n"},
	} {
		if got := s.apply(step[0]); got != step[1] {
			t.Errorf("apply printed %q, want %q", got, step[1])
		}
	}
	if got := s.kubectl("get", "cm", "cm", "-o", "jsonpath={.data}"); got != `{"x":"1"}` {
		t.Errorf("data: %s", got)
	}
	if got := s.kubectl("create", "-f", "../../examples/two-containers.yaml", "--dry-run=client"); got != "pod/two-containers created (dry run)\n" {
		t.Errorf("create printed %q", got)
	}
	// One of several objects that is bad does not stop the others.
	out, stderr, err := s.run("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Bad_Name}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: good}\n", "apply", "-f", "-")
	if err == nil || !strings.Contains(out, "configmap/good created") || !strings.Contains(stderr, `metadata.name: Invalid value: "Bad_Name"`) {
		t.Errorf("apply of good and bad: %q %q %v", out, stderr, err)
	}
	// Replace and edit by a script.
	if got, _, err := s.run(strings.Replace(cm, "x: \"1\"", "x: \"9\"", 1), "replace", "-f", "-"); err != nil || got != "configmap/cm replaced\n" {
		t.Errorf("replace: %q %v", got, err)
	}
	if got := s.kubectl("delete", "cm", "cm"); got != fmt.Sprintf("configmap \"cm\" deleted from %s namespace\n", s.ns) {
		t.Errorf("delete printed %q", got)
	}
	if got := s.kubectl("delete", "cm", "cm", "--ignore-not-found"); got != "" {
		t.Errorf("delete --ignore-not-found printed %q", got)
	}
}

func apiServerSide(t *testing.T) {
	s := newSpace(t)
	cm := func(data string) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cm}\ndata: {" + data + "}\n"
	}
	if got := s.apply(cm(`a: "1"`), "--server-side", "--field-manager=one"); got != "configmap/cm serverside-applied\n" {
		t.Errorf("printed %q", got)
	}
	s.apply(cm(`b: "2"`), "--server-side", "--field-manager=two")
	stderr := s.applyRefused(cm(`a: "3"`), "--server-side", "--field-manager=two")
	want(t, "conflict", stderr, `Apply failed with 1 conflict: conflict with "one"`, ".data.a")
	s.apply(cm(`a: "3"`), "--server-side", "--field-manager=two", "--force-conflicts")
	if got := s.kubectl("get", "cm", "cm", "-o", "jsonpath={.data}"); got != `{"a":"3"}` {
		t.Errorf("data: %s (two gave b up)", got)
	}
	want(t, "managedFields", s.kubectl("get", "cm", "cm", "-o", "yaml", "--show-managed-fields"), "manager: two", "operation: Apply", "f:a: {}")

	d := deployment("web", 1)
	s.apply(d, "--server-side")
	s.rolledOut("web")
	s.kubectl("scale", "deployment/web", "--replicas=2")
	want(t, "apply after scale", s.applyRefused(d, "--server-side"), "Apply failed with 1 conflict", `.spec.replicas`)
	s.apply(d, "--server-side", "--force-conflicts")
	s.apply(d, "--server-side")
}

func apiPatches(t *testing.T) {
	s := newSpace(t)
	s.apply(deployment("web", 0, "strategy: {type: RollingUpdate}"))
	s.kubectl("patch", "deployment", "web", "--type=strategic", "-p", `{"spec":{"template":{"spec":{"containers":[{"name":"main","env":[{"name":"MORE","value":"x"}]}]}}}}`)
	if got := s.kubectl("get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[*].env[*].name}"); got != "MORE VERSION" && got != "VERSION MORE" {
		t.Errorf("after a strategic patch: %s", got)
	}
	s.kubectl("patch", "deployment", "web", "--type=merge", "-p", `{"metadata":{"labels":{"a":"b"}}}`)
	s.kubectl("patch", "deployment", "web", "--type=json", "-p", `[{"op":"test","path":"/metadata/labels/a","value":"b"},{"op":"remove","path":"/metadata/labels/a"},{"op":"add","path":"/metadata/labels/c","value":"d"}]`)
	if got := s.kubectl("get", "deployment", "web", "-o", "jsonpath={.metadata.labels}"); got != `{"c":"d"}` {
		t.Errorf("labels: %s", got)
	}
	want(t, "a test that fails", s.refused("patch", "deployment", "web", "--type=json", "-p", `[{"op":"test","path":"/metadata/labels/c","value":"no"}]`), "the server rejected our request due to an error in our request")
	if got := s.kubectl("patch", "deployment", "web", "-p", `{"spec":{"paused":false}}`); got != "deployment.apps/web patched (no change)\n" {
		t.Errorf("a patch that changes nothing printed %q", got)
	}
	s.kubectl("patch", "deployment", "web", "--subresource=scale", "--type=merge", "-p", `{"spec":{"replicas":1}}`)
	s.rolledOut("web")
	s.kubectl("patch", "node", nodeName, "--type=merge", "-p", `{"metadata":{"annotations":{"e2e":"was-here"}}}`)
}

func apiWatch(t *testing.T) {
	s := newSpace(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := s.command(ctx, "get", "pods", "-w", "--output-watch-events", "--no-headers")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); cmd.Wait() }()
	// Once the watch shows a Pod that no node takes, it is there for what comes.
	s.apply(simple("nowhere", forever, "nodeSelector: {no: node}"))
	sc := bufio.NewScanner(out)
	if !sc.Scan() || !strings.Contains(sc.Text(), "nowhere") {
		t.Fatalf("the watch began with %q", sc.Text())
	}
	s.apply(simple("web", forever))
	s.ready("web")
	s.kubectl("delete", "pod", "web")
	var seen []string
	for sc.Scan() {
		line := strings.Join(strings.Fields(sc.Text()), " ")
		seen = append(seen, line)
		if strings.HasPrefix(line, "DELETED") {
			break
		}
	}
	all := strings.Join(seen, "\n")
	want(t, "the watch", all, "ADDED web 0/1 Pending 0", "MODIFIED web 1/1 Running 0", "DELETED web ")
	// A watch from the start on, with bookmarks, as informers ask for it.
	raw := s.kubectl("get", "--raw", "/api/v1/namespaces/"+s.ns+"/configmaps?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1")
	want(t, "a watch list", raw, `"type":"ADDED"`, `"kube-root-ca.crt"`, `"type":"BOOKMARK"`, `"k8s.io/initial-events-end":"true"`)
}

func apiSelectors(t *testing.T) {
	s := newSpace(t)
	for i, labels := range []string{"a=1,b=x", "a=2", "a=3,b=y"} {
		s.kubectl("create", "configmap", fmt.Sprintf("c%d", i))
		s.kubectl(append([]string{"label", "configmap", fmt.Sprintf("c%d", i)}, strings.Split(labels, ",")...)...)
	}
	for selector, names := range map[string]string{
		"a=1": "c0", "a!=1,a": "c1 c2", "a in (1,3)": "c0 c2", "a notin (1,2),a": "c2", "b": "c0 c2", "!b,a": "c1", "a=1,b=y": "",
	} {
		if got := s.kubectl("get", "cm", "-l", selector, "-o", "jsonpath={.items[*].metadata.name}"); got != names {
			t.Errorf("-l %q: %q, want %q", selector, got, names)
		}
	}
	if got := s.kubectl("get", "cm", "--field-selector", "metadata.name=c1", "-o", "name"); got != "configmap/c1\n" {
		t.Errorf("field selector: %q", got)
	}
	want(t, "a wrong field selector", s.refused("get", "cm", "--field-selector", "data.x=1"), `field label not supported: data.x`)
	want(t, "a wrong selector", s.refused("get", "cm", "-l", "a in"), "unable to parse")
	if got := s.kubectl("delete", "cm", "-l", "b"); strings.Count(got, "deleted") != 2 {
		t.Errorf("delete -l b printed %q", got)
	}
}

func apiDryRun(t *testing.T) {
	s := newSpace(t)
	if got := s.apply(simple("web", forever), "--dry-run=server"); got != "pod/web created (server dry run)\n" {
		t.Errorf("printed %q", got)
	}
	if out := s.kubectl("get", "pods", "-o", "name"); out != "" {
		t.Errorf("a dry run made %s", out)
	}
	s.kubectl("create", "configmap", "cm")
	s.kubectl("delete", "cm", "cm", "--dry-run=server")
	s.kubectl("get", "cm", "cm")
	want(t, "a dry run of bad input", s.applyRefused(strings.Replace(simple("web", forever), "name: main", "name: Main_", 1), "--dry-run=server"), "spec.containers[0].name: Invalid value")
}

func apiStrict(t *testing.T) {
	s := newSpace(t)
	bad := strings.Replace(simple("web", forever), "spec:", "spec:\n  unicorn: 1", 1)
	want(t, "an unknown field", s.applyRefused(bad), `strict decoding error: unknown field "spec.unicorn"`)
	const twice = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"twice"},"data":{"a":"1","a":"2"}}`
	out, stderr, err := s.run(twice, "create", "--raw", "/api/v1/namespaces/"+s.ns+"/configmaps?fieldValidation=Strict", "-f", "-")
	if err == nil {
		t.Errorf("a duplicate field was accepted: %s", out)
	}
	want(t, "a duplicate field", stderr, `duplicate field "data.a"`)
	out, stderr, err = s.run(bad, "create", "--validate=warn", "-f", "-")
	if err != nil || !strings.Contains(stderr, `Warning: unknown field "spec.unicorn"`) {
		t.Errorf("--validate=warn: %q %q %v", out, stderr, err)
	}
	s.kubectl("delete", "pod", "web", "--grace-period=1")
	if _, _, err := s.run(bad, "create", "--validate=ignore", "-f", "-"); err != nil {
		t.Error(err)
	}
}

// apiTables: the columns of every kind are those of Kubernetes.
func apiTables(t *testing.T) {
	s := newSpace(t)
	s.kubectl("create", "secret", "generic", "sec", "--from-literal=a=b")
	s.kubectl("create", "service", "clusterip", "svc", "--tcp=80:8080")
	s.apply(deployment("web", 1))
	s.rolledOut("web")
	for kind, row := range map[string][]string{
		"ns":                  {`^NAME +STATUS +AGE$`, `^` + s.ns + ` +Active +`},
		"nodes":               {`^NAME +STATUS +ROLES +AGE +VERSION$`},
		"cm":                  {`^NAME +DATA +AGE$`, `^kube-root-ca\.crt +1 +`},
		"secrets":             {`^NAME +TYPE +DATA +AGE$`, `^sec +Opaque +1 +`},
		"sa":                  {`^NAME +(SECRETS +)?AGE$`, `^default +`},
		"svc":                 {`^NAME +TYPE +CLUSTER-IP +EXTERNAL-IP +PORT\(S\) +AGE$`, `^svc +ClusterIP +10\.43\.\d+\.\d+ +<none> +80/TCP +`},
		"deploy":              {`^NAME +READY +UP-TO-DATE +AVAILABLE +AGE$`, `^web +1/1 +1 +1 +`},
		"rs":                  {`^NAME +DESIRED +CURRENT +READY +AGE$`, `^web-[a-z0-9]+ +1 +1 +1 +`},
		"events":              {`^LAST SEEN +TYPE +REASON +OBJECT +MESSAGE$`, `Normal +Scheduled +pod/web-`},
		"endpointslices":      {`^NAME +ADDRESSTYPE +PORTS +ENDPOINTS +AGE$`},
		"leases":              {`^NAME +HOLDER +AGE$`},
		"controllerrevisions": {`^NAME +CONTROLLER +REVISION +AGE$`},
	} {
		args := []string{"get", kind}
		if kind == "leases" {
			args = append(args, "-A")
			row[0] = `^NAMESPACE +NAME +HOLDER +AGE$`
		}
		out, stderr, err := s.try(args...)
		if err != nil {
			t.Errorf("get %s: %v %s", kind, err, stderr)
			continue
		}
		if strings.HasPrefix(stderr, "No resources found") && kind == "controllerrevisions" {
			continue
		}
		wantMatch(t, "get "+kind, out, row...)
	}
	wantMatch(t, "get all", s.kubectl("get", "all"), `^pod/web-`, `^service/svc `, `^deployment\.apps/web `, `^replicaset\.apps/web-`)
	wantMatch(t, "get -A", s.kubectl("get", "pods", "-A"), `^NAMESPACE +NAME +READY +STATUS +RESTARTS +AGE$`, `^`+s.ns+` +web-`)
}

func apiStranger(t *testing.T) {
	s := newSpace(t)
	token := strings.TrimSpace(s.kubectl("create", "token", "default"))
	as := []string{"--kubeconfig=/dev/null", "--server=https://127.0.0.1:6443", "--insecure-skip-tls-verify"}
	who := "system:serviceaccount:" + s.ns + ":default"
	want(t, "a stranger's list", s.refused(append(as, "--token="+token, "get", "secrets")...), `Error from server (Forbidden): secrets is forbidden: User "`+who+`" cannot list resource "secrets" in API group "" in the namespace "`+s.ns+`"`)
	want(t, "a stranger's exec", s.refused(append(as, "--token="+token, "get", "pod", "x")...), "Forbidden")
	want(t, "no credentials", s.refused(append(as, "--token=nonsense", "get", "pods")...), "Unauthorized")
	want(t, "nobody", s.refused(append(as, "--username=x", "--password=y", "get", "pods")...), `Forbidden`, `User "system:anonymous" cannot list resource "pods"`)
	if out, stderr, err := s.try("auth", "can-i", "create", "pods"); err != nil || out != "yes\n" {
		t.Errorf("can-i: %q %q %v", out, stderr, err)
	}
	if out, _, err := s.try("auth", "can-i", "create", "pods", "--as=somebody"); err == nil || out != "no\n" {
		t.Errorf("can-i --as=somebody: %q %v", out, err)
	}
	want(t, "whoami", s.kubectl("auth", "whoami"), "system:masters")
	want(t, "impersonation", s.refused("get", "pods", "--as=system:serviceaccount:"+s.ns+":default"), "Forbidden")
}

func apiPages(t *testing.T) {
	s := newSpace(t)
	for i := range 12 {
		s.apply(fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: p%02d}\n", i))
	}
	var page struct {
		Metadata struct {
			Continue           string
			RemainingItemCount *int64
		}
		Items []struct{ Metadata struct{ Name string } }
	}
	names, next := []string{}, ""
	for {
		raw := s.kubectl("get", "--raw", "/api/v1/namespaces/"+s.ns+"/configmaps?limit=5&continue="+next)
		page.Metadata.Continue = ""
		page.Items = nil
		if err := json.Unmarshal([]byte(raw), &page); err != nil {
			t.Fatal(err)
		}
		if len(page.Items) > 5 {
			t.Errorf("a page of %d", len(page.Items))
		}
		for _, i := range page.Items {
			names = append(names, i.Metadata.Name)
		}
		if next = page.Metadata.Continue; next == "" {
			break
		}
	}
	if len(names) != 13 {
		t.Errorf("%d names: %v", len(names), names)
	}
	if out := s.kubectl("get", "cm", "--chunk-size=3", "-o", "name"); strings.Count(out, "\n") != 13 {
		t.Errorf("kubectl --chunk-size=3: %s", out)
	}
}

func apiNamespaces(t *testing.T) {
	s := newSpace(t)
	other := s.ns + "-2"
	s.kubectl("create", "namespace", other)
	inOther := &space{T: t, c: s.c, ns: other}
	inOther.eventually("the service account", func() error {
		_, stderr, err := inOther.try("get", "sa", "default")
		if err != nil {
			return fmt.Errorf("%s", stderr)
		}
		return nil
	})
	inOther.apply(simple("slow", "trap 'sleep 1; exit' TERM; sleep 1000 & wait", "# ends slowly"))
	inOther.ready("slow")
	inOther.kubectl("create", "configmap", "cm")
	s.kubectl("delete", "namespace", other, "--wait=false")
	wantMatch(t, "get ns", s.kubectl("get", "ns", other), `^`+other+` +Terminating +`)
	want(t, "a create in a namespace that ends", inOther.refused("create", "configmap", "late"), "because it is being terminated")
	s.kubectl("wait", "--for=delete", "namespace/"+other, "--timeout=30s")
	want(t, "a Pod of a namespace that ended", inOther.refused("get", "pod", "slow"), "NotFound")
	want(t, "a create in no namespace", inOther.refused("create", "configmap", "late"), `namespaces "`+other+`" not found`)
	want(t, "delete of kube-system", s.refused("delete", "namespace", "kube-system"), "Forbidden")
	want(t, "a bad name", s.refused("create", "namespace", "Not_Good"), "a lowercase RFC 1123 label must consist of")
}

func apiImmutable(t *testing.T) {
	s := newSpace(t)
	s.apply(simple("web", forever))
	s.ready("web")
	want(t, "a change of a Pod's command", s.refused("patch", "pod", "web", "--type=json", "-p", `[{"op":"replace","path":"/spec/containers/0/command","value":["x"]}]`), "spec: Forbidden: pod updates may not change fields other than")
	want(t, "a change of a Pod's name", s.refused("patch", "pod", "web", "--type=merge", "-p", `{"metadata":{"name":"other"}}`), "the name of the object (other) does not match the name on the URL (web)")
	s.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: fixed}\nimmutable: true\ndata: {a: b}\n")
	want(t, "a change of an immutable configMap", s.refused("patch", "cm", "fixed", "-p", `{"data":{"a":"c"}}`), "field is immutable when `immutable` is set")
	s.kubectl("create", "secret", "generic", "sec")
	want(t, "a change of a secret's type", s.refused("patch", "secret", "sec", "-p", `{"type":"other"}`), "type: Invalid value", "field is immutable")
	if out := s.kubectl("set", "image", "pod/web", "main=busybox:latest"); out != "pod/web image updated\n" {
		t.Errorf("set image of a Pod printed %q", out)
	}
	s.eventually("the restart with the new image", func() error {
		if c := status(s.pod("web"), "main"); c.RestartCount != 1 || c.State.Running == nil {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
}

func apiConflict(t *testing.T) {
	s := newSpace(t)
	s.kubectl("create", "configmap", "cm")
	want(t, "a second create", s.refused("create", "configmap", "cm"), `error: failed to create configmap: configmaps "cm" already exists`)
	stale := s.kubectl("get", "cm", "cm", "-o", "json")
	s.kubectl("patch", "cm", "cm", "-p", `{"data":{"a":"b"}}`)
	_, stderr, err := s.run(stale, "replace", "-f", "-")
	if err == nil || !strings.Contains(stderr, "the object has been modified; please apply your changes to the latest version and try again") {
		t.Errorf("a stale replace: %q %v", stderr, err)
	}
}

func apiEvents(t *testing.T) {
	s := newSpace(t)
	s.apply(simple("web", forever))
	s.ready("web")
	s.event("web", "Started", "")
	wantMatch(t, "kubectl events", s.kubectl("events", "--for", "pod/web"), `^LAST SEEN +TYPE +REASON +OBJECT +MESSAGE$`, `Normal +Started +Pod/web +`)
	want(t, "events.k8s.io", s.kubectl("get", "events.v1.events.k8s.io"), "Started")
	if got := s.kubectl("get", "events", "--field-selector", "involvedObject.name=web,reason=Scheduled", "-o", "name"); strings.Count(got, "\n") != 1 {
		t.Errorf("events by field: %q", got)
	}
}

func apiRaw(t *testing.T) {
	s := newSpace(t)
	want(t, "/openapi/v3", s.kubectl("get", "--raw", "/openapi/v3"), `"apis/apps/v1"`, `"api/v1"`)
	if v2 := s.kubectl("get", "--raw", "/openapi/v2"); !strings.Contains(v2, `"io.k8s.api.core.v1.Pod"`) {
		t.Errorf("/openapi/v2 of %d bytes has no Pod", len(v2))
	}
	want(t, "/api", s.kubectl("get", "--raw", "/api"), `"v1"`)
	want(t, "/metrics", s.kubectl("get", "--raw", "/metrics"), "apiserver_request_total")
	want(t, "livez", s.kubectl("get", "--raw", "/livez?verbose"), "livez check passed")
	want(t, "nothing", s.refused("get", "--raw", "/apis/nothing/v1/things"), "the server could not find the requested resource")
	want(t, "no kind", s.refused("get", "unicorns"), `error: the server doesn't have a resource type "unicorns"`)
	want(t, "no kind", s.applyRefused("apiVersion: example.com/v1\nkind: Unicorn\nmetadata: {name: u}\n"), `no matches for kind "Unicorn" in version "example.com/v1"`)
}

func apiGenerated(t *testing.T) {
	s := newSpace(t)
	manifest := "apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: gen-}\n"
	for range 2 {
		out, stderr, err := s.run(manifest, "create", "-f", "-")
		if err != nil {
			t.Fatalf("%v %s", err, stderr)
		}
		wantMatch(t, "create", out, `^configmap/gen-[a-z0-9]{5} created$`)
	}
}

func apiWait(t *testing.T) {
	s := newSpace(t)
	s.apply(podOf("job", "restartPolicy: Never", "containers:", container("main", "exit 0")))
	if got := s.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/job", "--timeout=30s"); got != "pod/job condition met\n" {
		t.Errorf("wait printed %q", got)
	}
	want(t, "a wait that runs out", s.refused("wait", "--for=condition=Ready", "pod/job", "--timeout=1s"), "error: timed out waiting for the condition on pods/job")
	s.kubectl("delete", "pod", "job", "--wait=false")
	s.kubectl("wait", "--for=delete", "pod/job", "--timeout=30s")
}

func apiDiff(t *testing.T) {
	s := newSpace(t)
	d := deployment("web", 0)
	s.apply(d)
	if out, stderr, err := s.run(d, "diff", "-f", "-"); err != nil || out != "" {
		t.Errorf("diff of nothing: %q %q %v", out, stderr, err)
	}
	out, _, err := s.run(strings.Replace(d, "replicas: 0", "replicas: 3", 1), "diff", "-f", "-")
	if err == nil || !strings.Contains(out, "-  replicas: 0") || !strings.Contains(out, "+  replicas: 3") {
		t.Errorf("diff: %q %v", out, err)
	}
}
