// Package pull sees to it that a container's image is on the node: pull policies, secrets, one pull of an image at a time, back-off, and
// Kubernetes' events about it.
//
// It may import k8s.io/api, client-go's recorder, cri-api, and how registries' logins are written. Invariants: a caller that gives up does not end a pull that others wait
// for; nothing is pulled twice at the same time.
package pull

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/name"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/runtime/image/login"
)

// Waits between pulls of an image that fail for one Pod.
const (
	firstBackoff = 10 * time.Second
	maxBackoff   = 5 * time.Minute
)

// Error is why an image is not there: a waiting reason and message of Kubernetes'.
type Error struct {
	Reason, Message string
	// RetryAt is when to ask again.
	RetryAt time.Time
}

// Error is the reason and the message.
func (e *Error) Error() string { return e.Reason + ": " + e.Message }

// Result is an image that is on the node.
type Result struct {
	// ID is the image's ID. Name is a name that it has in the registry, to show.
	ID, Name, Digest string
	// UID is the numeric user that the image names, Username another.
	UID      *int64
	Username string
	// Pulled says that it was not there before.
	Pulled bool
}

// Request is one container's need for an image.
type Request struct {
	Pod *corev1.Pod
	// Ref is what events are about.
	Ref     *corev1.ObjectReference
	Image   string
	Policy  corev1.PullPolicy
	Secrets []*corev1.Secret
	Sandbox *runtimeapi.PodSandboxConfig
}

// Puller gets images.
type Puller struct {
	images   cri.ImageManagerService
	recorder record.EventRecorder
	clock    clock.Clock

	mu      sync.Mutex // guards all below
	running map[string]*run
	backoff map[string]*backoff
}

// run is one pull under way.
type run struct {
	done    chan struct{}
	err     error
	took    time.Duration
	waiters int
	cancel  context.CancelFunc
}

type backoff struct {
	wait    time.Duration
	until   time.Time
	lastErr string
}

// New returns a Puller.
func New(images cri.ImageManagerService, recorder record.EventRecorder, c clock.Clock) *Puller {
	return &Puller{images: images, recorder: recorder, clock: c, running: map[string]*run{}, backoff: map[string]*backoff{}}
}

// Ensure returns the image, pulled if the policy wants that. Errors other than those of ctx are *Error.
func (p *Puller) Ensure(ctx context.Context, r Request) (Result, error) {
	image, err := withTag(r.Image)
	if err != nil {
		msg := fmt.Sprintf("Failed to apply default image tag %q: %v", r.Image, err)
		p.event(r, corev1.EventTypeWarning, "InspectFailed", msg)
		return Result{}, p.failed("InvalidImageName", msg)
	}
	if r.Policy != corev1.PullAlways {
		res, err := p.find(ctx, image)
		if err != nil {
			msg := fmt.Sprintf("Failed to inspect image %q: %v", image, message(err))
			p.event(r, corev1.EventTypeWarning, "InspectFailed", msg)
			return Result{}, p.failed("ImageInspectError", msg)
		}
		if res.ID != "" {
			p.event(r, corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", r.Image))
			return res, nil
		}
		if r.Policy == corev1.PullNever {
			msg := fmt.Sprintf("Container image %q is not present with pull policy of Never", r.Image)
			p.event(r, corev1.EventTypeWarning, "ErrImageNeverPull", msg)
			return Result{}, p.failed("ErrImageNeverPull", msg)
		}
	}
	return p.pull(ctx, r, image)
}

func (p *Puller) failed(reason, msg string) *Error {
	return &Error{Reason: reason, Message: msg, RetryAt: p.clock.Now().Add(firstBackoff)}
}

func (p *Puller) event(r Request, kind, reason, msg string) {
	p.recorder.Event(r.Ref, kind, reason, msg)
}

// find returns an image of the node; a zero Result if it is not there.
func (p *Puller) find(ctx context.Context, image string) (Result, error) {
	resp, err := p.images.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: image}, false)
	if status.Code(err) == codes.NotFound {
		return Result{}, nil
	}
	if err != nil {
		return Result{}, err
	}
	i := resp.GetImage()
	if i == nil {
		return Result{}, nil
	}
	res := Result{ID: i.GetId(), Name: image, Digest: i.GetId(), Username: i.GetUsername()}
	if i.GetUid() != nil {
		uid := i.GetUid().GetValue()
		res.UID = &uid
	}
	for _, tag := range i.GetRepoTags() {
		if tag == image || strings.HasSuffix(tag, "/"+image) {
			res.Name = tag
		}
	}
	for n, d := range i.GetRepoDigests() {
		if n == 0 || strings.HasPrefix(d, repository(image)+"@") {
			res.Digest = d
		}
	}
	return res, nil
}

// repository is a name in full, without tag and digest.
func repository(image string) string {
	n, err := reference.ParseDockerRef(image)
	if err != nil {
		return image
	}
	return n.Name()
}

func (p *Puller) pull(ctx context.Context, r Request, image string) (Result, error) {
	key := string(r.Pod.UID) + "_" + image
	now := p.clock.Now()
	p.mu.Lock()
	b := p.backoff[key]
	if b != nil && now.Before(b.until) {
		msg := fmt.Sprintf("Back-off pulling image %q", r.Image)
		e := &Error{Reason: "ImagePullBackOff", Message: msg + ": " + b.lastErr, RetryAt: b.until}
		p.mu.Unlock()
		p.event(r, corev1.EventTypeNormal, "BackOff", msg)
		p.event(r, corev1.EventTypeWarning, "Failed", "Error: ImagePullBackOff")
		return Result{}, e
	}
	p.mu.Unlock()
	creds, err := credentials(r.Secrets)
	if err != nil {
		return Result{}, p.failed("ErrImagePull", err.Error())
	}
	p.event(r, corev1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", r.Image))
	took, err := p.share(ctx, r, image, creds)
	if ctx.Err() != nil {
		return Result{}, ctx.Err()
	}
	var res Result
	if err == nil {
		if res, err = p.find(ctx, image); err == nil && res.ID == "" {
			err = errors.New("the image was pulled but is not there")
		}
	}
	if err != nil {
		text := message(err)
		p.event(r, corev1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %v", r.Image, text))
		reason, text := explain(r.Image, text)
		p.event(r, corev1.EventTypeWarning, "Failed", "Error: "+reason)
		return Result{}, p.penalise(key, reason, text)
	}
	p.mu.Lock()
	delete(p.backoff, key)
	p.mu.Unlock()
	waited := p.clock.Now().Sub(now).Truncate(time.Millisecond)
	p.event(r, corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Successfully pulled image %q in %v (%v including waiting). Image size: %v bytes.",
		r.Image, min(took.Truncate(time.Millisecond), waited), waited, p.size(ctx, image)))
	res.Pulled = true
	return res, nil
}

// explain gives a failure Kubernetes' name: runtimes put those of the CRI in front of what they say.
func explain(image, text string) (reason, message string) {
	for name, why := range map[string]string{
		crierrors.ErrRegistryUnavailable.Error():       "the registry is unavailable",
		crierrors.ErrSignatureValidationFailed.Error(): "the signature validation failed",
	} {
		if rest, ok := strings.CutPrefix(text, name); ok {
			return name, fmt.Sprintf("image pull failed for %s because %s%s", image, why, rest)
		}
	}
	return "ErrImagePull", text
}

// penalise makes the Pod wait longer for each failure. The failure itself is told first, the waiting at the next attempt.
func (p *Puller) penalise(key, reason, text string) *Error {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.backoff[key]
	if b == nil {
		b = &backoff{}
		p.backoff[key] = b
	}
	now := p.clock.Now()
	b.wait = min(max(firstBackoff, 2*b.wait), maxBackoff)
	b.until, b.lastErr = now.Add(b.wait), reason+": "+text
	return &Error{Reason: reason, Message: text, RetryAt: now.Add(time.Second)}
}

// Forget drops what is remembered of a Pod.
func (p *Puller) Forget(uid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key := range p.backoff {
		if strings.HasPrefix(key, uid+"_") {
			delete(p.backoff, key)
		}
	}
}

func (p *Puller) size(ctx context.Context, image string) uint64 {
	resp, err := p.images.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: image}, false)
	if err != nil {
		return 0
	}
	return resp.GetImage().GetSize()
}

// share pulls the image, or waits for a pull of the same image with the same credentials that is under way. The pull ends with the last
// that waits for it.
func (p *Puller) share(ctx context.Context, r Request, image string, creds []login.Login) (time.Duration, error) {
	fitting := login.Fitting(creds, image)
	key := image
	for _, a := range fitting {
		key += "\x00" + a.String()
	}
	p.mu.Lock()
	x := p.running[key]
	if x == nil {
		pullCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		x = &run{done: make(chan struct{}), cancel: cancel}
		p.running[key] = x
		go func() {
			defer cancel()
			began := p.clock.Now()
			err := p.try(pullCtx, r, image, fitting)
			p.mu.Lock()
			x.err, x.took = err, p.clock.Now().Sub(began)
			if p.running[key] == x {
				delete(p.running, key)
			}
			p.mu.Unlock()
			close(x.done)
		}()
	}
	x.waiters++
	p.mu.Unlock()
	select {
	case <-x.done:
		return x.took, x.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if x.waiters--; x.waiters == 0 {
		x.cancel()
		if p.running[key] == x {
			delete(p.running, key)
		}
	}
	return 0, ctx.Err()
}

// try pulls with each of the credentials in turn, and last without any: then the runtime may have a login of the node's own. It tells what
// was said to the credentials, if there are any.
func (p *Puller) try(ctx context.Context, r Request, image string, auths []*runtimeapi.AuthConfig) error {
	var first error
	for _, a := range append(auths, nil) {
		_, err := p.images.PullImage(ctx, &runtimeapi.ImageSpec{Image: image, UserSpecifiedImage: r.Image}, a, r.Sandbox)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// message is an error's text without the gRPC dressing.
func message(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}

// withTag adds :latest to a name that has neither tag nor digest.
func withTag(image string) (string, error) {
	if _, err := name.ParseReference(image, name.WeakValidation); err != nil {
		return "", fmt.Errorf("couldn't parse image name %q: %w", image, err)
	}
	if strings.Contains(image, "@") || strings.LastIndexByte(image, ':') > strings.LastIndexByte(image, '/') {
		return image, nil
	}
	return image + ":latest", nil
}
