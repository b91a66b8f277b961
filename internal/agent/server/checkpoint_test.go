package server

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	testingclock "k8s.io/utils/clock/testing"
)

// onePod is a node with one Pod, web, of which container main runs and container done does not.
type onePod struct{}

func (onePod) View(namespace, name string, _ types.UID) (View, bool) {
	if namespace != "ns" || name != "web" {
		return View{}, false
	}
	return View{Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}},
		Logs: map[string]Instances{"main": {RunningID: "id1"}, "done": {}}}, true
}

func (onePod) Views() []View { return nil }

// checkpointer writes what it is asked for, or has an error.
type checkpointer struct {
	cri.RuntimeService
	err   error
	asked *runtimeapi.CheckpointContainerRequest
}

func (c *checkpointer) CheckpointContainer(_ context.Context, q *runtimeapi.CheckpointContainerRequest) error {
	c.asked = q
	if c.err != nil {
		return c.err
	}
	return os.WriteFile(q.Location, nil, 0o600)
}

func TestCheckpoint(t *testing.T) {
	cannot := status.Error(codes.Unimplemented, "install criu")
	for name, tc := range map[string]struct {
		path    string
		err     error
		code    int
		says    string
		timeout int64
	}{
		"done":              {"ns/web/main", nil, 200, `{"items":["ROOT/checkpoints/checkpoint-web_ns-main-2026-01-02T03:04:05Z.tar"]}`, 0},
		"with a timeout":    {"ns/web/main?timeout=7&timeout=9", nil, 200, "ROOT/checkpoints/", 9},
		"no such Pod":       {"ns/other/main", nil, 404, `pod "other" does not exist`, 0},
		"no such container": {"ns/web/other", nil, 404, "container other not found in pod ns/web", 0},
		"does not run":      {"ns/web/done", nil, 404, "container done not found in pod ns/web", 0},
		"no number":         {"ns/web/main?timeout=soon", nil, 404, "cannot parse value of timeout parameter", 0},
		"empty number":      {"ns/web/main?timeout=", nil, 404, "cannot parse value of timeout parameter", 0},
		"cannot":            {"ns/web/main", cannot, 500, "checkpointing of ns/web/main failed (rpc error: code = Unimplemented desc = install criu)", 0},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			r := &checkpointer{err: tc.err}
			s := New(Config{Pods: onePod{}, Runtime: r, LogsDir: filepath.Join(root, "logs", "pods"),
				Clock: testingclock.NewFakeClock(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))})
			w := httptest.NewRecorder()
			s.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/checkpoint/"+tc.path, nil))
			if body := strings.ReplaceAll(w.Body.String(), root, "ROOT"); w.Code != tc.code || !strings.Contains(body, tc.says) {
				t.Errorf("%d %s, want %d %s", w.Code, body, tc.code, tc.says)
			}
			if tc.code == 404 && r.asked != nil {
				t.Errorf("asked for %v", r.asked)
			}
			if tc.code == 200 && (r.asked.ContainerId != "id1" || r.asked.Timeout != tc.timeout) {
				t.Errorf("asked for %v", r.asked)
			}
			if st, err := os.Stat(filepath.Join(root, "checkpoints")); err == nil && st.Mode().Perm() != 0o700 {
				t.Errorf("the folder has mode %v", st.Mode())
			}
		})
	}
}
