package deployment

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestFirstRollout(t *testing.T) {
	c := newCluster(t, 4, "25%", "25%")
	c.settle()
	c.want("v1=4")
	c.wantProgress(corev1.ConditionTrue, reasonNewAvailable)
	none := int32(0)
	rs := c.sets[0]
	want := appsv1.DeploymentStatus{
		ObservedGeneration: 1, Replicas: 4, UpdatedReplicas: 4, ReadyReplicas: 4, AvailableReplicas: 4, TerminatingReplicas: &none,
		Conditions: []appsv1.DeploymentCondition{
			{Type: appsv1.DeploymentAvailable, Status: corev1.ConditionTrue, Reason: "MinimumReplicasAvailable", Message: "Deployment has minimum availability."},
			{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue, Reason: "NewReplicaSetAvailable",
				Message: `ReplicaSet "` + rs.Name + `" has successfully progressed.`},
		},
	}
	got := *c.d.Status.DeepCopy()
	for i := range got.Conditions {
		got.Conditions[i].LastUpdateTime, got.Conditions[i].LastTransitionTime = metav1.Time{}, metav1.Time{}
	}
	slices.SortFunc(got.Conditions, func(a, b appsv1.DeploymentCondition) int { return int(a.Type[0]) - int(b.Type[0]) })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	hash := rs.Labels[appsv1.DefaultDeploymentUniqueLabelKey]
	if hash == "" || rs.Name != "web-"+hash || rs.Spec.Selector.MatchLabels[appsv1.DefaultDeploymentUniqueLabelKey] != hash ||
		rs.Spec.Template.Labels[appsv1.DefaultDeploymentUniqueLabelKey] != hash {
		t.Errorf("pod-template-hash: %+v", rs)
	}
	wantAnnotations := map[string]string{annotationRevision: "1", annotationDesired: "4", annotationMax: "5"}
	if diff := cmp.Diff(wantAnnotations, rs.Annotations); diff != "" {
		t.Error(diff)
	}
	if c.d.Annotations[annotationRevision] != "1" {
		t.Errorf("revision of the deployment: %v", c.d.Annotations)
	}
}

func TestRollingUpdateStepByStep(t *testing.T) {
	c := newCluster(t, 4, "25%", "25%")
	c.settle()
	c.log = nil
	c.image("v2")
	c.settle()
	c.want("v1=0 v2=4")
	// One more may run and one may be missing: one new comes, two old go, and so on.
	want := []string{"v2 0→1", "v1 4→3", "v2 1→2", "v1 3→1"}
	if diff := cmp.Diff(want, c.log[:4]); diff != "" {
		t.Errorf("%s\n%v", diff, c.log)
	}
}

func TestRollback(t *testing.T) {
	c := newCluster(t, 3, "1", "0")
	c.d.Annotations = map[string]string{"kubernetes.io/change-cause": "first", annotationLastApplied: "{}"}
	c.settle()
	c.d.Annotations["kubernetes.io/change-cause"] = "second"
	c.image("v2")
	c.settle()
	first := c.set("v1")
	c.image("v1")
	c.settle()
	c.want("v1=3 v2=0")
	if c.set("v1").UID != first.UID {
		t.Error("the old ReplicaSet was not used again")
	}
	a := c.set("v1").Annotations
	if a[annotationRevision] != "3" || a[annotationHistory] != "1" || c.d.Annotations[annotationRevision] != "3" {
		t.Errorf("revisions: %v, %v", a, c.d.Annotations)
	}
	if _, ok := a[annotationLastApplied]; ok {
		t.Error("last-applied-configuration was copied")
	}
	if got := c.set("v2").Annotations["kubernetes.io/change-cause"]; got != "second" {
		t.Errorf("change-cause of v2: %q", got)
	}
}

func TestPauseAndResume(t *testing.T) {
	c := newCluster(t, 4, "1", "0")
	c.settle()
	c.image("v2")
	c.step(true)
	c.want("v1=4 v2=1")
	c.edit(func(s *appsv1.DeploymentSpec) { s.Paused = true })
	c.settle()
	c.want("v1=4 v2=1")
	c.wantProgress(corev1.ConditionUnknown, reasonPaused)
	c.edit(func(s *appsv1.DeploymentSpec) { s.Paused = false })
	c.step(true)
	c.settle()
	c.want("v1=0 v2=4")
	c.wantProgress(corev1.ConditionTrue, reasonNewAvailable)
}

func TestProportionalScalingInMidRollout(t *testing.T) {
	// The documented example: 10 replicas, maxSurge 3, maxUnavailable 2, the new version does not come up, scaled to 15.
	c := newCluster(t, 10, "3", "2")
	c.settle()
	c.bad["v2"] = true
	c.image("v2")
	c.settle()
	c.want("v1=8 v2=5")
	c.scale(15)
	c.settle()
	c.want("v1=11 v2=7")
}

func TestBadVersionLeavesEnoughOfTheOldOne(t *testing.T) {
	c := newCluster(t, 3, "25%", "25%")
	c.settle()
	c.bad["v2"] = true
	c.image("v2")
	c.settle()
	c.want("v1=3 v2=1")
	c.wantProgress(corev1.ConditionTrue, reasonReplicaSetUpdated)
	c.now = c.now.Add(601 * time.Second)
	c.settle()
	c.wantProgress(corev1.ConditionFalse, reasonDeadlineExceeded)
	c.image("v1")
	c.settle()
	c.want("v1=3 v2=0")
	c.wantProgress(corev1.ConditionTrue, reasonNewAvailable)
}

func TestDeadlineIsLookedAtAgain(t *testing.T) {
	c := newCluster(t, 1, "1", "0")
	c.bad["v1"] = true
	c.settle()
	p := decide(facts{deployment: c.d, sets: c.sets, now: c.now})
	if p.write || p.checkAfter != 601*time.Second {
		t.Errorf("write %t, check after %v", p.write, p.checkAfter)
	}
}

func TestRecreate(t *testing.T) {
	c := newCluster(t, 3, "1", "0")
	c.d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	c.settle()
	c.log = nil
	c.image("v2")
	c.step(false)
	c.step(false)
	c.want("v1=0") // three old Pods still run: nothing new yet
	c.follow()
	c.settle()
	c.want("v1=0 v2=3")
	if diff := cmp.Diff([]string{"v1 3→0", "v2 0→3"}, c.log); diff != "" {
		t.Error(diff)
	}
}

func TestHistoryLimit(t *testing.T) {
	c := newCluster(t, 1, "1", "0")
	two := int32(2)
	c.d.Spec.RevisionHistoryLimit = &two
	for _, image := range []string{"v1", "v2", "v3", "v4", "v5"} {
		c.image(image)
		c.settle()
	}
	c.want("v3=0 v4=0 v5=1")
}

func TestScale(t *testing.T) {
	c := newCluster(t, 4, "25%", "25%")
	c.settle()
	c.scale(7)
	c.settle()
	c.want("v1=7")
	c.scale(0)
	c.settle()
	c.want("v1=0")
	c.image("v2")
	c.settle()
	c.want("v1=0 v2=0")
	c.scale(2)
	c.settle()
	c.want("v1=0 v2=2")
}

func TestRollOver(t *testing.T) {
	// A third version while the second is still coming: the second goes first, for it is not available.
	c := newCluster(t, 10, "3", "2")
	c.settle()
	c.bad["v2"] = true
	c.image("v2")
	c.settle()
	c.image("v3")
	c.settle()
	c.want("v1=0 v2=0 v3=10")
}
