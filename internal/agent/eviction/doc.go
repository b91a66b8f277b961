// Package eviction decides which Pods a node that runs out of memory, disk or processes ends, and which Pods have used more disk than they may.
// It does as kubelet does: thresholds with grace periods, node conditions that stay for a while, an order of Pods by what they use beyond
// their requests and by priority, and the same messages.
//
// It is pure: it measures nothing and ends nothing (agent/pressure does). It imports the API's types and the types of kubelet's statistics.
package eviction
