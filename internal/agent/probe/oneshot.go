package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// oneShot makes each request over a connection of its own, on the goroutine that asks: less than what net/http's Transport takes for that, which
// counts with hundreds of probes a second. It speaks plain HTTP/1.1 and leaves the rest to otherwise.
type oneShot struct {
	dial      func(ctx context.Context, network, addr string) (net.Conn, error)
	otherwise http.RoundTripper
}

// buffers are used again: garbage would be the larger part of the work.
var buffers = sync.Pool{New: func() any { return &buffer{bufio.NewReaderSize(nil, 4096), bufio.NewWriterSize(nil, 1024)} }}

type buffer struct {
	r *bufio.Reader
	w *bufio.Writer
}

// errTimeout has the words of http.Client.
var errTimeout = fmt.Errorf("%w (Client.Timeout exceeded while awaiting headers)", context.DeadlineExceeded)

// RoundTrip implements http.RoundTripper. The deadline is that of the request's context.
func (o oneShot) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "http" {
		return o.otherwise.RoundTrip(req)
	}
	ctx := req.Context()
	res, err := o.roundTrip(ctx, req)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, errTimeout
	}
	return res, err
}

func (o oneShot) roundTrip(ctx context.Context, req *http.Request) (*http.Response, error) {
	addr := req.URL.Host
	if req.URL.Port() == "" {
		addr = net.JoinHostPort(req.URL.Hostname(), "80")
	}
	conn, err := o.dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	b := buffers.Get().(*buffer)
	// A deadline in the past ends what reads or writes.
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	over := sync.OnceFunc(func() {
		stop()
		b.r.Reset(nil)
		b.w.Reset(nil)
		buffers.Put(b)
	})
	b.r.Reset(conn)
	b.w.Reset(conn)
	req.Close = true // the server need not wait for more
	err = req.Write(b.w)
	if err == nil {
		err = b.w.Flush()
	}
	var res *http.Response
	for err == nil {
		if res, err = http.ReadResponse(b.r, req); err == nil && (res.StatusCode < 100 || res.StatusCode >= 200 || res.StatusCode == http.StatusSwitchingProtocols) {
			res.Body = body{res.Body, conn, over}
			return res, nil
		}
	}
	conn.Close()
	over()
	return nil, err
}

// body ends the connection when it is closed, however much is still to come.
type body struct {
	io.ReadCloser
	conn net.Conn
	over func()
}

func (b body) Close() error {
	err := b.conn.Close()
	b.ReadCloser.Close() // it would read to the end, which has come now
	b.over()
	return err
}
