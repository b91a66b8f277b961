package agent

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"carob.dev/carob/internal/agent/pull"
)

// pullVolumes gets the images that the container mounts as volumes, with what else of like applies, and returns their IDs by volume. A
// failure is that of the last one, as Kubernetes tells it.
func (a *Agent) pullVolumes(ctx context.Context, c *corev1.Container, like pull.Request) (map[string]string, error) {
	var ids map[string]string
	var failed error
	for _, v := range like.Pod.Spec.Volumes {
		if v.Image == nil || !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == v.Name }) {
			continue
		}
		like.Image, like.Policy = v.Image.Reference, policyOf(v.Image.PullPolicy)
		res, err := a.puller.Ensure(ctx, like)
		if err != nil {
			failed = err
			continue
		}
		if ids == nil {
			ids = map[string]string{}
		}
		ids[v.Name] = res.ID
	}
	return ids, failed
}

// imageReference is what the Pod calls the image of a volume.
func imageReference(pod *corev1.Pod, volume string) string {
	for _, v := range pod.Spec.Volumes {
		if v.Name == volume && v.Image != nil {
			return v.Image.Reference
		}
	}
	return ""
}
