//go:build e2e

package e2e

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestImageVolumes mounts images, whole and a folder of one, and one that cannot be had.
func TestImageVolumes(t *testing.T) {
	s := newSpace(t)
	s.apply(podOf("web", "terminationGracePeriodSeconds: 1",
		"volumes: [{name: v, image: {reference: debian, pullPolicy: IfNotPresent}}]",
		"containers:", container("main", forever, mounts("v:/whole", "v:/part:subPath: etc/iproute2"))))
	s.ready("web")
	want(t, "what is in the image", s.sh("web", "", "cat /whole/etc/dpkg/origins/debian; ls /part; (echo x > /whole/f) 2>&1; true"), "Debian", "rt_tables", "Read-only file system")
	s.apply(podOf("never", "terminationGracePeriodSeconds: 1", "volumes: [{name: v, image: {reference: nobody.example/none, pullPolicy: Never}}]",
		"containers:", container("main", forever, mounts("v:/v"))))
	s.event("never", "ErrImageNeverPull", `Container image "nobody.example/none" is not present with pull policy of Never`)
	s.waitPod("never", func(p *corev1.Pod) error {
		if w := status(p, "main").State.Waiting; w == nil || w.Reason != "ErrImageNeverPull" {
			return fmt.Errorf("%+v", status(p, "main").State)
		}
		return nil
	})
	s.apply(podOf("nopath", "terminationGracePeriodSeconds: 1", "volumes: [{name: v, image: {reference: debian, pullPolicy: IfNotPresent}}]",
		"containers:", container("main", forever, mounts("v:/v:subPath: no/such"))))
	s.event("nopath", "Failed", `image_sub_path "no/such"`)
}
