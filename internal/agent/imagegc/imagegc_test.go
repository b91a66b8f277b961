package imagegc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	testclock "k8s.io/utils/clock/testing"
)

// fakeNode has images of 10 bytes each on a disk of 1000, of which other is taken by other things.
type fakeNode struct {
	cri.ImageManagerService
	images     []*runtimeapi.Image
	containers []*runtimeapi.Container
	other      int64
	stuck      map[string]bool
	removed    []string
}

func (f *fakeNode) ListImages(context.Context, *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error) {
	return f.images, nil
}

func (f *fakeNode) ListContainers(context.Context, *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	return f.containers, nil
}

func (f *fakeNode) ImageFsInfo(context.Context) (*runtimeapi.ImageFsInfoResponse, error) {
	return &runtimeapi.ImageFsInfoResponse{ImageFilesystems: []*runtimeapi.FilesystemUsage{{FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: "/images"}}}}, nil
}

func (f *fakeNode) RemoveImage(_ context.Context, s *runtimeapi.ImageSpec) error {
	if f.stuck[s.Image] {
		return errors.New("stuck")
	}
	f.removed = append(f.removed, s.Image)
	f.images = slices.DeleteFunc(f.images, func(i *runtimeapi.Image) bool { return i.Id == s.Image })
	return nil
}

func (f *fakeNode) statfs(string) (int64, int64, error) {
	return 1000, 1000 - f.other - 10*int64(len(f.images)), nil
}

func (f *fakeNode) add(ids ...string) {
	for _, id := range ids {
		f.images = append(f.images, &runtimeapi.Image{Id: id, Size: 10, RepoTags: []string{"tag-of-" + id}})
	}
}

func (f *fakeNode) use(ids ...string) {
	f.containers = nil
	for _, id := range ids {
		f.containers = append(f.containers, &runtimeapi.Container{ImageId: id})
	}
}

func setup(p Policy) (*fakeNode, *Collector, *testclock.FakeClock, *record.FakeRecorder) {
	f, clock, rec := &fakeNode{}, testclock.NewFakeClock(time.Unix(1e9, 0)), record.NewFakeRecorder(10)
	return f, New(Config{Images: f, Containers: f, Policy: p, Recorder: rec, Node: &corev1.ObjectReference{}, Log: slog.New(slog.DiscardHandler),
		Clock: clock, Statfs: f.statfs}), clock, rec
}

var usual = Policy{HighPercent: 85, LowPercent: 80, MinAge: 2 * time.Minute}

func TestCollect(t *testing.T) {
	f, c, clock, rec := setup(usual)
	collect := func(want ...string) {
		t.Helper()
		f.removed = nil
		err := c.Collect(t.Context())
		if d := cmp.Diff(want, f.removed); d != "" || err != nil {
			t.Errorf("removed: %s, error %v", d, err)
		}
		clock.Step(lookEvery)
	}
	f.add("a", "b", "c", "d", "e", "pinned")
	f.images[5].Pinned = true
	f.use("a", "b")
	f.other = 780
	collect() // 84 %
	f.use("b")
	collect()
	f.containers = append(f.containers, &runtimeapi.Container{ImageRef: "tag-of-c"})
	f.other = 800
	// 86 %: down to 80 %. d and e were never used; a was, but is no more; b and c are, one pinned.
	f.removed = nil
	if err := c.Collect(t.Context()); err == nil || !strings.Contains(err.Error(), "freed 30 bytes") {
		t.Errorf("error %v", err)
	}
	if d := cmp.Diff([]string{"d", "e", "a"}, f.removed); d != "" {
		t.Error(d)
	}
	if len(rec.Events) != 1 || !strings.HasPrefix(<-rec.Events, "Warning FreeDiskSpaceFailed Insufficient free disk space on the node's image filesystem (86% of 1000.0 B used).") {
		t.Error("no event, or another")
	}
	clock.Step(lookEvery)
	f.other = 770
	collect()
}

// One that has just come is spared, for a Pod may be about to use it.
func TestMinAge(t *testing.T) {
	f, c, clock, _ := setup(usual)
	f.other = 900
	f.add("new")
	if err := c.Collect(t.Context()); err == nil || len(f.removed) > 0 {
		t.Errorf("%v: %v", err, f.removed)
	}
	clock.Step(time.Minute)
	_ = c.Collect(t.Context())
	if len(f.removed) > 0 {
		t.Error("removed after a minute")
	}
	clock.Step(time.Minute)
	_ = c.Collect(t.Context())
	if d := cmp.Diff([]string{"new"}, f.removed); d != "" {
		t.Error(d)
	}
}

func TestMaxAge(t *testing.T) {
	p := usual
	p.MaxAge = time.Hour
	f, c, clock, _ := setup(p)
	f.add("used", "unused", "stuck")
	f.stuck = map[string]bool{"stuck": true}
	f.use("used")
	for range 12 {
		if err := c.Collect(t.Context()); err != nil || len(f.removed) > 0 {
			t.Fatalf("%v: %v", err, f.removed)
		}
		clock.Step(lookEvery)
	}
	clock.Step(time.Second)
	if err := c.Collect(t.Context()); err == nil || !strings.Contains(err.Error(), "stuck") {
		t.Errorf("error %v", err)
	}
	if d := cmp.Diff([]string{"unused"}, f.removed); d != "" {
		t.Error(d)
	}
}

func TestNeed(t *testing.T) {
	for _, c := range []struct {
		p                   Policy
		capacity, available int64
		used                int
		bytes               int64
	}{
		{usual, 1000, 160, 84, 0},
		{usual, 1000, 150, 85, 50},
		{usual, 1000, 0, 100, 200},
		{Policy{HighPercent: 100, LowPercent: 80}, 1000, 0, 100, 0},
		{Policy{}, 1000, 1000, 0, 0},
		{Policy{}, 1000, 900, 10, 100},
		{usual, 1 << 62, 1 << 61, 50, 0},
	} {
		if used, bytes := c.p.need(c.capacity, c.available); used != c.used || bytes != c.bytes {
			t.Errorf("%+v: %d %d", c, used, bytes)
		}
	}
}

func TestRun(t *testing.T) {
	f, c, clock, rec := setup(usual)
	f.other = 990
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	var all []string
	for !slices.ContainsFunc(all, func(e string) bool { return strings.HasPrefix(e, "Warning ImageGCFailed") }) {
		if clock.HasWaiters() {
			clock.Step(lookEvery)
		}
		select {
		case e := <-rec.Events:
			all = append(all, e)
		case <-time.After(10 * time.Millisecond):
		}
		if len(all) > 5 {
			t.Fatal(fmt.Sprint(all))
		}
	}
	cancel()
	<-done
}
