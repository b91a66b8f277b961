package probe

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
)

// Hook runs a postStart or preStop handler until it is done or ctx ends. The error is for the log and the container's status.
func (h *Handlers) Hook(ctx context.Context, c clock.Clock, a *corev1.LifecycleHandler, t Target) error {
	switch {
	case a.Exec != nil:
		out, errOut, err := h.exec.ExecSync(ctx, t.ContainerID, a.Exec.Command, 0)
		if err != nil {
			return fmt.Errorf("Exec lifecycle hook (%v) for Container %q failed - error: %w, message: %q", a.Exec.Command, t.Container.Name, err, append(out, errOut...))
		}
		return nil
	case a.HTTPGet != nil:
		o := h.get(ctx, a.HTTPGet, t, "lifecycle", 0)
		if o.Err == nil && !o.OK {
			o.Err = errors.New(o.Output)
		}
		if o.Err != nil {
			return fmt.Errorf("HTTP lifecycle hook (%s) for Container %q failed - error: %w", a.HTTPGet.Path, t.Container.Name, o.Err)
		}
		return nil
	case a.Sleep != nil:
		timer := c.NewTimer(time.Duration(a.Sleep.Seconds) * time.Second)
		defer timer.Stop()
		select {
		case <-timer.C():
			return nil
		case <-ctx.Done():
			return fmt.Errorf("Sleep lifecycle hook (%d) for Container %q failed - error: container terminated before sleep hook finished", a.Sleep.Seconds, t.Container.Name)
		}
	}
	return fmt.Errorf("Cannot run handler: invalid handler: %v", a)
}
