package bootstrap

import (
	"errors"
	"fmt"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
		steps = append(steps, role(reconciliation.ClusterRoleRuleOwner{ClusterRole: r}, reconciliation.ClusterRoleModifier{Client: api.ClusterRoles()}))
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
