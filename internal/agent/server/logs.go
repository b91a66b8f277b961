package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/agent/criconf"
	"carob.dev/carob/internal/agent/logs"
	"carob.dev/carob/internal/agent/podstate"
)

// logRequest is what a request for logs asks for.
type logRequest struct {
	logs.Options
	follow, previous bool
	stream           string
}

func parseLogRequest(q url.Values, now time.Time) (logRequest, error) {
	r := logRequest{follow: q.Get("follow") == "true", previous: q.Get("previous") == "true", stream: q.Get("stream")}
	r.Timestamps = q.Get("timestamps") == "true"
	number := func(name string) (*int64, error) {
		s := q.Get(name)
		if s == "" {
			return nil, nil
		}
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%s: %q is not a number of 0 or more", name, s)
		}
		return &n, nil
	}
	var err error
	if t := q.Get("tail"); t != "" && t != "all" {
		q.Set("tailLines", t)
	}
	if r.Tail, err = number("tailLines"); err != nil {
		return r, err
	}
	if r.Limit, err = number("limitBytes"); err != nil {
		return r, err
	}
	seconds, err := number("sinceSeconds")
	if err != nil {
		return r, err
	}
	if seconds != nil {
		r.Since = now.Add(-time.Duration(*seconds) * time.Second)
	}
	if s := q.Get("sinceTime"); s != "" {
		if r.Since, err = time.Parse(time.RFC3339, s); err != nil {
			return r, fmt.Errorf("sinceTime: %w", err)
		}
	}
	switch r.stream {
	case "", corev1.LogStreamAll, corev1.LogStreamStdout, corev1.LogStreamStderr:
	default:
		return r, fmt.Errorf("invalid stream type %q", r.stream)
	}
	return r, nil
}

func (s *server) logs(w http.ResponseWriter, r *http.Request) {
	v, ok := s.view(w, r)
	if !ok {
		return
	}
	name := r.PathValue("container")
	if _, ok := podstate.Find(v.Pod, name); !ok {
		http.Error(w, fmt.Sprintf("container %q not found in pod %q", name, v.Pod.Name), http.StatusNotFound)
		return
	}
	req, err := parseLogRequest(r.URL.Query(), s.Clock.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	instance, err := v.instance(name, req.previous)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	path := filepath.Join(s.LogsDir, criconf.LogDirectory(v.Pod), criconf.LogPath(name, instance))
	w.Header().Set("Content-Type", "text/plain")
	out := &flusher{w: w}
	out.Write(nil) // headers now: there may be nothing to read for long
	var stdout, stderr io.Writer = out, out
	switch req.stream {
	case corev1.LogStreamStdout:
		stderr = nil
	case corev1.LogStreamStderr:
		stdout = nil
	}
	out.each = req.follow
	if id := v.Logs[name].RunningID; req.follow && id != "" && !req.previous {
		err = s.follow(r.Context(), id, path, req.Options, stdout, stderr)
	} else {
		err = logs.Read(path, req.Options, stdout, stderr)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) && r.Context().Err() == nil {
		s.Log.Info("read a log", "path", path, "error", err)
		fmt.Fprintf(w, "unable to retrieve container logs: %v\n", err)
	}
}

// instance chooses whose log it is.
func (v View) instance(name string, previous bool) (int32, error) {
	i, ok := v.Logs[name]
	if previous {
		if !ok || i.Previous < 0 {
			return 0, fmt.Errorf("previous terminated container %q in pod %q not found", name, v.Pod.Name)
		}
		return i.Previous, nil
	}
	if ok && i.Newest >= 0 {
		return i.Newest, nil
	}
	for _, list := range [][]corev1.ContainerStatus{v.Status.ContainerStatuses, v.Status.InitContainerStatuses, v.Status.EphemeralContainerStatuses} {
		for _, cs := range list {
			if cs.Name != name || cs.State.Waiting == nil {
				continue
			}
			why := cs.State.Waiting.Reason
			switch why {
			case "ErrImagePull":
				why = "image can't be pulled"
			case "ImagePullBackOff":
				why = "trying and failing to pull image"
			}
			return 0, fmt.Errorf("container %q in pod %q is waiting to start: %s", name, v.Pod.Name, why)
		}
	}
	return 0, fmt.Errorf("container %q in pod %q is not available", name, v.Pod.Name)
}

// follow reads until the instance has ended.
func (s *server) follow(ctx context.Context, id, path string, o logs.Options, stdout, stderr io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return logs.Follow(ctx, path, o, stdout, stderr, s.end(ctx, id))
}

// end is closed when the container has ended, or can no longer be heard of.
func (s *server) end(ctx context.Context, id string) <-chan struct{} {
	done := make(chan struct{})
	events := make(chan *runtimeapi.ContainerEventResponse, 64)
	ready := make(chan struct{})
	failed := make(chan struct{})
	go func() {
		defer close(failed)
		if err := s.Runtime.GetContainerEvents(ctx, events, func(runtimeapi.RuntimeService_GetContainerEventsClient) { close(ready) }); err != nil && ctx.Err() == nil {
			s.Log.Warn("hear of the end of a container", "container", id, "error", err)
		}
	}()
	go func() {
		defer close(done)
		select {
		case <-ready:
		case <-failed:
			return
		}
		st, err := s.Runtime.ContainerStatus(ctx, id, false)
		if notFound(err) || err == nil && st.GetStatus().GetState() == runtimeapi.ContainerState_CONTAINER_EXITED {
			return
		}
		for {
			select {
			case <-ctx.Done():
				return
			case <-failed:
				return
			case ev := <-events:
				kind := ev.GetContainerEventType()
				if ev.GetContainerId() == id && (kind == runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT || kind == runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT) {
					return
				}
			}
		}
	}()
	return done
}

// flusher sends what it is given on at once while each is set.
type flusher struct {
	w    http.ResponseWriter
	each bool
	once bool
}

func (f *flusher) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if f.each || !f.once {
		f.once = true
		if fl, ok := f.w.(http.Flusher); ok {
			fl.Flush()
		}
	}
	return n, err
}
