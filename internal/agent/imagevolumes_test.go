package agent

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	critest "k8s.io/cri-api/pkg/apis/testing"
)

// TestImageVolume holds that a container gets the image that it mounts, pulled if need be, and waits with the pull's reason while it cannot be had.
func TestImageVolume(t *testing.T) {
	b := newBench(t)
	p := pod("p", corev1.RestartPolicyAlways, "reads", "apart")
	p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "data:1", PullPolicy: corev1.PullIfNotPresent}}}}
	p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v", SubPath: "in/side"}}
	b.cfg.Images.(*critest.FakeImageService).InjectError("PullImage", errors.New("no such thing"))
	b.create(p)
	b.untilPod("p", "waits for the image alone", func(p *corev1.Pod) bool {
		if len(p.Status.ContainerStatuses) != 2 {
			return false
		}
		w := p.Status.ContainerStatuses[0].State.Waiting
		return w != nil && w.Reason == "ErrImagePull" && strings.Contains(w.Message, "no such thing") && p.Status.ContainerStatuses[1].State.Running != nil
	})
	b.stop() // and so nothing is remembered of the failure
	b.start()
	b.untilPod("p", "runs", running(2))
	b.runtime.mu.Lock()
	defer b.runtime.mu.Unlock()
	for _, c := range b.runtime.containers {
		if c.Metadata.GetName() != "reads" {
			continue
		}
		m := c.config.GetMounts()[0]
		if m.GetContainerPath() != "/v" || m.GetImage().GetImage() == "" || m.GetImage().GetUserSpecifiedImage() != "data:1" || m.GetImageSubPath() != "in/side" ||
			!m.GetReadonly() || m.GetHostPath() != "" {
			t.Errorf("mount %v", m)
		}
	}
}
