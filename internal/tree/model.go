// Package tree draws what owns what: controllers own Pods through ownerReferences, Pods hold a pause process and containers, containers
// hold processes. One model serves the command line and the web page.
//
// Build is a pure function of what Fetch read from the API. It may import agent/processes for the form of the process reports.
package tree

import (
	"time"

	"carob.dev/carob/internal/agent/processes"
)

// Node is one line of the tree: an API object, a container or a process. Fields are only ever added to its JSON.
type Node struct {
	// Type is object, pause, container or process.
	Type string `json:"type"`
	// APIVersion, Kind, Namespace, Name, UID and Created name an object; Name alone names a container.
	APIVersion string     `json:"apiVersion,omitempty"`
	Kind       string     `json:"kind,omitempty"`
	Namespace  string     `json:"namespace,omitempty"`
	Name       string     `json:"name,omitempty"`
	UID        string     `json:"uid,omitempty"`
	Created    *time.Time `json:"created,omitempty"`
	// Ready and Reason are the object's Ready condition, as True, False, Unknown or empty; Replicas is ready/wanted, as 4/4.
	Ready    string `json:"ready,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Replicas string `json:"replicas,omitempty"`

	Pod       *Pod       `json:"pod,omitempty"`
	Container *Container `json:"container,omitempty"`
	Process   *Process   `json:"process,omitempty"`
	Children  []*Node    `json:"children,omitempty"`
}

// Pod is what a Pod's node tells beside its name.
type Pod struct {
	Phase   string   `json:"phase"`
	IP      string   `json:"ip,omitempty"`
	Node    string   `json:"node,omitempty"`
	Volumes []Volume `json:"volumes,omitempty"`
}

// Volume is one volume of a Pod, as "hostPath /tmp" or "emptyDir".
type Volume struct {
	Name   string `json:"name"`
	Source string `json:"source"`
}

// Container is the state of one container.
type Container struct {
	ID    string `json:"id,omitempty"`
	Image string `json:"image"`
	// Role is container, init, sidecar or ephemeral.
	Role string `json:"role"`
	// State is running, waiting or terminated, with its reason or exit code in Detail.
	State    string `json:"state"`
	Detail   string `json:"detail,omitempty"`
	Ready    bool   `json:"ready"`
	Restarts int32  `json:"restarts"`
	// Mounts are the Pod's volumes that it mounts, as name:path, with :ro where it may only read.
	Mounts []string `json:"mounts,omitempty"`
	// Shares are the namespaces that its processes have in common with pause.
	Shares []string `json:"shares,omitempty"`
}

// Process is one live process.
type Process struct {
	PID      int      `json:"pid"`
	Comm     string   `json:"comm"`
	Command  []string `json:"command,omitempty"`
	RSSBytes int64    `json:"rssBytes"`
	// Shares are the namespaces in common with pause; of pause itself, those that it holds for the Pod.
	Shares []string `json:"shares,omitempty"`
}

// Tree is the whole picture.
type Tree struct {
	Roots []*Node `json:"roots"`
	// Warnings say what could not be read: a node whose agent did not answer, a kind that could not be listed.
	Warnings []string `json:"warnings,omitempty"`
}

// Input is all that Build looks at.
type Input struct {
	Objects []Object
	Reports []processes.Report
}
