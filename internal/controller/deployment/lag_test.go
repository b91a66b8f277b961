package deployment

import (
	"math/rand/v2"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
)

// ReplicaSets follow what they are told one at a time and in any order, so that what the Deployment sees of them is often old. The Pods that
// are available and are not about to go must never be fewer than allowed.
func TestEnoughStaysAvailableWhileReplicaSetsLag(t *testing.T) {
	staying := func(rs *appsv1.ReplicaSet) int32 { return min(size(rs), availableOf(rs)) }
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		c := newCluster(t, 1+random.Int32N(12), []string{"25%", "1", "50%"}[random.IntN(3)], []string{"25%", "1", "0"}[random.IntN(3)])
		c.settle()
		c.log = nil
		c.image("v2")
		for range 400 {
			wrote := c.step(false)
			if least := desired(c.d) - maxUnavailable(c.d); sum(c.sets, staying) < least {
				t.Fatalf("seed %d: %d stay available, %d must: %v", seed, sum(c.sets, staying), least, c.log)
			}
			before := slices.Clone(c.sets)
			c.follow()
			for i, follows := range c.sets {
				if c.sets[i] = before[i]; random.IntN(3) == 0 {
					c.sets[i] = follows
				}
			}
			if !wrote && sum(c.sets, availableOf) == desired(c.d) && size(c.set("v1")) == 0 && availableOf(c.set("v1")) == 0 {
				break
			}
		}
		c.settle()
		if size(c.set("v1")) != 0 || size(c.set("v2")) != desired(c.d) {
			t.Errorf("seed %d: the rollout did not end: %v", seed, c.log)
		}
	}
}
