// Package clusterrole fills cluster roles that gather others: their rules are those of all roles that their selectors choose.
//
// It imports client-go and internal/controller/loop. gather is pure.
package clusterrole

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	rbacapply "k8s.io/client-go/applyconfigurations/rbac/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	rbaclisters "k8s.io/client-go/listers/rbac/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/controller/loop"
)

// Name is the controller's name: of its service account, in the log, and as a field manager.
const Name = "clusterrole-aggregation-controller"

// Config is what the controller needs. Clock is the real one if nil.
type Config struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	Log       *slog.Logger
	Clock     clock.WithTicker
}

// Controller is the controller. Make one with New.
type Controller struct {
	client kubernetes.Interface
	loop   *loop.Loop[string]
	roles  rbaclisters.ClusterRoleLister
	synced cache.DoneChecker
}

// New returns a Controller that listens to the informers.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Informers == nil || cfg.Log == nil {
		return nil, errors.New("cluster role aggregation: client, informers and log are required")
	}
	roles := cfg.Informers.Rbac().V1().ClusterRoles()
	c := &Controller{client: cfg.Client, roles: roles.Lister()}
	c.loop = loop.New(Name, cfg.Clock, cfg.Log, c.sync)
	// Any role may be gathered by any other, before the change or after it.
	changed := func(*rbacv1.ClusterRole) { c.all() }
	h, err := roles.Informer().AddEventHandler(loop.Handlers(changed, func(_, r *rbacv1.ClusterRole) { changed(r) }, changed))
	if err != nil {
		return nil, fmt.Errorf("cluster role aggregation: watch cluster roles: %w", err)
	}
	c.synced = h.HasSyncedChecker()
	return c, nil
}

// Name returns the controller's name.
func (c *Controller) Name() string { return Name }

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx, 1, c.synced) }

func (c *Controller) all() {
	list, _ := c.roles.List(labels.Everything()) // out of memory
	for _, r := range list {
		if r.AggregationRule != nil {
			c.loop.Add(r.Name)
		}
	}
}

func (c *Controller) sync(ctx context.Context, name string) error {
	role, err := c.roles.Get(name)
	if apierrors.IsNotFound(err) || err == nil && role.AggregationRule == nil {
		return nil
	}
	if err != nil {
		return err
	}
	all, err := c.roles.List(labels.Everything())
	if err != nil {
		return err
	}
	rules, err := gather(role, all)
	if err != nil || equality.Semantic.DeepEqual(rules, role.Rules) {
		return err
	}
	apply := rbacapply.ClusterRole(name)
	for _, r := range rules {
		apply.WithRules(rbacapply.PolicyRule().WithVerbs(r.Verbs...).WithAPIGroups(r.APIGroups...).WithResources(r.Resources...).
			WithResourceNames(r.ResourceNames...).WithNonResourceURLs(r.NonResourceURLs...))
	}
	if len(rules) == 0 {
		apply.Rules = []rbacapply.PolicyRuleApplyConfiguration{}
	}
	if _, err := c.client.RbacV1().ClusterRoles().Apply(ctx, apply, metav1.ApplyOptions{FieldManager: Name, Force: true}); err != nil {
		return fmt.Errorf("write the rules of cluster role %s: %w", name, err)
	}
	return nil
}

// gather returns the rules of the roles that role selects, selector by selector, by name, each rule once.
func gather(role *rbacv1.ClusterRole, all []*rbacv1.ClusterRole) ([]rbacv1.PolicyRule, error) {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b *rbacv1.ClusterRole) int { return cmp.Compare(a.Name, b.Name) })
	out := []rbacv1.PolicyRule{}
	for i := range role.AggregationRule.ClusterRoleSelectors {
		selector, err := metav1.LabelSelectorAsSelector(&role.AggregationRule.ClusterRoleSelectors[i])
		if err != nil {
			return nil, err
		}
		for _, r := range all {
			if r.Name == role.Name || !selector.Matches(labels.Set(r.Labels)) {
				continue
			}
			for _, rule := range r.Rules {
				if !slices.ContainsFunc(out, func(have rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(have, rule) }) {
					out = append(out, rule)
				}
			}
		}
	}
	return out, nil
}
