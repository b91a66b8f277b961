package app

import "golang.org/x/sys/unix"

// usualUmask has folders made with the modes that they are meant to have, whatever the umask of the shell that started this process: users of
// a Pod's own, who are nobody on the machine, must find their way to what is the Pod's.
func usualUmask() { unix.Umask(0o022) }
