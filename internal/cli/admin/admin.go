// Package admin is the local admin socket: what the commands that steer one Carob on its own machine say to it, over HTTP on a unix
// socket that only root can open. The daemon's side is in the app package.
package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/config"
	"carob.dev/carob/internal/health"
)

// SocketPath is where a Carob listens.
func SocketPath(c config.Config) string { return filepath.Join(c.RunDir(), "admin.sock") }

// Status is what a running Carob tells of itself.
type Status struct {
	// Node is empty where the Pod runtime runs alone.
	Node    string `json:"node"`
	PID     int    `json:"pid"`
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Root    string `json:"root"`
	// Server and Kubeconfig are empty where there is no API server.
	Server     string `json:"server"`
	Kubeconfig string `json:"kubeconfig"`
	// Runtime is what Pods are made with: name, version, and the socket of one that is not Carob's own.
	Runtime  string           `json:"runtime"`
	Ready    bool             `json:"ready"`
	Started  time.Time        `json:"started"`
	Steps    []Step           `json:"steps,omitempty"`
	Problems []health.Problem `json:"problems"`
}

// Step is one step of the start, with the time it took.
type Step struct {
	Name   string `json:"name"`
	Millis int64  `json:"millis"`
}

// Image is one image in the store.
type Image struct {
	ID        string   `json:"id"`
	Tags      []string `json:"tags,omitempty"`
	Digests   []string `json:"digests,omitempty"`
	SizeBytes uint64   `json:"sizeBytes"`
	// UniqueBytes is what no other image has too. Nil where the runtime does not tell.
	UniqueBytes *uint64 `json:"uniqueBytes,omitempty"`
	// Pinned images are not removed to make room.
	Pinned bool `json:"pinned,omitempty"`
}

// Progress is how far a pull has come.
type Progress struct {
	Image string `json:"image"`
	// Bytes of Total have arrived; Total is 0 until it is known.
	Bytes int64 `json:"bytes"`
	Total int64 `json:"total"`
	// Unpacked of Layers are ready.
	Unpacked int `json:"unpacked"`
	Layers   int `json:"layers"`
}

// Event is one line of an answer that is told while it happens. The last one has Done or Error set.
type Event struct {
	Message  string          `json:"message,omitempty"`
	Progress *Progress       `json:"progress,omitempty"`
	Done     bool            `json:"done,omitempty"`
	Error    *health.Problem `json:"error,omitempty"`
}

// endPatience is how long a daemon may take to close its files once its Pods have stopped.
const endPatience = 20 * time.Second

// ErrNotRunning says that no Carob listens for this root.
var ErrNotRunning = errors.New("no carob is running with this root")

// Client talks to one Carob.
type Client struct {
	root string
	http *http.Client
}

// NewClient makes a client for the Carob of that configuration; nothing is dialled yet.
func NewClient(c config.Config) *Client {
	sock := SocketPath(c)
	return &Client{root: c.Root, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "unix", sock)
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
				return nil, errors.Join(ErrNotRunning, err)
			}
			return conn, err
		},
	}}}
}

// NotRunning is ErrNotRunning as a user should read it.
func NotRunning(root string) *health.Problem {
	return &health.Problem{Code: "NotRunning", Severity: health.Error, What: "no carob is running with the root " + root,
		Fix: "start it: carob up -d --root " + root}
}

func (c *Client) do(ctx context.Context, method, path string, query url.Values, body io.Reader) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "carob", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if errors.Is(err, ErrNotRunning) {
		return nil, fmt.Errorf("%w: %w", NotRunning(c.root), ErrNotRunning)
	}
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		var p health.Problem
		raw, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if json.Unmarshal(raw, &p) == nil && p.Code != "" {
			return nil, &p
		}
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, raw)
	}
	return resp, nil
}

func (c *Client) get(ctx context.Context, path string, query url.Values, out any) error {
	resp, err := c.do(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(out)
}

// stream reads events to the last one.
func (c *Client) stream(ctx context.Context, method, path string, query url.Values, body io.Reader, tell func(string)) error {
	return c.follow(ctx, method, path, query, body, tell, func(Progress) {})
}

func (c *Client) follow(
	ctx context.Context, method, path string, query url.Values, body io.Reader, tell func(string), progress func(Progress),
) error {
	resp, err := c.do(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return err
		}
		switch {
		case e.Error != nil:
			return e.Error
		case e.Done:
			return nil
		case e.Progress != nil:
			progress(*e.Progress)
		default:
			tell(e.Message)
		}
	}
	return errors.Join(lines.Err(), io.ErrUnexpectedEOF)
}

// Status asks for the Status.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, c.get(ctx, "/v1/status", nil, &s)
}

// Down stops the Pods gracefully, then the daemon. It returns once the daemon's process has ended.
func (c *Client) Down(ctx context.Context, tell func(string)) error {
	s, err := c.Status(ctx)
	if err != nil {
		return err
	}
	daemon, err := unix.PidfdOpen(s.PID, 0)
	if err != nil {
		return fmt.Errorf("watch the daemon's process %d: %w", s.PID, err)
	}
	defer unix.Close(daemon)
	if err := c.stream(ctx, http.MethodPost, "/v1/down", nil, nil, tell); err != nil {
		return err
	}
	if err := awaitEnd(daemon); err != nil {
		return fmt.Errorf("the daemon's process %d has stopped its Pods: %w", s.PID, err)
	}
	return nil
}

// Kill ends the daemon at once and leaves its Pods as they are. It does nothing where none runs.
func (c *Client) Kill(ctx context.Context) error {
	s, err := c.Status(ctx)
	if errors.Is(err, ErrNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	daemon, err := unix.PidfdOpen(s.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch the daemon's process %d: %w", s.PID, err)
	}
	defer unix.Close(daemon)
	if err := unix.PidfdSendSignal(daemon, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill the daemon's process %d: %w", s.PID, err)
	}
	return awaitEnd(daemon)
}

func awaitEnd(pidfd int) error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(endPatience.Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n == 0:
			return fmt.Errorf("it has not ended within %s", endPatience)
		default:
			return nil
		}
	}
}

// Images lists the images.
func (c *Client) Images(ctx context.Context) ([]Image, error) {
	var l []Image
	return l, c.get(ctx, "/v1/images", nil, &l)
}

// ImportImages reads a docker-archive or an OCI archive and tells each name it brought.
func (c *Client) ImportImages(ctx context.Context, r io.Reader, tell func(string)) error {
	return c.stream(ctx, http.MethodPost, "/v1/images/import", nil, r, tell)
}

// PullImage pulls by reference and tells the image's ID, and meanwhile how far it has come.
func (c *Client) PullImage(ctx context.Context, ref string, tell func(string), progress func(Progress)) error {
	return c.follow(ctx, http.MethodPost, "/v1/images/pull", url.Values{"ref": {ref}}, nil, tell, progress)
}

// RemoveImage removes by reference or ID.
func (c *Client) RemoveImage(ctx context.Context, ref string) error {
	return c.stream(ctx, http.MethodPost, "/v1/images/remove", url.Values{"ref": {ref}}, nil, func(string) {})
}

// ExportImages writes an OCI archive.
func (c *Client) ExportImages(ctx context.Context, refs []string, w io.Writer) error {
	resp, err := c.do(ctx, http.MethodGet, "/v1/images/export", url.Values{"ref": refs}, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	return err
}
