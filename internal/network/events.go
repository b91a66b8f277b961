package network

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// linkEvents hears of links that the kernel removed. It costs nothing while no link changes.
type linkEvents struct{ f *os.File }

func openLinkEvents() (*linkEvents, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open link events: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open link events: %w", err)
	}
	return &linkEvents{f: os.NewFile(uintptr(fd), "link events")}, nil
}

// next blocks until links named as ours are gone and returns their names. lost means that the kernel dropped events: the
// caller must look for itself. The error is os.ErrClosed after close.
func (e *linkEvents) next(buf []byte) (names []string, lost bool, err error) {
	for {
		n, err := e.f.Read(buf)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			return nil, true, nil
		case err != nil:
			return nil, false, err
		}
		if names := removedLinks(buf[:n]); len(names) > 0 {
			return names, false, nil
		}
	}
}

func (e *linkEvents) close() error { return e.f.Close() }

// removedLinks finds the names of our links in a datagram of RTM_DELLINK messages; what it cannot parse it passes over.
func removedLinks(data []byte) []string {
	msgs, err := syscall.ParseNetlinkMessage(data)
	if err != nil {
		return nil
	}
	var names []string
	for i := range msgs {
		// Bridges tell of their ports, whose links stay, by the same message with another family in the first byte.
		if msgs[i].Header.Type != unix.RTM_DELLINK || len(msgs[i].Data) < unix.SizeofIfInfomsg || msgs[i].Data[0] != unix.AF_UNSPEC {
			continue
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(&msgs[i])
		if err != nil {
			continue
		}
		for _, a := range attrs {
			if a.Attr.Type != unix.IFLA_IFNAME {
				continue
			}
			if name := string(bytes.TrimRight(a.Value, "\x00")); strings.HasPrefix(name, linkPrefix) {
				names = append(names, name)
			}
		}
	}
	return names
}
