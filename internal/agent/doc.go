// Package agent makes the Pods that are assigned to this node run, and tells the API how they are. Read Run first, then worker.go: one
// worker per Pod decides with podstate and does what it says.
//
// It may import sys, network, runtime's interfaces by way of the CRI, and its own sub-packages; it knows the API through client-go only.
// Invariants:
//
//   - all that a worker knows is changed on its own goroutine; what takes time runs beside it and reports back;
//   - what podstate wants remembered is on disk before it is acted upon;
//   - nothing polls: workers wake by events of the API, the runtime and probes, and by the next deadline;
//   - when the agent ends, Pods run on.
package agent
