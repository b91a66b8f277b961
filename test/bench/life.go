package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// exitTold kills the process of a container and watches for its end in the Pod's status.
func exitTold(ctx context.Context, b *bench) ([]Result, error) {
	c, err := b.carob(ctx)
	if err != nil {
		return nil, err
	}
	var took []time.Duration
	for i := range b.runs {
		d, err := c.exitOnce(ctx, fmt.Sprintf("exit-%d", i))
		if err != nil {
			return nil, err
		}
		took = append(took, d)
	}
	return []Result{millis("exit of a container to the status seen by a watch", 20, took)}, nil
}

func (c *carob) exitOnce(ctx context.Context, name string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	api := c.client.CoreV1().Pods(namespace)
	w, err := api.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		return 0, err
	}
	defer w.Stop()
	p := marked(name)
	if _, err := api.Create(ctx, p, metav1.CreateOptions{}); err != nil {
		return 0, err
	}
	var began time.Time
	for ev := range w.ResultChan() {
		p, ok := ev.Object.(*corev1.Pod)
		switch {
		case !ok || len(p.Status.ContainerStatuses) == 0:
		case p.Status.ContainerStatuses[0].State.Terminated != nil:
			took := time.Since(began)
			_, err := c.deleteOnce(ctx, name)
			return took, err
		case began.IsZero() && p.Status.ContainerStatuses[0].State.Running != nil:
			if err := settle(ctx, 100*time.Millisecond); err != nil { // what its start had written is through
				return 0, err
			}
			pid, err := processOf(name)
			if err != nil {
				return 0, err
			}
			began = time.Now()
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				return 0, err
			}
		}
	}
	return 0, fmt.Errorf("Pod %s: the watch ended before its end was told", name)
}

// killOnce deletes a Pod with no grace, and waits until it is gone and its process, which obeys SIGTERM, has ended. One that does not obey has a
// second, as everywhere in Kubernetes.
func (c *carob) killOnce(ctx context.Context, name string) (time.Duration, error) {
	f, err := c.follow(ctx)
	if err != nil {
		return 0, err
	}
	defer f.stop()
	api := c.client.CoreV1().Pods(namespace)
	if _, err := f.until(ctx, "runs "+name, func() error {
		_, err := api.Create(ctx, marked(name), metav1.CreateOptions{})
		return err
	}); err != nil {
		return 0, err
	}
	if err := settle(ctx, 200*time.Millisecond); err != nil { // the shell has set its trap
		return 0, err
	}
	pid, err := processOf(name)
	if err != nil {
		return 0, err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	began := time.Now()
	if _, err := f.until(ctx, "gone "+name, func() error {
		return api.Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(0))})
	}); err != nil {
		return 0, err
	}
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds())); n != 1 {
		return 0, fmt.Errorf("process %d of Pod %s does not end: %w", pid, name, err)
	}
	return time.Since(began), nil
}

// marked is a Pod that never restarts, whose process processOf finds.
func marked(name string) *corev1.Pod {
	p := pod(name)
	p.Spec.RestartPolicy = corev1.RestartPolicyNever
	p.Spec.Containers[0].Command[2] = ": " + name + "; " + p.Spec.Containers[0].Command[2]
	return p
}

func processOf(name string) (int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		raw, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		for arg := range bytes.SplitSeq(raw, []byte{0}) {
			if strings.HasPrefix(string(arg), ": "+name+";") {
				return pid, nil
			}
		}
	}
	return 0, fmt.Errorf("Pod %s has no process", name)
}

// configMapSeen updates a ConfigMap and looks for the change in the file of a running Pod.
func configMapSeen(ctx context.Context, b *bench) ([]Result, error) {
	c, err := b.carob(ctx)
	if err != nil {
		return nil, err
	}
	const name = "seen"
	maps := c.client.CoreV1().ConfigMaps(namespace)
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"key": "0"}}
	if _, err := maps.Create(ctx, cm, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	p := pod(name)
	p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}}}
	p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
	f, err := c.follow(ctx)
	if err != nil {
		return nil, err
	}
	defer f.stop()
	if _, err := f.until(ctx, "runs "+name, func() (err error) {
		p, err = c.client.CoreV1().Pods(namespace).Create(ctx, p, metav1.CreateOptions{})
		return err
	}); err != nil {
		return nil, err
	}
	file := filepath.Join(c.root, "pods", string(p.UID), "volumes/kubernetes.io~configmap/v/key")
	var took []time.Duration
	for i := range b.runs {
		cm.Data["key"] = strconv.Itoa(i + 1)
		began := time.Now()
		if _, err := maps.Update(ctx, cm, metav1.UpdateOptions{}); err != nil {
			return nil, err
		}
		for {
			raw, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			if string(raw) == cm.Data["key"] {
				break
			}
			if time.Since(began) > patience {
				return nil, fmt.Errorf("%s holds %q", file, raw)
			}
			if err := settle(ctx, time.Millisecond); err != nil {
				return nil, err
			}
		}
		took = append(took, time.Since(began))
		if err := settle(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
	_, err = c.deleteOnce(ctx, name)
	return []Result{millis("update of a ConfigMap to its file in a running Pod", 1000, took)}, err
}

// probed is how many Pods are probed every second.
const probed = 200

// probes measures what probing many Pods every second costs, for each way of probing.
func probes(ctx context.Context, b *bench) ([]Result, error) {
	c, err := b.fresh(ctx, "--node-cidr-mask-size", "23", "--max-pods", "300")
	if err != nil {
		return nil, err
	}
	if _, err := b.carob(ctx); err != nil {
		return nil, err
	}
	port := intstr.FromInt32(8080)
	var list []Result
	for _, kind := range []struct {
		name    string
		budget  float64
		handler *corev1.ProbeHandler
	}{
		{"none", 0, nil},
		{"httpGet", 10, &corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/etc/passwd", Port: port}}},
		{"tcpSocket", 10, &corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: port}}},
		{"exec", 0, &corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}},
	} {
		d := deployment("probes-"+strings.ToLower(kind.name), probed)
		s := &d.Spec.Template.Spec
		s.Containers[0].Command = []string{"httpd", "-f", "-p", "8080", "-h", "/"}
		s.TerminationGracePeriodSeconds = ptr.To(int64(0))
		if kind.handler != nil {
			s.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: *kind.handler, PeriodSeconds: 1, TimeoutSeconds: 10, FailureThreshold: 100}
		}
		if _, err := c.ready(ctx, d); err != nil {
			return nil, err
		}
		if err := settle(ctx, 20*time.Second); err != nil {
			return nil, err
		}
		before, began := c.worked(), time.Now()
		if err := settle(ctx, 30*time.Second); err != nil {
			return nil, err
		}
		after, share := c.worked(), 100/float64(time.Since(began))
		list = append(list, summary(fmt.Sprintf("%d Pods, %s probe every second: the daemon", probed, kind.name), "%", kind.budget, share*float64(after.daemon-before.daemon)),
			summary("  shims, OCI runtime, containers", "%", 0, share*float64(after.pods-before.pods)))
		if _, err := c.scaleDown(ctx, d.Name); err != nil {
			return nil, err
		}
	}
	return list, b.close()
}
