// Package podstate is the pure core of the node agent: from what a Pod asks for (its object), what is so (Facts) and the time, Decide
// says what is to be done now, what to look at again and when, and what the Pod's status is.
//
// It may import k8s.io/api, apimachinery and component-helpers, and the rules for Pods, does no I/O and reads no clock. Invariants:
//
//   - history is in Facts, which are written down before they are acted upon; nothing is inferred from leftovers;
//   - no action is asked for while one of the same container, or one of the Pod that excludes it, is under way;
//   - a container is never started while an instance of it may still run.
package podstate
