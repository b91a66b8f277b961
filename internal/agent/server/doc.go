// Package server answers kubelet's HTTP API for the API server: logs, exec, attach, port-forward, statistics.
//
// It may import agent/logs, agent/node, sys, cri-api and cri-streaming. It does not ask who calls; only callers whose identity has been
// checked may reach it. Paths and messages are kubelet's.
package server
