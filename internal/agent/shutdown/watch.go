package shutdown

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/agent/podstate"
)

// What is said of Pods; kubelet's words.
const (
	// Rejected and RejectedMessage are of a Pod that comes while the machine is going down.
	Rejected        = "NodeShutdown"
	RejectedMessage = "Pod was rejected as the node is shutting down."

	reason  = "Terminated"
	message = "Pod was terminated in response to imminent node shutdown."
)

// reconnect is how long it waits before it looks for a session manager again that is not there, or has gone.
const reconnect = 30 * time.Second

// Manager is the machine's session manager.
type Manager interface {
	// DelayMax is how long it lets anyone delay a shutdown.
	DelayMax() (time.Duration, error)
	// Delay has shutdowns wait until it is closed, or DelayMax is over.
	Delay() (io.Closer, error)
	// Shutdowns tells true when the machine is about to be shut down and false when it is not any more. It is closed when the manager has gone.
	Shutdowns() <-chan bool
	Close() error
}

// Config is what a Watcher needs. All must be set.
type Config struct {
	Periods []Period
	Open    func(context.Context) (Manager, error)
	// Pods are those that may run.
	Pods func() []Pod
	// End ends a Pod. The channel is closed once nothing of it runs; nil for a Pod that is not there any more.
	End func(types.UID, podstate.End) <-chan struct{}
	// Told waits, for a moment at most, until the API knows how these Pods ended.
	Told func(context.Context, []types.UID)
	// Changed is called when a shutdown begins or is called off.
	Changed func()
	// Recorder writes events about Node.
	Recorder record.EventRecorder
	Node     *corev1.ObjectReference
	Log      *slog.Logger
	Clock    clock.Clock
}

// Watcher waits for the machine's shutdown.
type Watcher struct {
	cfg Config
	now atomic.Bool
}

// New returns a Watcher that does nothing before Run.
func New(cfg Config) *Watcher { return &Watcher{cfg: cfg} }

// Now says that the machine is going down.
func (w *Watcher) Now() bool { return w.now.Load() }

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	said := ""
	for ctx.Err() == nil {
		if err := w.watch(ctx); err != nil && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			w.cfg.Log.Warn("Pods would not be ended gracefully when the machine is shut down: systemd-logind cannot be asked to wait for them", "error", err)
		}
		timer := w.cfg.Clock.NewTimer(reconnect)
		select {
		case <-ctx.Done():
		case <-timer.C():
		}
		timer.Stop()
	}
}

// watch watches as long as the manager is there.
func (w *Watcher) watch(ctx context.Context) error {
	m, err := w.cfg.Open(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	most, err := m.DelayMax()
	if err != nil {
		return err
	}
	if total := Total(w.cfg.Periods); most < total {
		w.cfg.Log.Warn("systemd-logind waits less long for a shutdown than Pods are to have",
			"waits", most, "asked", total, "fix", fmt.Sprintf("write [Login] InhibitDelayMaxSec=%d to /etc/systemd/logind.conf.d/carob.conf and restart systemd-logind", int(total.Seconds())))
	}
	lock, err := m.Delay()
	if err != nil {
		return err
	}
	defer func() { lock.Close() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case down, ok := <-m.Shutdowns():
			if !ok {
				return nil
			}
			w.now.Store(down)
			w.cfg.Changed()
			if !down {
				w.cfg.Recorder.Event(w.cfg.Node, corev1.EventTypeNormal, Rejected, "Shutdown manager detected shutdown cancellation")
				lock.Close()
				if lock, err = m.Delay(); err != nil {
					return err
				}
				continue
			}
			w.cfg.Recorder.Event(w.cfg.Node, corev1.EventTypeNormal, Rejected, "Shutdown manager detected shutdown event")
			w.cfg.Log.Info("the machine is shut down; Pods are ended")
			w.end(ctx)
			lock.Close()
		}
	}
}

// end ends all Pods, group after group, and none waits longer for the one before than that may take.
func (w *Watcher) end(ctx context.Context) {
	var uids []types.UID
	for _, g := range groups(w.cfg.Periods, w.cfg.Pods()) {
		var over []<-chan struct{}
		for _, p := range g.pods {
			uids = append(uids, p.UID)
			if c := w.cfg.End(p.UID, podstate.End{Reason: reason, Message: message, Grace: &p.Grace, Disrupted: true}); c != nil {
				over = append(over, c)
			}
		}
		w.wait(ctx, g.grace, over)
	}
	w.cfg.Told(ctx, uids)
}

func (w *Watcher) wait(ctx context.Context, most time.Duration, over []<-chan struct{}) {
	timer := w.cfg.Clock.NewTimer(most)
	defer timer.Stop()
	for _, c := range over {
		select {
		case <-c:
		case <-timer.C():
			w.cfg.Log.Warn("Pods have not ended in the time that a shutdown gives them", "time", most)
			return
		case <-ctx.Done():
			return
		}
	}
}
