// Command bench measures what a Carob costs in time and weight, beside what the kernel and the OCI runtime alone cost in the same run on
// the same machine, and holds the medians against their budgets.
//
// It runs inside a test host of its own (run.sh makes one) as root, starts Carobs there and looks at them from outside: through the API, and
// through /proc and the cgroups. Each measurement has a name; -only runs some of them. It may import what the floor needs (pause, the default
// seccomp profile) and Kubernetes' client libraries.
package main
