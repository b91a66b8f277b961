//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestImages tries where images come from, and what is said when they do not come.
func TestImages(t *testing.T) {
	t.Parallel()
	t.Run("Policies", func(t *testing.T) {
		s := newSpace(t)
		for name, policy := range map[string]string{"always": "Always", "present": "IfNotPresent"} {
			s.apply(podOf(name, "terminationGracePeriodSeconds: 1", "containers:", strings.Replace(container("main", forever), "IfNotPresent", policy, 1)))
			s.ready(name)
		}
		s.event("always", "Pulling", `Pulling image "busybox"`)
		s.event("always", "Pulled", `Successfully pulled image "busybox" in `)
		s.event("present", "Pulled", `Container image "busybox" already present on machine`)
		s.apply(podOf("never", "containers:", "- {name: main, image: 'nobody/nothing:1', imagePullPolicy: Never}"))
		s.waiting("never", "ErrImageNeverPull", `Container image "nobody/nothing:1" is not present with pull policy of Never`)
		p := s.pod("always")
		if c := status(p, "main"); c.Image != "docker.io/library/busybox:latest" || !strings.HasPrefix(c.ImageID, "docker.io/library/busybox@sha256:") {
			t.Errorf("image %q, ID %q", c.Image, c.ImageID)
		}
		// By digest.
		digest := strings.TrimPrefix(status(p, "main").ImageID, "docker.io/library/")
		s.apply(podOf("digest", "terminationGracePeriodSeconds: 1", "containers:", strings.Replace(container("main", forever), "image: busybox", "image: "+digest, 1)))
		s.ready("digest")
	})
	t.Run("Missing", func(t *testing.T) {
		s := newSpace(t)
		s.apply(podOf("web", "containers:", "- {name: main, image: nothing-like-it}", container("good", forever)))
		s.event("web", "Failed", `Failed to pull image "nothing-like-it"`)
		s.event("web", "Failed", "Error: ErrImagePull")
		s.waiting("web", "ImagePullBackOff", `Back-off pulling image "nothing-like-it"`)
		s.event("web", "BackOff", `Back-off pulling image "nothing-like-it"`)
		p := s.pod("web")
		if p.Status.Phase != corev1.PodPending || status(p, "good").State.Running == nil {
			t.Errorf("phase %s; good: %+v", p.Status.Phase, status(p, "good"))
		}
		wantMatch(t, "get pod", s.kubectl("get", "pod", "web"), `^web +1/2 +(ImagePullBackOff|ErrImagePull) +0 +`)
		s.apply(podOf("badname", "containers:", `- {name: main, image: "Bad Name!"}`))
		s.waiting("badname", "InvalidImageName", `couldn't parse image`)
	})
	t.Run("Private", func(t *testing.T) {
		s := newSpace(t)
		image := privateAs + "/library/nginx:1.9"
		s.apply(podOf("without", "containers:", "- {name: main, image: "+image+"}"))
		s.waiting("without", "ImagePullBackOff", "Back-off pulling image")
		s.event("without", "Failed", "Failed to pull image")
		s.kubectl("create", "secret", "docker-registry", "wrong", "--docker-server="+privateAs, "--docker-username=tester", "--docker-password=guess")
		s.apply(podOf("wrong", "imagePullSecrets: [{name: wrong}]", "containers:", "- {name: main, image: "+image+"}"))
		s.event("wrong", "Failed", "401")
		s.kubectl("create", "secret", "docker-registry", "login", "--docker-server="+privateAs, "--docker-username=tester", "--docker-password=secret")
		s.apply(podOf("with", "terminationGracePeriodSeconds: 1", "imagePullSecrets: [{name: login}]", "containers:", "- {name: main, image: "+image+"}"))
		s.ready("with")
		// A service account hands its secrets to its Pods.
		s.kubectl("create", "serviceaccount", "puller")
		s.kubectl("patch", "serviceaccount", "puller", "-p", `{"imagePullSecrets":[{"name":"login"}]}`)
		s.apply(podOf("account", "terminationGracePeriodSeconds: 1", "serviceAccountName: puller", "containers:", "- {name: main, image: "+image+", imagePullPolicy: Always}"))
		s.ready("account")
	})
	t.Run("Import", func(t *testing.T) {
		s := newSpace(t)
		root := s.c.host.Root
		out, err := s.c.carob("image", "import", "--root", root, filepath.Join(imageFolder, "nginx.tar"))
		if err != nil || !strings.Contains(out, "docker.io/library/nginx:1.8") {
			t.Errorf("carob image import: %v\n%s", err, out)
		}
		out, err = s.c.carob("image", "ls", "--root", root)
		if err != nil {
			t.Errorf("carob image ls: %v", err)
		}
		wantMatch(t, "carob image ls", out, `^IMAGE +ID +SIZE +UNIQUE$`, `^docker\.io/library/nginx:1\.8 +[0-9a-f]{12} +[0-9.]+MB +[0-9.]+MB$`)
		s.apply(podOf("web", "terminationGracePeriodSeconds: 1", "containers:", "- {name: main, image: 'nginx:1.8', imagePullPolicy: Never}"))
		s.ready("web")
		archive := filepath.Join(t.TempDir(), "both.tar")
		if out, err := s.c.carob("image", "export", "--root", root, "-f", archive, "busybox", "nginx:1.8"); err != nil {
			t.Errorf("carob image export: %v\n%s", err, out)
		}
		out, err = s.c.carob("image", "import", "--root", root, archive)
		if err != nil || !strings.Contains(out, "docker.io/library/busybox:latest\n") || !strings.Contains(out, "docker.io/library/nginx:1.8\n") {
			t.Errorf("import of what was exported: %v\n%s", err, out)
		}
		out, err = s.c.carob("image", "pull", "--root", root, "nginx:1.9")
		if err != nil || !strings.HasPrefix(out, "sha256:") {
			t.Errorf("carob image pull: %v\n%s", err, out)
		}
		if out, err := s.c.carob("image", "rm", "--root", root, "nothing-like-it"); err == nil || !strings.Contains(out, "not found") {
			t.Errorf("removal of nothing: %v %s", err, out)
		}
		if out, err := s.c.carob("image", "pull", "--root", root, "nothing-like-it"); err == nil || !strings.Contains(out, "not found") {
			t.Errorf("pull of nothing: %v %s", err, out)
		}
		if out, err := s.c.carob("image", "import", "--root", root, "/etc/passwd"); err == nil {
			t.Errorf("a file that is no image was imported: %s", out)
		}
		if out, err := s.c.carob("image", "import", "--root", root, "/no/such/file"); err == nil || !strings.Contains(out, "no such file") {
			t.Errorf("import of no file: %v %s", err, out)
		}
	})
}

// waiting waits until the first container waits for the reason, with a part of the message.
func (s *space) waiting(name, reason, message string) {
	s.Helper()
	s.waitPod(name, func(p *corev1.Pod) error {
		if len(p.Status.ContainerStatuses) == 0 {
			return fmt.Errorf("no status")
		}
		for _, c := range p.Status.ContainerStatuses {
			if w := c.State.Waiting; w != nil && w.Reason == reason && strings.Contains(w.Message, message) {
				return nil
			}
		}
		return fmt.Errorf("%+v", p.Status.ContainerStatuses[0].State)
	})
}
