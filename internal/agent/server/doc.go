// Package server answers kubelet's HTTP API: logs, exec, attach, port-forward, statistics, metrics.
//
// It may import agent/logs, agent/measure, agent/podstate, client-go, cri-api, cri-streaming and the authenticators of k8s.io/apiserver. Handler
// does not ask who calls: it is for callers of this process whose identity has been checked. All others come through Guard, which asks the API
// server who they are and what they may do. Paths, messages and the names of metrics are kubelet's.
package server
