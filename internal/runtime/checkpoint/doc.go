// Package checkpoint puts what CRIU wrote of a running container, and what there is to know beside it, into the one archive that Kubernetes'
// tools read (checkpointctl), and tells whether an OCI runtime can be asked for such a thing at all.
//
// It imports nothing of the project. It calls no OCI runtime to checkpoint: that is the runtime's.
package checkpoint
