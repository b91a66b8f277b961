package sys

import "golang.org/x/sys/unix"

// SetHostname names the UTS namespace of the calling thread.
func SetHostname(name string) error { return unix.Sethostname([]byte(name)) }
