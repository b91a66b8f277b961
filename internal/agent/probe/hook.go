package probe

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
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
		if err := h.call(ctx, a.HTTPGet, t); err != nil {
			return fmt.Errorf("HTTP lifecycle hook (%s) for Container %q failed - error: %w", a.HTTPGet.Path, t.Container.Name, err)
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

// call makes a hook's request. Whatever answers will do; a server that speaks HTTP where HTTPS is asked for is asked again in HTTP, without
// what it could know the caller by.
func (h *Handlers) call(ctx context.Context, a *corev1.HTTPGetAction, t Target) error {
	req, err := h.request(ctx, a, t, "lifecycle")
	if err != nil {
		return err
	}
	client := &http.Client{Transport: h.transport, CheckRedirect: stayOnHost}
	res, err := client.Do(req)
	if err != nil && a.Scheme == corev1.URISchemeHTTPS && strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		req = req.Clone(ctx)
		req.URL.Scheme = "http"
		req.Header.Del("Authorization")
		res, err = client.Do(req)
	}
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(res.Body, maxOutput))
	return err
}
