package auth

import (
	"context"
	"errors"
	"slices"

	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"carob.dev/carob/internal/apiserver/auth/node"
	"carob.dev/carob/internal/apiserver/auth/rbac"
	"carob.dev/carob/internal/apiserver/inproc"
)

// Authorizer asks, in this order: is it system:masters, or a controller of this process; is it a node that asks for what is its own; do
// roles allow it. The first to allow decides; what nobody allows is refused.
type Authorizer struct {
	nodes  *node.Authorizer
	policy *rbac.Policy
}

var (
	_ authorizer.Authorizer   = &Authorizer{}
	_ authorizer.RuleResolver = &Authorizer{}
)

// NewAuthorizer makes an Authorizer over nodes' objects and the roles of policy.
func NewAuthorizer(objects node.Objects, policy *rbac.Policy) *Authorizer {
	return &Authorizer{nodes: node.New(objects), policy: policy}
}

// Authorize implements authorizer.Authorizer.
func (z *Authorizer) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	u := a.GetUser()
	switch {
	case u == nil:
		return authorizer.DecisionNoOpinion, "no user", nil
	case slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup), ownController(ctx, u):
		return authorizer.DecisionAllow, "", nil
	}
	reason, failed := "", error(nil)
	if name, ok := node.Name(u); ok {
		var decision authorizer.Decision
		if decision, reason, failed = z.nodes.Authorize(ctx, name, a); decision == authorizer.DecisionAllow {
			return decision, reason, failed
		}
	}
	decision, why, err := z.policy.Authorize(ctx, a)
	if decision == authorizer.DecisionAllow {
		return decision, why, err
	}
	return decision, join(reason, why), errors.Join(failed, err)
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "\n" + b
}

// ConditionsAwareAuthorize implements authorizer.Authorizer. No decision has conditions.
func (z *Authorizer) ConditionsAwareAuthorize(ctx context.Context, a authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(z.Authorize(ctx, a))
}

// EvaluateConditions implements authorizer.Authorizer.
func (*Authorizer) EvaluateConditions(
	context.Context, authorizer.ConditionsAwareDecision, authorizer.ConditionsData,
) (authorizer.Decision, string, error) {
	return authorizer.DecisionDeny, "", authorizer.ErrorConditionEvaluationNotSupported
}

// RulesFor implements authorizer.RuleResolver.
func (z *Authorizer) RulesFor(
	ctx context.Context, u user.Info, namespace string,
) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	resources, paths, incomplete, err := z.policy.RulesFor(ctx, u, namespace)
	if _, ok := node.Name(u); ok {
		return resources, paths, true, errors.Join(err, errors.New("node authorizer does not support user rule resolution"))
	}
	return resources, paths, incomplete, err
}

// ownController says whether u asks over a connection of this process that belongs to a controller, and so may do everything. The name alone
// gives nothing: neither a Pod with a token of such an account nor a certificate of that name comes over such a connection.
func ownController(ctx context.Context, u user.Info) bool {
	own, ok := inproc.From(ctx)
	if !ok || own.GetName() != u.GetName() {
		return false
	}
	if u.GetName() == user.KubeControllerManager {
		return true
	}
	namespace, _, err := serviceaccount.SplitUsername(u.GetName())
	return err == nil && namespace == "kube-system"
}
