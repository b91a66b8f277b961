//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestTree looks at ownership from both ends: what kubectl tree shows, and what carob tree adds to it.
func TestTree(t *testing.T) {
	s := newSpace(t)
	manifest := strings.ReplaceAll(deployment("nginx-deployment", 2), "VERSION, value: one", "VERSION, value: zero")
	s.apply(manifest)
	s.rolledOut("nginx-deployment")
	for _, v := range []string{"one", "two", "three"} {
		s.kubectl("set", "env", "deployment/nginx-deployment", "VERSION="+v)
		s.rolledOut("nginx-deployment")
	}
	s.eventually("two Pods", func() error {
		if n := len(s.pods("app=nginx-deployment")); n != 2 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})

	t.Run("Owners", func(t *testing.T) { treeOwners(t, s) })
	t.Run("Text", func(t *testing.T) { treeText(t, s) })
	t.Run("JSON", func(t *testing.T) { treeJSON(t, s) })
	t.Run("Filters", func(t *testing.T) { treeFilters(t, s) })
	t.Run("KubectlTree", func(t *testing.T) { treeKubectl(t, s) })
}

// treeOwners walks the references that kubectl tree draws.
func treeOwners(t *testing.T, s *space) {
	d := s.deployment("nginx-deployment")
	rs := s.replicaSets("nginx-deployment")
	if len(rs) != 4 {
		t.Errorf("%d ReplicaSets, want 4", len(rs))
	}
	for i, r := range rs {
		o := metav1.GetControllerOf(&r)
		if o == nil || o.UID != d.UID || o.Kind != "Deployment" || o.APIVersion != "apps/v1" || o.BlockOwnerDeletion == nil || !*o.BlockOwnerDeletion {
			t.Errorf("owner of %s: %+v", r.Name, o)
		}
		if n := *r.Spec.Replicas; (i < 3) != (n == 0) {
			t.Errorf("ReplicaSet %d of 4 is at %d", i+1, n)
		}
	}
	for _, p := range s.pods("app=nginx-deployment") {
		if o := metav1.GetControllerOf(&p); o == nil || o.UID != rs[3].UID || o.Kind != "ReplicaSet" {
			t.Errorf("owner of %s: %+v", p.Name, o)
		}
		if !strings.HasPrefix(p.Name, rs[3].Name+"-") || p.Labels["pod-template-hash"] != rs[3].Labels["pod-template-hash"] {
			t.Errorf("pod %s of %s: %v", p.Name, rs[3].Name, p.Labels)
		}
	}
}

func (s *space) tree(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := s.c.command(ctx, carobBinary, append([]string{"tree"}, args...)...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		t.Fatalf("carob tree %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), errOut.String())
	}
	if errOut.Len() > 0 {
		t.Errorf("carob tree %s warned: %s", strings.Join(args, " "), errOut.String())
	}
	return out.String()
}

func treeText(t *testing.T, s *space) {
	out := s.tree(t, "-n", s.ns, "deployment", "nginx-deployment")
	t.Logf("carob tree deployment nginx-deployment\n%s", out)
	pods := s.pods("app=nginx-deployment")
	for _, p := range pods {
		wantMatch(t, "carob tree", out, `Pod/`+p.Name+` .*Running.*`+strings.ReplaceAll(p.Status.PodIP, ".", `\.`)+`.*n1\.example\.com`)
		for _, c := range []string{"main"} {
			wantMatch(t, "carob tree", out, fmt.Sprintf(`\b%d\b.*sh`, s.mainProcess(&p, c).pid), fmt.Sprintf(`\b%d\b`, s.pause(&p, c).pid))
		}
	}
	wantMatch(t, "carob tree", out, `Deployment/nginx-deployment`, `├─ ?ReplicaSet/nginx-deployment-`, `└─ ?ReplicaSet/nginx-deployment-`, `pause`, `sleep`, `main.*[Rr]unning`)
}

func treeJSON(t *testing.T, s *space) {
	out := s.tree(t, "-n", s.ns, "-o", "json", "deployment/nginx-deployment")
	var any map[string]any
	if err := json.Unmarshal([]byte(out), &any); err != nil {
		t.Fatalf("not JSON: %v\n%s", err, out)
	}
	for _, p := range s.pods("app=nginx-deployment") {
		want(t, "carob tree -o json", out, p.Name, fmt.Sprint(s.mainProcess(&p, "main").pid), fmt.Sprint(s.pause(&p, "main").pid), p.Status.PodIP)
	}
	want(t, "carob tree -o json", out, `"ReplicaSet"`, `"Deployment"`, `"net"`, `"kube-api-access`)
}

func treeFilters(t *testing.T, s *space) {
	s.apply(simple("loner", forever))
	s.ready("loner")
	all := s.tree(t)
	want(t, "carob tree of the whole cluster", all, "Deployment/nginx-deployment", "Pod/loner", s.ns)
	mine := s.tree(t, "-n", s.ns, "-l", "run=loner")
	if !strings.Contains(mine, "Pod/loner") || strings.Contains(mine, "nginx-deployment") {
		t.Errorf("carob tree -l run=loner:\n%s", mine)
	}
	other := s.tree(t, "-n", "default", "-l", "run=loner")
	if strings.Contains(other, "loner") {
		t.Errorf("carob tree -n default:\n%s", other)
	}
	if out, err := s.c.carob("tree", "-n", s.ns, "pod", "nobody"); err == nil || !strings.Contains(out, "not found") {
		t.Errorf("carob tree of nothing: %v %s", err, out)
	}
	if out, err := s.c.carob("tree", "-n", s.ns, "unicorn"); err == nil || !strings.Contains(out, `doesn't have a resource type "unicorn"`) {
		t.Errorf("carob tree of no kind: %v %s", err, out)
	}
}

// treeKubectl runs the plugin that $KUBECTL_TREE names, laid out as krew does it.
func treeKubectl(t *testing.T, s *space) {
	plugin := os.Getenv("KUBECTL_TREE")
	if plugin == "" {
		t.Fatal("$KUBECTL_TREE does not name the plugin")
	}
	krew := t.TempDir()
	store := filepath.Join(krew, "store/tree/v0")
	bin := filepath.Join(krew, "bin")
	for _, d := range []string{store, bin} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(plugin)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(store, "kubectl-tree"), raw, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(store, "kubectl-tree"), filepath.Join(bin, "kubectl-tree")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	cmd := s.c.command(ctx, kubectlBinary, "tree", "-n", s.ns, "deployment", "nginx-deployment")
	cmd.Env = append(cmd.Env, "PATH="+bin+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl tree: %v\n%s", err, out)
	}
	t.Logf("kubectl tree deployment nginx-deployment\n%s", out)
	rs := s.replicaSets("nginx-deployment")
	wantMatch(t, "kubectl tree", string(out), `^NAMESPACE +NAME +READY +REASON +(STATUS +)?AGE`, `^`+s.ns+` +Deployment/nginx-deployment +- +`, `[├└]─ReplicaSet/`+rs[0].Name+` +- +`)
	for _, p := range s.pods("app=nginx-deployment") {
		wantMatch(t, "kubectl tree", string(out), `[├└]─Pod/`+p.Name+` +True +`)
	}
}
