//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestGarbageCollection tries what goes with its owner, and what does not.
func TestGarbageCollection(t *testing.T) {
	t.Parallel()
	count := func(s *space, app string) (sets, pods int) { return len(s.replicaSets(app)), len(s.pods("app=" + app)) }
	nothingLeft := func(s *space, app string) {
		s.Helper()
		s.eventually("nothing left of "+app, func() error {
			if sets, pods := count(s, app); sets+pods != 0 {
				return fmt.Errorf("%d ReplicaSets, %d Pods", sets, pods)
			}
			return nil
		})
	}
	t.Run("Background", func(t *testing.T) {
		s := newSpace(t)
		s.apply(deployment("web", 2))
		s.rolledOut("web")
		s.kubectl("delete", "deployment", "web")
		nothingLeft(s, "web")
	})
	t.Run("Foreground", func(t *testing.T) {
		s := newSpace(t)
		s.apply(strings.ReplaceAll(deployment("web", 2), "trap 'exit 0' TERM; ", "trap 'sleep 1; exit 0' TERM; "))
		s.rolledOut("web")
		s.kubectl("delete", "deployment", "web", "--cascade=foreground", "--wait=false")
		d := s.deployment("web")
		if d.DeletionTimestamp == nil || len(d.Finalizers) != 1 || d.Finalizers[0] != metav1.FinalizerDeleteDependents {
			t.Errorf("%+v", d.ObjectMeta)
		}
		s.kubectl("wait", "--for=delete", "deployment/web", "--timeout=30s")
		if sets, pods := count(s, "web"); sets+pods != 0 {
			t.Errorf("the owner went before %d ReplicaSets and %d Pods", sets, pods)
		}
	})
	t.Run("Orphan", func(t *testing.T) {
		s := newSpace(t)
		s.apply(deployment("web", 2))
		s.rolledOut("web")
		pods := fmt.Sprint(names(s, "web"))
		s.kubectl("delete", "deployment", "web", "--cascade=orphan")
		s.eventually("a ReplicaSet without an owner", func() error {
			rs := s.replicaSets("web")
			if len(rs) != 1 || len(rs[0].OwnerReferences) != 0 {
				return fmt.Errorf("%+v", rs)
			}
			return nil
		})
		// The same Deployment takes it in again, Pods and all.
		s.apply(deployment("web", 2))
		s.rolledOut("web")
		rs := s.replicaSets("web")
		if len(rs) != 1 || metav1.GetControllerOf(&rs[0]) == nil {
			t.Errorf("not taken in: %+v", rs)
		}
		if now := fmt.Sprint(names(s, "web")); now != pods {
			t.Errorf("Pods were %s, are %s", pods, now)
		}
	})
	t.Run("AdoptAndRelease", func(t *testing.T) {
		s := newSpace(t)
		s.apply(deployment("web", 2))
		s.rolledOut("web")
		victim := s.pods("app=web")[0]
		s.kubectl("label", "pod", victim.Name, "app=mine", "--overwrite")
		s.eventually("a released Pod and its replacement", func() error {
			p := s.pod(victim.Name)
			if len(p.OwnerReferences) != 0 || len(s.pods("app=web")) != 2 {
				return fmt.Errorf("owners %v, %d Pods", p.OwnerReferences, len(s.pods("app=web")))
			}
			return nil
		})
		s.rolledOut("web")
		s.kubectl("label", "pod", victim.Name, "app=web", "--overwrite")
		s.eventually("one too many, so one goes", func() error {
			if n := len(s.pods("app=web")); n != 2 {
				return fmt.Errorf("%d", n)
			}
			return nil
		})
	})
	t.Run("OverlappingSelectors", func(t *testing.T) {
		s := newSpace(t)
		set := func(name string) string {
			return strings.NewReplacer("kind: Deployment", "kind: ReplicaSet", "app: "+name, "app: same").Replace(deployment(name, 2))
		}
		s.apply(set("one") + set("two"))
		s.eventually("two Pods each", func() error {
			owned := map[string]int{}
			for _, p := range s.pods("app=same") {
				owned[metav1.GetControllerOf(&p).Name]++
			}
			if owned["one"] != 2 || owned["two"] != 2 {
				return fmt.Errorf("%v", owned)
			}
			return nil
		})
		s.kubectl("scale", "rs/one", "--replicas=0")
		s.eventually("only the Pods of two", func() error {
			owned := map[string]int{}
			for _, p := range s.pods("app=same") {
				owned[metav1.GetControllerOf(&p).Name]++
			}
			if owned["one"] != 0 || owned["two"] != 2 {
				return fmt.Errorf("%v", owned)
			}
			return nil
		})
	})
	t.Run("ByHand", func(t *testing.T) {
		s := newSpace(t)
		s.kubectl("create", "configmap", "owner")
		uid := s.kubectl("get", "cm", "owner", "-o", "jsonpath={.metadata.uid}")
		s.apply(fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata:\n  name: owned\n  ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: owner, uid: %s}]\n", uid))
		s.apply("apiVersion: v1\nkind: Secret\nmetadata:\n  name: lost\n  ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: nobody, uid: 00000000-0000-0000-0000-000000000000}]\n")
		s.kubectl("wait", "--for=delete", "secret/lost", "--timeout=30s")
		s.kubectl("get", "secret", "owned")
		s.kubectl("delete", "cm", "owner")
		s.kubectl("wait", "--for=delete", "secret/owned", "--timeout=30s")
	})
}

func names(s *space, app string) (out []string) {
	for _, p := range s.pods("app=" + app) {
		if p.DeletionTimestamp == nil {
			out = append(out, p.Name)
		}
	}
	return out
}
