// Package criconf turns a Pod into what the runtime is told: the configuration of its sandbox and of each container, environment, hosts
// file, DNS, limits.
//
// It may import agent/podstate, agent/downward, k8s.io/api, component-helpers/resource and cri-api. All of it is pure; what must be read
// from the machine or the API is handed in. Rules and messages are Kubernetes'.
package criconf
