package deployment

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// cluster is a world in which ReplicaSets follow their size at once, and Deployments follow decide.
type cluster struct {
	t    *testing.T
	d    *appsv1.Deployment
	sets []*appsv1.ReplicaSet
	now  time.Time
	// bad are images whose Pods never become available.
	bad map[string]bool
	log []string
}

func newCluster(t *testing.T, replicas int32, surge, unavailable string) *cluster {
	s, u := intstr.Parse(surge), intstr.Parse(unavailable)
	ten, deadline := int32(10), int32(600)
	return &cluster{
		t: t, now: time.Unix(1_900_000_000, 0), bad: map[string]bool{},
		d: &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "d", Generation: 1},
			Spec: appsv1.DeploymentSpec{
				Replicas: &replicas,
				Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
				Template: corev1.PodTemplateSpec{
					ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
					Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "v1"}}},
				},
				Strategy: appsv1.DeploymentStrategy{
					Type:          appsv1.RollingUpdateDeploymentStrategyType,
					RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &s, MaxUnavailable: &u},
				},
				RevisionHistoryLimit:    &ten,
				ProgressDeadlineSeconds: &deadline,
			},
		},
	}
}

func (c *cluster) edit(f func(*appsv1.DeploymentSpec)) {
	f(&c.d.Spec)
	c.d.Generation++
}

func (c *cluster) image(image string) {
	c.edit(func(s *appsv1.DeploymentSpec) { s.Template.Spec.Containers[0].Image = image })
}

func (c *cluster) scale(n int32) { c.edit(func(s *appsv1.DeploymentSpec) { s.Replicas = &n }) }

func imageOf(rs *appsv1.ReplicaSet) string { return rs.Spec.Template.Spec.Containers[0].Image }

// set returns the ReplicaSet of an image.
func (c *cluster) set(image string) *appsv1.ReplicaSet {
	for _, rs := range c.sets {
		if imageOf(rs) == image {
			return rs
		}
	}
	return nil
}

// step takes one step and lets the ReplicaSets follow if they may. It returns whether anything was written.
func (c *cluster) step(follow bool) bool {
	c.t.Helper()
	p := decide(facts{
		deployment: c.d, sets: c.sets, now: c.now,
		oldPodsRun: func(current *appsv1.ReplicaSet) bool {
			for _, rs := range c.sets {
				if (current == nil || rs.UID != current.UID) && rs.Status.Replicas > 0 {
					return true
				}
			}
			return false
		},
	})
	if p.create != nil {
		rs := p.create
		rs.UID = types.UID(rs.Name)
		rs.CreationTimestamp = metav1.NewTime(c.now.Add(time.Duration(len(c.sets)) * time.Second))
		c.log = append(c.log, fmt.Sprintf("%s 0→%d", imageOf(rs), size(rs)))
		c.sets = append(c.sets, rs)
	}
	for _, ch := range p.update {
		i := slices.IndexFunc(c.sets, func(rs *appsv1.ReplicaSet) bool { return rs.UID == ch.set.UID })
		if ch.from != size(ch.set) {
			c.log = append(c.log, fmt.Sprintf("%s %d→%d", imageOf(ch.set), ch.from, size(ch.set)))
		}
		c.sets[i] = ch.set
	}
	for _, gone := range p.remove {
		c.log = append(c.log, "remove "+imageOf(gone))
		c.sets = slices.DeleteFunc(c.sets, func(rs *appsv1.ReplicaSet) bool { return rs.UID == gone.UID })
	}
	c.d = p.deployment
	if follow {
		c.follow()
	}
	c.invariants()
	return p.write || p.create != nil || len(p.update)+len(p.remove) > 0
}

func (c *cluster) follow() {
	none := int32(0)
	for i, rs := range c.sets {
		rs = rs.DeepCopy()
		n := size(rs)
		rs.Status = appsv1.ReplicaSetStatus{Replicas: n, TerminatingReplicas: &none, ObservedGeneration: max(1, rs.Generation)}
		if !c.bad[imageOf(rs)] {
			rs.Status.ReadyReplicas, rs.Status.AvailableReplicas = n, n
		}
		c.sets[i] = rs
	}
}

// invariants hold at every moment of a rolling update.
func (c *cluster) invariants() {
	c.t.Helper()
	if !isRolling(c.d) {
		return
	}
	if total, most := sum(c.sets, size), desired(c.d)+maxSurge(c.d); total > most && !c.shrinking() {
		c.t.Errorf("%d replicas asked for, at most %d allowed: %v", total, most, c.log)
	}
}

// shrinking says whether the Deployment was just scaled down, so that more than allowed may still be there.
func (c *cluster) shrinking() bool { return c.d.Status.ObservedGeneration != c.d.Generation }

// settle steps until nothing is written any more.
func (c *cluster) settle() {
	c.t.Helper()
	for range 200 {
		if !c.step(true) {
			return
		}
	}
	c.t.Fatalf("does not come to rest: %v", c.log)
}

func (c *cluster) sizes() string {
	var out []string
	for _, rs := range c.sets {
		out = append(out, fmt.Sprintf("%s=%d", imageOf(rs), size(rs)))
	}
	return strings.Join(out, " ")
}

func (c *cluster) want(sizes string) {
	c.t.Helper()
	if got := c.sizes(); got != sizes {
		c.t.Errorf("got %s, want %s; log %v", got, sizes, c.log)
	}
}

func (c *cluster) wantProgress(status corev1.ConditionStatus, reason string) {
	c.t.Helper()
	p := condition(c.d.Status, appsv1.DeploymentProgressing)
	if p == nil || p.Status != status || p.Reason != reason {
		c.t.Errorf("Progressing is %+v, want %s %s", p, status, reason)
	}
}
