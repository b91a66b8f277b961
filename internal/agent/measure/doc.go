// Package measure tells what the node, its Pods and their containers use: processor, memory, swap, processes, network, disk.
//
// It may import agent/criconf, agent/podstate, sys, client-go's types and cri-api. It measures when it is asked and remembers no more than
// rates need: nothing here runs by itself. Its words are those of kubelet's Summary (k8s.io/kubelet/pkg/apis/stats/v1alpha1).
package measure
