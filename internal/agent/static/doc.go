// Package static reads Pods that a node runs by itself, without an API server: from a folder of manifests, and from a URL. What they must look like,
// and what is added to them, is as kubelet has it.
//
// It may import api and client-go's types. A folder is followed by inotify; a URL is asked every twenty seconds, kubelet's time, which costs one
// small request, and only where one is set.
package static
