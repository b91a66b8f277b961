package static

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
	testclock "k8s.io/utils/clock/testing"
)

const plain = `apiVersion: v1
kind: Pod
metadata: {name: %s}
spec: {containers: [{name: c, image: busybox}]}
`

func manifest(name string) string { return fmt.Sprintf(plain, name) }

func TestDecode(t *testing.T) {
	now := time.Unix(1_700_000_000, 0).UTC()
	pods, err := Decode(t.Context(), []byte("# a comment\n---\n"+manifest("web")), File, "/m/web.yaml", "node.a", now)
	if err != nil || len(pods) != 1 {
		t.Fatalf("%v %v", pods, err)
	}
	p := pods[0]
	if p.Name != "web-node.a" || p.Namespace != "default" || p.Spec.NodeName != "node.a" || len(p.UID) != 32 || p.Status.Phase != corev1.PodPending ||
		p.Annotations[AnnotationSource] != "file" || p.Annotations[AnnotationHash] != string(p.UID) || p.Annotations[AnnotationSeen] != "2023-11-14T22:13:20Z" ||
		p.Spec.RestartPolicy != corev1.RestartPolicyAlways || !slices.ContainsFunc(p.Spec.Tolerations, func(t corev1.Toleration) bool {
		return t.Operator == corev1.TolerationOpExists && t.Effect == corev1.TaintEffectNoExecute
	}) {
		t.Errorf("%+v", p)
	}
	if !Is(p) || IsMirror(p) {
		t.Error("it is not known to be static")
	}
	uid := func(text, from, node string) string {
		pods, err := Decode(t.Context(), []byte(text), File, from, node, now.Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		return string(pods[0].UID)
	}
	if uid(manifest("web"), "/m/web.yaml", "node.a") != string(p.UID) {
		t.Error("the same manifest later is another Pod")
	}
	for _, other := range []string{uid(manifest("web2"), "/m/web.yaml", "node.a"), uid(manifest("web"), "/m/x.yaml", "node.a"), uid(manifest("web"), "/m/web.yaml", "b"),
		uid(strings.Replace(manifest("web"), "busybox", "debian", 1), "/m/web.yaml", "node.a")} {
		if other == string(p.UID) {
			t.Error("another manifest is the same Pod")
		}
	}
	two := "apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: a}\n  spec: {containers: [{name: c, image: i}]}\n- metadata: {name: b}\n  spec: {containers: [{name: c, image: i}]}\n"
	if pods, err := Decode(t.Context(), []byte(two), HTTP, "http://x", "n", now); err != nil || len(pods) != 2 || len(pods[0].Spec.Tolerations) != 0 {
		t.Errorf("%v %v", pods, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	spec := func(fields string) string {
		return "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {" + fields + "}\n"
	}
	const c = "containers: [{name: c, image: i}]"
	vol := func(v string) string { return spec(c + ", volumes: [{name: v, " + v + "}]") }
	env := func(e string) string { return spec("containers: [{name: c, image: i, " + e + "}]") }
	for text, want := range map[string]string{
		"":                                      "it is empty",
		"a: [":                                  "yaml",
		"apiVersion: apps/v1\nkind: Deployment": `its apiVersion is "apps/v1", not v1`,
		"apiVersion: v1\nkind: Secret":          `its kind is "Secret", neither Pod nor PodList`,
		manifest("a") + "---\n" + manifest("b"): "more than one object",
		spec(c + ", colour: blue"):              `unknown field "colour"`,
		strings.Replace(spec(c), "name: p", "namespace: p", 1):                   "name is needed",
		spec("containers: []"):                                                   "spec.containers: Required value",
		spec(c + ", serviceAccountName: a"):                                      "static pods may not reference serviceaccounts",
		spec(c + ", imagePullSecrets: [{name: a}]"):                              "static pods may not reference secrets",
		env("envFrom: [{secretRef: {name: a}}]"):                                 "static pods may not reference secrets",
		env("envFrom: [{configMapRef: {name: a}}]"):                              "static pods may not reference configmaps",
		env("env: [{name: A, valueFrom: {secretKeyRef: {name: a, key: k}}}]"):    "static pods may not reference secrets",
		env("env: [{name: A, valueFrom: {configMapKeyRef: {name: a, key: k}}}]"): "static pods may not reference configmaps",
		spec(c + ", resourceClaims: [{name: r, resourceClaimName: x}]"):          "static pods may not reference resourceclaims",
		vol("configMap: {name: a}"):                                              "static pods may not reference configmaps (via configmap volumes)",
		vol("secret: {secretName: a}"):                                           "static pods may not reference secrets (via secret volumes)",
		vol("csi: {driver: d}"):                                                  "static pods may not reference csidrivers (via CSI volumes)",
		vol("persistentVolumeClaim: {claimName: a}"):                             "static pods may not reference persistentvolumeclaims",
		vol("projected: {sources: [{configMap: {name: a}}]}"):                    "static pods may not reference configmaps (via projected volumes)",
		vol("projected: {sources: [{secret: {name: a}}]}"):                       "static pods may not reference secrets (via projected volumes)",
		vol("projected: {sources: [{serviceAccountToken: {path: t}}]}"):          "static pods may not reference serviceaccounts (via projected volumes)",
		vol("projected: {sources: [{clusterTrustBundle: {name: a, path: t}}]}"):  "static pods may not reference clustertrustbundles",
	} {
		if _, err := Decode(t.Context(), []byte(text), File, "f", "n", time.Now()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	for _, ok := range []string{vol("emptyDir: {}"), vol("hostPath: {path: /x}"), vol("projected: {sources: [{downwardAPI: {items: []}}]}"), env("env: [{name: A, value: b}]")} {
		if _, err := Decode(t.Context(), []byte(ok), File, "f", "n", time.Now()); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
}

func names(pods []*corev1.Pod) string {
	var list []string
	for _, p := range pods {
		list = append(list, p.Name)
	}
	return strings.Join(list, " ")
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestFolder follows a folder: files come, change, become unusable, are hidden, and go.
func TestFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "manifests")
	var mu sync.Mutex
	var faults []string
	s := New(Config{Path: dir, Node: "n", Log: slog.New(slog.DiscardHandler), Clock: clock.RealClock{}, Bad: func(from string, err error) {
		mu.Lock()
		defer mu.Unlock()
		faults = append(faults, filepath.Base(from)+": "+err.Error())
	}})
	if got := s.Read(t.Context()); len(got) != 0 {
		t.Errorf("%v", got)
	}
	told := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, func(p []*corev1.Pod) { told <- names(p) }) }()
	until := func(want string) {
		t.Helper()
		deadline := time.After(10 * time.Second)
		for got := "nothing"; got != want; {
			select {
			case got = <-told:
			case <-deadline:
				t.Fatalf("last told %q, want %q", got, want)
			}
		}
	}
	until("")
	put(t, filepath.Join(dir, "a.yaml"), manifest("a"))
	until("a-n")
	put(t, filepath.Join(dir, ".hidden"), manifest("h"))
	put(t, filepath.Join(dir, "b.json"), `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"b"},"spec":{"containers":[{"name":"c","image":"i"}]}}`)
	until("a-n b-n")
	put(t, filepath.Join(dir, "c.yaml"), "kind: Nonsense")
	put(t, filepath.Join(dir, "a.yaml"), manifest("a2"))
	until("a2-n b-n")
	put(t, filepath.Join(dir, "a.yaml"), "broken: [")
	put(t, filepath.Join(dir, "d.yaml"), manifest("b")) // twice
	until("a2-n b-n")
	if err := os.Rename(filepath.Join(dir, "b.json"), filepath.Join(dir, ".b.json")); err != nil {
		t.Fatal(err)
	}
	until("a2-n b-n") // the other one's turn
	if err := os.Remove(filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	until("b-n")
	cancel()
	<-done
	mu.Lock()
	defer mu.Unlock()
	count := map[string]int{}
	for _, f := range faults {
		what, _, _ := strings.Cut(f, ":")
		count[what]++
	}
	if count["c.yaml"] != 1 || count["a.yaml"] != 1 || count["d.yaml"] > 1 {
		t.Errorf("faults were told %v: %q", count, faults)
	}
}

// TestURL asks a URL that changes, breaks and is away, also when the agent starts.
func TestURL(t *testing.T) {
	var mu sync.Mutex
	text, code := manifest("a"), 200
	set := func(s string, c int) {
		mu.Lock()
		defer mu.Unlock()
		text, code = s, c
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.WriteHeader(code)
		fmt.Fprint(w, text)
	}))
	defer srv.Close()
	kept := filepath.Join(t.TempDir(), "kept")
	faults := 0
	fresh := func() *Source {
		return New(Config{URL: srv.URL, Kept: kept, Node: "n", Log: slog.New(slog.DiscardHandler), Clock: testclock.NewFakeClock(time.Now()),
			Write: func(path string, data []byte) error { return os.WriteFile(path, data, 0o600) }, Bad: func(string, error) { faults++ }})
	}
	s := fresh()
	if got := names(s.Read(t.Context())); got != "a-n" {
		t.Errorf("%q", got)
	}
	for _, step := range []struct {
		text string
		code int
		want string
	}{{"", 500, "a-n"}, {"", 500, "a-n"}, {"nonsense", 200, "a-n"}, {manifest("b"), 200, "b-n"}} {
		set(step.text, step.code)
		s.ask(t.Context())
		if got := names(s.Pods()); got != step.want {
			t.Errorf("after %d %q: %q, want %q", step.code, step.text, got, step.want)
		}
	}
	if faults != 2 {
		t.Errorf("faults were told %d times", faults)
	}
	set("", 503)
	if got := names(fresh().Read(t.Context())); got != "b-n" {
		t.Errorf("while the URL is away a new start has %q", got)
	}
}
