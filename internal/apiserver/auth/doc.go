// Package auth says who a request comes from and what they may do.
//
// Who: a client certificate of the cluster's authority, a service account token, or a client of the same process. What: system:masters and
// the controllers of this process everything, everyone else what roles allow them (package rbac; package bootstrap has the roles that every
// cluster starts with).
// It imports api's types, package inproc and k8s.io/apiserver. Invariant: what nothing allows is refused.
package auth
