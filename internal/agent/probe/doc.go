// Package probe asks containers how they are (startup, liveness, readiness) and runs their lifecycle hooks: by exec, HTTP, TCP or gRPC.
//
// It may import k8s.io/api, cri-api and grpc. HTTP, TCP and gRPC go from the node to the Pod's address. Words are Kubernetes'.
package probe
