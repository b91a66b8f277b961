package pull

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	testclock "k8s.io/utils/clock/testing"
)

// fakeImages pulls what is not failing; block has pulls wait.
type fakeImages struct {
	cri.ImageManagerService

	mu    sync.Mutex
	have  map[string]bool
	pulls []*runtimeapi.AuthConfig
	fail  error
	block chan struct{}
}

func (f *fakeImages) ImageStatus(_ context.Context, s *runtimeapi.ImageSpec, _ bool) (*runtimeapi.ImageStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.have[s.GetImage()] {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	return &runtimeapi.ImageStatusResponse{Image: &runtimeapi.Image{Id: "sha256:" + s.GetImage(), RepoTags: []string{"docker.io/library/" + s.GetImage()},
		RepoDigests: []string{"docker.io/library/x@sha256:1"}, Size: 42}}, nil
}

func (f *fakeImages) PullImage(ctx context.Context, s *runtimeapi.ImageSpec, a *runtimeapi.AuthConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	f.mu.Lock()
	f.pulls = append(f.pulls, a)
	fail, block := f.fail, f.block
	f.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if fail == nil {
		f.have[s.GetImage()] = true
	}
	return s.GetImage(), fail
}

func (f *fakeImages) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.pulls)
}

func setup() (*fakeImages, *record.FakeRecorder, *testclock.FakeClock, *Puller) {
	images := &fakeImages{have: map[string]bool{}}
	rec := record.NewFakeRecorder(100)
	c := testclock.NewFakeClock(time.Unix(1000, 0))
	return images, rec, c, New(images, rec, c)
}

func request(image string, policy corev1.PullPolicy, secrets ...*corev1.Secret) Request {
	return Request{Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}}, Ref: &corev1.ObjectReference{}, Image: image, Policy: policy, Secrets: secrets}
}

func reason(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

func TestPolicies(t *testing.T) {
	images, rec, _, p := setup()
	if _, err := p.Ensure(t.Context(), request("x", corev1.PullNever)); reason(err) != "ErrImageNeverPull" {
		t.Error(err)
	}
	res, err := p.Ensure(t.Context(), request("x", corev1.PullIfNotPresent))
	if err != nil || res.ID != "sha256:x:latest" || res.Name != "docker.io/library/x:latest" || res.Digest != "docker.io/library/x@sha256:1" || !res.Pulled {
		t.Errorf("%+v %v", res, err)
	}
	if _, err := p.Ensure(t.Context(), request("x", corev1.PullIfNotPresent)); err != nil || images.count() != 1 {
		t.Errorf("pulled again: %v", err)
	}
	if _, err := p.Ensure(t.Context(), request("x", corev1.PullAlways)); err != nil || images.count() != 2 {
		t.Errorf("not pulled: %v", err)
	}
	if _, err := p.Ensure(t.Context(), request("No:such:name", corev1.PullAlways)); reason(err) != "InvalidImageName" {
		t.Error(err)
	}
	var all []string
	for len(rec.Events) > 0 {
		all = append(all, <-rec.Events)
	}
	for i, want := range []string{`Warning ErrImageNeverPull Container image "x" is not present with pull policy of Never`, `Normal Pulling Pulling image "x"`,
		`Normal Pulled Successfully pulled image "x" in 0s (0s including waiting). Image size: 42 bytes.`,
		`Normal Pulled Container image "x" already present on machine`} {
		if i >= len(all) || !strings.HasPrefix(all[i], want) {
			t.Errorf("event %d: want %s in\n%s", i, want, strings.Join(all, "\n"))
		}
	}
}

func TestBackoff(t *testing.T) {
	images, _, c, p := setup()
	images.fail = errors.New("boom")
	wait := 10 * time.Second
	for range 7 {
		before := images.count()
		_, err := p.Ensure(t.Context(), request("x", corev1.PullAlways))
		if reason(err) != "ErrImagePull" || images.count() != before+1 {
			t.Fatalf("%v", err)
		}
		c.Step(time.Second)
		_, err = p.Ensure(t.Context(), request("x", corev1.PullAlways))
		var e *Error
		if !errors.As(err, &e) || e.Reason != "ImagePullBackOff" || e.Message != `Back-off pulling image "x": ErrImagePull: boom` || images.count() != before+1 {
			t.Fatalf("%v", err)
		}
		if got := e.RetryAt.Sub(c.Now()) + time.Second; got != wait {
			t.Errorf("waits %v, want %v", got, wait)
		}
		wait = min(2*wait, 5*time.Minute)
		c.SetTime(e.RetryAt)
	}
}

func TestOnePullForAll(t *testing.T) {
	images, _, _, p := setup()
	images.block = make(chan struct{})
	var wg sync.WaitGroup
	impatient, leave := context.WithCancel(t.Context())
	wg.Go(func() {
		if _, err := p.Ensure(impatient, request("x", corev1.PullAlways)); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
	for range 5 {
		wg.Go(func() {
			if _, err := p.Ensure(t.Context(), request("x", corev1.PullAlways)); err != nil {
				t.Error(err)
			}
		})
	}
	waiters := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, r := range p.running {
			return r.waiters
		}
		return 0
	}
	for waiters() < 6 {
		time.Sleep(time.Millisecond)
	}
	leave()
	for waiters() > 5 {
		time.Sleep(time.Millisecond)
	}
	close(images.block)
	wg.Wait()
	if images.count() != 1 {
		t.Errorf("%d pulls", images.count())
	}
}

func TestSecrets(t *testing.T) {
	images, _, _, p := setup()
	secret := &corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(
		`{"auths":{"https://index.docker.io/v1/":{"auth":"aHVi OnB3"},"*.example.com/team":{"username":"t","password":"p"},"reg:5000":{"auth":"dTpw"}}}`)}}
	if _, err := p.Ensure(t.Context(), request("x", corev1.PullAlways, secret)); reason(err) != "ErrImagePull" {
		t.Error("a broken credential went unnoticed")
	}
	secret.Data[corev1.DockerConfigJsonKey] = []byte(strings.ReplaceAll(string(secret.Data[corev1.DockerConfigJsonKey]), " ", ""))
	for image, user := range map[string]string{"busybox": "hub", "docker.io/a/b:1": "hub", "r.example.com/team/x": "t", "r.example.com/other/x": "", "reg:5000/a": "u", "reg/a": "hub"} {
		images.pulls = nil
		if _, err := p.Ensure(t.Context(), request(image, corev1.PullAlways, secret)); err != nil {
			t.Errorf("%s: %v", image, err)
		}
		if len(images.pulls) != 1 || images.pulls[0].GetUsername() != user {
			t.Errorf("%s: pulled with %v, want %q", image, images.pulls, user)
		}
	}
	if _, err := p.Ensure(t.Context(), request("x", corev1.PullAlways, &corev1.Secret{Type: corev1.SecretTypeOpaque})); reason(err) != "ErrImagePull" {
		t.Error("a secret of another type went unnoticed")
	}
}

// The runtime's own names for failures become the reason, as with kubelet.
func TestReasons(t *testing.T) {
	images, _, c, p := setup()
	for text, want := range map[string]*Error{
		"boom":                          {Reason: "ErrImagePull", Message: "boom"},
		"RegistryUnavailable: no route": {Reason: "RegistryUnavailable", Message: "image pull failed for x because the registry is unavailable: no route"},
		"SignatureValidationFailed: no": {Reason: "SignatureValidationFailed", Message: "image pull failed for x because the signature validation failed: no"},
	} {
		images.fail = errors.New(text)
		_, err := p.Ensure(t.Context(), request("x", corev1.PullAlways))
		var got *Error
		if !errors.As(err, &got) || got.Reason != want.Reason || got.Message != want.Message {
			t.Errorf("%s: %v", text, err)
		}
		p.Forget("u")
		c.Step(time.Second)
	}
}

// Who has no fitting secret, or only wrong ones, may still be let in as the node, or as nobody.
func TestNodeLogin(t *testing.T) {
	images, _, _, p := setup()
	secret := &corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(
		`{"auths":{"*.example.com":{"username":"t","password":"p"}}}`)}}
	images.fail = errors.New("no")
	if _, err := p.Ensure(t.Context(), request("a.example.com/x", corev1.PullAlways, secret)); reason(err) != "ErrImagePull" {
		t.Error(err)
	}
	if len(images.pulls) != 2 || images.pulls[0].GetUsername() != "t" || images.pulls[0].GetServerAddress() != "a.example.com" || images.pulls[1] != nil {
		t.Errorf("pulled as %v", images.pulls)
	}
}
