package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"carob.dev/carob/internal/agent/podstate"
	"carob.dev/carob/internal/failpoint"
)

// statusWriter is what a worker remembers of the status it writes. One write is under way at most; what changes meanwhile goes into the
// next, so the last always wins.
type statusWriter struct {
	// last is what was decided last, sent what the API is known to have; both without the conditions of others.
	last, sent *corev1.PodStatus
	// foreign are the conditions of others, as last seen.
	foreign []corev1.PodCondition
	writing bool
	// version is the resourceVersion that sent belongs to.
	version uint64
	retryAt time.Time
	tries   int
	// facts say which conditions are the agent's.
	facts *podstate.Facts
}

func (s *statusWriter) split(status *corev1.PodStatus) (own *corev1.PodStatus, foreign []corev1.PodCondition) {
	own = status.DeepCopy()
	own.Conditions = nil
	for _, c := range status.Conditions {
		if s.facts.Own(c.Type) {
			own.Conditions = append(own.Conditions, c)
		} else {
			foreign = append(foreign, c)
		}
	}
	return own, foreign
}

func (s *statusWriter) init(pod *corev1.Pod, f *podstate.Facts) {
	s.facts = f
	s.start(pod)
}

// start begins with what the API has of the object that the status goes to.
func (s *statusWriter) start(pod *corev1.Pod) {
	s.sent, s.foreign = s.split(&pod.Status)
	if s.last == nil {
		s.last = s.sent
	}
	s.version = versionOf(pod)
}

// versionOf is the Pod's resourceVersion as a number, by which later ones are told from earlier ones; 0 if it is none.
func versionOf(pod *corev1.Pod) uint64 {
	n, _ := strconv.ParseUint(pod.ResourceVersion, 10, 64)
	return n
}

// seen takes over what others have written, unless it is older than what has been written here. So a status that somebody else changes
// (a node that was thought lost) is put right.
func (s *statusWriter) seen(pod *corev1.Pod) {
	own, foreign := s.split(&pod.Status)
	s.foreign = foreign
	if v := versionOf(pod); !s.writing && v > s.version {
		s.sent, s.version = own, v
	}
}

// base is the status that the next one builds on.
func (s *statusWriter) base(pod *corev1.Pod) *corev1.PodStatus {
	base := s.last.DeepCopy()
	base.Conditions = append(base.Conditions, s.foreign...)
	base.Resize = pod.Status.Resize
	base.NominatedNodeName = pod.Status.NominatedNodeName
	base.ResourceClaimStatuses = pod.Status.ResourceClaimStatuses
	return base
}

// writeStatus has the API take the status over, unless it has it.
func (w *worker) writeStatus(ctx context.Context, status corev1.PodStatus) {
	s := &w.status
	s.last, _ = s.split(&status)
	w.facts.StatusWritten = apiequality.Semantic.DeepEqual(s.last, s.sent)
	if w.facts.StatusWritten || s.writing || w.facts.Gone {
		return
	}
	if now := w.a.cfg.Clock.Now(); now.Before(s.retryAt) {
		return
	}
	object := w.object()
	if object == nil { // a static Pod that the API does not show
		w.facts.StatusWritten = true
		return
	}
	patch, err := statusPatch(object.UID, s.sent, s.last)
	if err != nil {
		w.log.Error("make the patch of a status", "error", err)
		return
	}
	s.writing = true
	pod, a, want := object, w.a, s.last
	w.wg.Go(func() {
		failpoint.Hit("agent/status/to-write")
		written, err := a.cfg.Client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		failpoint.Hit("agent/status/written")
		w.post(func() {
			s.writing = false
			switch {
			case uidOf(w.object()) != pod.UID: // another mirror has taken its place
			case err == nil:
				s.sent, s.version, s.retryAt, s.tries = want, versionOf(written), time.Time{}, 0
				s.seen(w.object())
			case apierrors.IsNotFound(err) || apierrors.IsConflict(err):
				// The Pod is gone, or another has its name: the informer will say so. If not, it is tried again.
				s.retryAt = a.cfg.Clock.Now().Add(time.Second)
			case ctx.Err() == nil:
				w.log.Warn("write the Pod's status", "error", err)
				s.retryAt = a.cfg.Clock.Now().Add(min(200*time.Millisecond<<min(s.tries, 8), 30*time.Second))
				s.tries++
			}
		})
	})
}

// statusPatch turns one status into another; it fails on a Pod with another UID.
func statusPatch(uid types.UID, from, to *corev1.PodStatus) ([]byte, error) {
	before, err := json.Marshal(corev1.Pod{Status: *from})
	if err != nil {
		return nil, fmt.Errorf("status patch: %w", err)
	}
	after, err := json.Marshal(corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid}, Status: *to})
	if err != nil {
		return nil, fmt.Errorf("status patch: %w", err)
	}
	return strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Pod{})
}
