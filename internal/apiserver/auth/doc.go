// Package auth says who a request comes from and what they may do.
//
// Who: a client certificate of the cluster's authority, a service account token, or a client of the same process. What: until roles can be
// given, administrators and the cluster's own components may do everything, everyone else only what every Kubernetes allows everyone.
// It imports api's types and k8s.io/apiserver. Invariant: who is not named here is refused.
package auth
