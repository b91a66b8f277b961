package namespace

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

// findings is what one round of emptying a namespace came to.
type findings struct {
	// discovery is why not all kinds are known.
	discovery error
	// parsing is why a kind's group and version could not be read.
	parsing error
	// deletion are the failures to delete, one per kind.
	deletion []error
	// remaining counts the objects that are left, by resource; finalizers counts what holds them.
	remaining  map[schema.GroupVersionResource]int
	finalizers map[string]int
}

// conditions returns the namespace's conditions after a round: one of each type, Kubernetes' reasons and words, those that did not
// change kept with their times. The bool says whether any differs from before.
func conditions(before []corev1.NamespaceCondition, f findings, now time.Time) ([]corev1.NamespaceCondition, bool) {
	after := slices.Clone(before)
	changed := false
	for _, want := range wanted(f) {
		want.LastTransitionTime = metav1.NewTime(now)
		i := slices.IndexFunc(after, func(c corev1.NamespaceCondition) bool { return c.Type == want.Type })
		switch {
		case i < 0:
			after = append(after, want)
		case after[i].Status == want.Status && after[i].Reason == want.Reason && after[i].Message == want.Message:
			continue
		default:
			if after[i].Status == want.Status {
				want.LastTransitionTime = after[i].LastTransitionTime
			}
			after[i] = want
		}
		changed = true
	}
	return after, changed
}

func wanted(f findings) []corev1.NamespaceCondition {
	return []corev1.NamespaceCondition{
		condition(corev1.NamespaceDeletionDiscoveryFailure, "DiscoveryFailed", discoveryMessage(f.discovery),
			"ResourcesDiscovered", "All resources successfully discovered"),
		condition(corev1.NamespaceDeletionGVParsingFailure, "GroupVersionParsingFailed", message(f.parsing),
			"ParsedGroupVersions", "All legacy kube types successfully parsed"),
		condition(corev1.NamespaceDeletionContentFailure, "ContentDeletionFailed", deletionMessage(f.deletion),
			"ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
		condition(corev1.NamespaceContentRemaining, "SomeResourcesRemain", remainingMessage(f.remaining),
			"ContentRemoved", "All content successfully removed"),
		condition(corev1.NamespaceFinalizersRemaining, "SomeFinalizersRemain", finalizersMessage(f.finalizers),
			"ContentHasNoFinalizers", "All content-preserving finalizers finished"),
	}
}

// condition is true, with badReason, if there is something bad to say.
func condition(t corev1.NamespaceConditionType, badReason, bad, goodReason, good string) corev1.NamespaceCondition {
	if bad == "" {
		return corev1.NamespaceCondition{Type: t, Status: corev1.ConditionFalse, Reason: goodReason, Message: good}
	}
	return corev1.NamespaceCondition{Type: t, Status: corev1.ConditionTrue, Reason: badReason, Message: bad}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func discoveryMessage(err error) string {
	var groups *discovery.ErrGroupDiscoveryFailed
	if errors.As(err, &groups) {
		return fmt.Sprintf("Discovery failed for some groups, %d failing: %v", len(groups.Groups), err)
	}
	return message(err)
}

func deletionMessage(errs []error) string {
	if len(errs) == 0 {
		return ""
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	slices.Sort(texts)
	return fmt.Sprintf("Failed to delete all resource types, %d remaining: %v", len(errs), strings.Join(texts, ", "))
}

func remainingMessage(remaining map[schema.GroupVersionResource]int) string {
	var parts []string
	for gvr, n := range remaining {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s.%s has %d resource instances", gvr.Resource, gvr.Group, n))
		}
	}
	return joined("Some resources are remaining: ", parts)
}

func finalizersMessage(finalizers map[string]int) string {
	var parts []string
	for name, n := range finalizers {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s in %d resource instances", name, n))
		}
	}
	return joined("Some content in the namespace has finalizers remaining: ", parts)
}

func joined(prefix string, parts []string) string {
	if len(parts) == 0 {
		return ""
	}
	slices.Sort(parts)
	return prefix + strings.Join(parts, ", ")
}
