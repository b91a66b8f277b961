package inproc

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"
)

func TestPipeCarriesAllInOrder(t *testing.T) {
	client, server := pipe(nil)
	sent := make([]byte, 5*bufferSize+17)
	if _, err := rand.Read(sent); err != nil {
		t.Fatal(err)
	}
	go func() {
		for part := sent; len(part) > 0; {
			n := min(len(part), 7919)
			if _, err := client.Write(part[:n]); err != nil {
				t.Error(err)
			}
			part = part[n:]
		}
		client.Close()
	}()
	got, err := io.ReadAll(server)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes: %v", len(got), len(sent), err)
	}
}

func TestPipeEnds(t *testing.T) {
	client, server := pipe(nil)
	client.Close()
	if _, err := server.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read from who has gone: %v", err)
	}
	if _, err := server.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("write to who has gone: %v", err)
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read from a closed end: %v", err)
	}
}

func TestPipeDeadlines(t *testing.T) {
	client, server := pipe(nil)
	for name, at := range map[string]time.Time{"past": time.Unix(1, 0), "soon": time.Now().Add(20 * time.Millisecond)} {
		_ = server.SetReadDeadline(at)
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read, %s: %v", name, err)
		}
		_ = client.SetWriteDeadline(at)
		if _, err := client.Write(make([]byte, 2*bufferSize)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write, %s: %v", name, err)
		}
	}
	waiting := make(chan error)
	_ = server.SetReadDeadline(time.Time{})
	client, server = pipe(nil)
	go func() {
		_, err := server.Read(make([]byte, 1))
		waiting <- err
	}()
	_ = server.SetDeadline(time.Unix(1, 0))
	if err := <-waiting; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a deadline set while waiting: %v", err)
	}
	_ = server.SetDeadline(time.Time{})
	if _, err := client.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := server.Read(make([]byte, 1)); err != nil {
		t.Errorf("after the deadline was lifted: %v", err)
	}
}

// TestIdentity serves HTTP of both versions and tells who asks.
func TestIdentity(t *testing.T) {
	l := NewListener()
	known := Authenticator()
	srv := &http.Server{
		ConnContext: ConnContext, Protocols: &http.Protocols{},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			resp, ok, err := known.AuthenticateRequest(r)
			if !ok || err != nil {
				http.Error(w, "who are you", http.StatusUnauthorized)
				return
			}
			io.WriteString(w, r.Proto+" "+resp.User.GetName())
		}),
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	go srv.Serve(l)
	defer srv.Close()
	for _, tt := range []struct {
		name  string
		http2 bool
		want  string
	}{{"a", true, "HTTP/2.0 a"}, {"b", false, "HTTP/1.1 b"}} {
		c := &http.Client{Transport: l.Transport(&user.DefaultInfo{Name: tt.name}, tt.http2)}
		resp, err := c.Get("http://x/")
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(got) != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
	l.Close()
	c := &http.Client{Transport: l.Transport(&user.DefaultInfo{}, true)}
	if _, err := c.Get("http://x/"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("dial a closed listener: %v", err)
	}
}
