// Package oci decides what a container is: from the CRI's configuration, the image's and the machine's it builds the OCI runtime
// specification. It is pure: no file is read, no call is made; the caller gathers what is needed into Input.
//
// It imports the CRI's and the OCI's types and nothing of the project. A field that is not supported is an error that names it.
// Annotations of Pods never reach the specification: OCI runtimes take orders from them.
package oci
