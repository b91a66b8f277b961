package systemd

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

const (
	logind        = "org.freedesktop.login1"
	logindPath    = "/org/freedesktop/login1"
	logindManager = logind + ".Manager"
)

// Login is systemd-logind: what knows of a shutdown first, and waits for those who ask it to.
type Login struct {
	conn  *godbus.Conn
	downs chan bool
	close sync.Once
}

// OpenLogin connects to it over the machine's D-Bus. Close must be called.
func OpenLogin(ctx context.Context) (*Login, error) {
	conn, err := godbus.ConnectSystemBus(godbus.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("connect to D-Bus: %w", err)
	}
	l := &Login{conn: conn, downs: make(chan bool, 1)}
	if err := conn.AddMatchSignal(godbus.WithMatchObjectPath(logindPath), godbus.WithMatchInterface(logindManager), godbus.WithMatchMember("PrepareForShutdown")); err != nil {
		l.Close()
		return nil, fmt.Errorf("follow systemd-logind: %w", err)
	}
	signals := make(chan *godbus.Signal, 8)
	conn.Signal(signals)
	go func() {
		defer close(l.downs)
		for s := range signals { // closed with the connection
			if s.Name != logindManager+".PrepareForShutdown" || len(s.Body) != 1 {
				continue
			}
			if down, ok := s.Body[0].(bool); ok {
				select {
				case l.downs <- down:
				case <-conn.Context().Done():
					return
				}
			}
		}
	}()
	return l, nil
}

// DelayMax is how long it lets anyone delay a shutdown: InhibitDelayMaxSec of logind.conf.
func (l *Login) DelayMax() (time.Duration, error) {
	v, err := l.conn.Object(logind, logindPath).GetProperty(logindManager + ".InhibitDelayMaxUSec")
	if err != nil {
		return 0, fmt.Errorf("ask systemd-logind: %w", err)
	}
	n, ok := v.Value().(uint64)
	if !ok {
		return 0, fmt.Errorf("systemd-logind says InhibitDelayMaxUSec is %v", v)
	}
	return time.Duration(n) * time.Microsecond, nil
}

// Delay has shutdowns wait until it is closed, or DelayMax is over.
func (l *Login) Delay() (io.Closer, error) {
	var fd godbus.UnixFD
	err := l.conn.Object(logind, logindPath).Call(logindManager+".Inhibit", 0, "shutdown", "carob", "Pods end first", "delay").Store(&fd)
	if err != nil {
		return nil, fmt.Errorf("have systemd-logind wait: %w", err)
	}
	return os.NewFile(uintptr(fd), "inhibitor"), nil
}

// Shutdowns tells true when the machine is about to be shut down and false when it is not any more. It is closed when the connection has gone.
func (l *Login) Shutdowns() <-chan bool { return l.downs }

// Close ends the connection; delays that were asked for stay until they are closed.
func (l *Login) Close() (err error) {
	l.close.Do(func() { err = l.conn.Close() })
	return err
}
