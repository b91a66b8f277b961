package bootstrap

import (
	"errors"
	"fmt"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
	"k8s.io/component-helpers/auth/rbac/reconciliation"
)

// parallel is how many objects are brought up to date at a time: the store writes what is waiting together.
const parallel = 32

// Ensure makes what is missing of the policy, and adds to what is there the rules and subjects that it lacks. What somebody has added stays,
// and what is annotated with rbac.authorization.kubernetes.io/autoupdate: "false" is left alone. The namespace kube-system must exist.
func (p Policy) Ensure(client kubernetes.Interface) error {
	api := client.RbacV1()
	var steps []func() error
	for _, r := range p.ClusterRoles {
		steps = append(steps, role(reconciliation.ClusterRoleRuleOwner{ClusterRole: r},
			filling{reconciliation.ClusterRoleModifier{Client: api.ClusterRoles()}, p.ClusterRoles}))
	}
	for _, b := range p.ClusterRoleBindings {
		steps = append(steps, binding(reconciliation.ClusterRoleBindingAdapter{ClusterRoleBinding: b},
			reconciliation.ClusterRoleBindingClientAdapter{Client: api.ClusterRoleBindings()}))
	}
	namespaces := client.CoreV1().Namespaces()
	for _, r := range p.Roles {
		steps = append(steps, role(reconciliation.RoleRuleOwner{Role: r}, reconciliation.RoleModifier{Client: api, NamespaceClient: namespaces}))
	}
	for _, b := range p.RoleBindings {
		steps = append(steps, binding(reconciliation.RoleBindingAdapter{RoleBinding: b},
			reconciliation.RoleBindingClientAdapter{Client: api, NamespaceClient: namespaces}))
	}
	return inParallel(steps)
}

// filling makes roles that gather others with the rules that they will hold, so that nobody finds them empty.
type filling struct {
	reconciliation.ClusterRoleModifier
	all []*rbacv1.ClusterRole
}

// Create implements reconciliation.RuleOwnerModifier.
func (f filling) Create(in reconciliation.RuleOwner) (reconciliation.RuleOwner, error) {
	if in.GetAggregationRule() != nil {
		in = in.DeepCopyRuleOwner()
		in.SetRules(gather(in.GetAggregationRule(), in.GetName(), f.all))
	}
	return f.ClusterRoleModifier.Create(in)
}

// gather returns the rules of the roles that a rule selects, and of what those gather themselves.
func gather(by *rbacv1.AggregationRule, self string, all []*rbacv1.ClusterRole) []rbacv1.PolicyRule {
	var out []rbacv1.PolicyRule
	for _, s := range by.ClusterRoleSelectors {
		for _, r := range all {
			if r.Name == self || !labels.SelectorFromSet(s.MatchLabels).Matches(labels.Set(r.Labels)) {
				continue
			}
			out = append(out, r.Rules...)
			if r.AggregationRule != nil {
				out = append(out, gather(r.AggregationRule, r.Name, all)...)
			}
		}
	}
	return out
}

func role(r reconciliation.RuleOwner, client reconciliation.RuleOwnerModifier) func() error {
	return func() error {
		_, err := (&reconciliation.ReconcileRoleOptions{Role: r, Client: client, Confirm: true}).Run()
		return named(err, r.GetName())
	}
}

func binding(b reconciliation.RoleBinding, client reconciliation.RoleBindingModifier) func() error {
	return func() error {
		_, err := (&reconciliation.ReconcileRoleBindingOptions{RoleBinding: b, Client: client, Confirm: true}).Run()
		return named(err, b.GetName())
	}
}

func named(err error, name string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

func inParallel(steps []func() error) error {
	errs := make([]error, len(steps))
	free := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for i, step := range steps {
		free <- struct{}{}
		wg.Go(func() {
			errs[i] = retry.OnError(retry.DefaultBackoff, func(err error) bool { return apierrors.IsConflict(err) }, step)
			<-free
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
