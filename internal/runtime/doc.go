// Package runtime is the Pod runtime: the CRI's RuntimeService, in process. It makes sandboxes and containers by way of one shim per Pod,
// and keeps on disk what must be known after a restart.
//
// It may import sys, network (its types) and the packages below it. Invariants:
//
//   - a record is written before what it describes is made, and removed after that is gone: New finds and removes what a crash left;
//   - what happens to a process is known from its shim alone, which tells at once and tells again after a restart;
//   - verbs of one sandbox, and of one container, follow each other (turn); the state that all see is guarded by Runtime.mu, which is
//     never held while something is waited for.
package runtime
