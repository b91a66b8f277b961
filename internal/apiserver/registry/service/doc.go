// Package service gives Services what the cluster has to give: a ClusterIP out of the service range, node ports, and their IP family.
//
// It imports the generic registry. Invariants: no address and no port is given to two Services; what a failed, a dry or a superseded
// request took is given back. What is given out is known from the Services themselves, so nothing can disagree with them; it is kept in
// memory, by the one API server that writes them.
package service
