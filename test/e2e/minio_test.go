//go:build e2e && minio

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	corev1 "k8s.io/api/core/v1"

	"carob.dev/carob/test/images/derive"
	"carob.dev/carob/test/registry/serve"
)

// minioImage makes the image minio of the offline debian and the program, as an archive.
func minioImage(t *testing.T, program string) string {
	t.Helper()
	registry, err := serve.Start("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer registry.Stop(t.Context())
	if err := registry.AddFile(filepath.Join(imageFolder, "debian.tar")); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(program)
	if err != nil {
		t.Fatalf("run this with make minio, which builds what it needs: %v", err)
	}
	img, err := registry.Image("library/debian:latest")
	if err == nil {
		img, err = derive.With(img, derive.File{Path: "usr/bin/minio", Mode: 0o755, Data: string(raw)})
	}
	if err == nil {
		img, err = derive.As(img, v1.Config{Entrypoint: []string{"minio"}})
	}
	tag, tagErr := name.NewTag("docker.io/minio/minio:latest")
	if err != nil || tagErr != nil {
		t.Fatal(err, tagErr)
	}
	archive := filepath.Join(t.TempDir(), "minio.tar")
	if err := tarball.WriteToFile(archive, tag, img); err != nil {
		t.Fatal(err)
	}
	return archive
}

// minioPod is minio as the seed shows it: one program beside its pause, with its data in a folder of the machine.
const minioPod = `
apiVersion: v1
kind: Pod
metadata: {name: minio}
spec:
  terminationGracePeriodSeconds: 10
  volumes: [{name: data, hostPath: {path: DATA, type: DirectoryOrCreate}}]
  containers:
  - name: minio
    image: minio/minio
    imagePullPolicy: IfNotPresent
    args: [server, /data, --address, ":9000", --console-address, ":9001"]
    env:
    - {name: MINIO_ROOT_USER, valueFrom: {secretKeyRef: {name: minio, key: user}}}
    - {name: MINIO_ROOT_PASSWORD, valueFrom: {secretKeyRef: {name: minio, key: password}}}
    ports: [{containerPort: 9000}, {containerPort: 9001}]
    readinessProbe: {httpGet: {path: /minio/health/ready, port: 9000}, periodSeconds: 1}
    livenessProbe: {httpGet: {path: /minio/health/live, port: 9000}, initialDelaySeconds: 5}
    volumeMounts: [{name: data, mountPath: /data}]
`

// TestMinio has minio keep an object on a hostPath: its Pod goes, another comes, and the object is there.
func TestMinio(t *testing.T) {
	c := newCluster(t)
	c.up(t)
	s := c.space(t)
	if out, err := c.carob("image", "import", minioImage(t, os.Getenv("MINIO_BINARY"))); err != nil {
		t.Fatalf("carob image import: %v\n%s", err, out)
	}
	data := filepath.Join(c.host.Dir, "minio-data")
	manifest := strings.ReplaceAll(minioPod, "DATA", data)
	s.kubectl("create", "secret", "generic", "minio", "--from-literal=user=carob", "--from-literal=password=a-secret-of-minio")
	// The requests are signed, as S3 wants it.
	var p *corev1.Pod
	s3 := func(path string, more ...string) string {
		t.Helper()
		url := "http://" + p.Status.PodIP + ":9000/" + path
		out, err := s.curl(url, append([]string{"--aws-sigv4", "aws:amz:us-east-1:s3", "--user", "carob:a-secret-of-minio", "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"}, more...)...)
		if err != nil {
			t.Fatalf("ask for %s: %v", path, err)
		}
		return out
	}

	s.apply(manifest)
	p = s.ready("minio")
	if proc := s.mainProcess(p, "minio"); proc.comm != "minio" {
		t.Errorf("the container's first process is %+v", proc)
	}
	s.pause(p, "minio")
	content := filepath.Join(t.TempDir(), "content")
	want := strings.Repeat("The seed of a carob weighs a carat.\n", 100_000)
	if err := os.WriteFile(content, []byte(want), 0o600); err != nil {
		t.Fatal(err)
	}
	s3("seeds", "-X", "PUT")
	s3("seeds/carob", "-T", content)
	if got := s3("seeds/carob"); got != want {
		t.Errorf("%d bytes came back of %d", len(got), len(want))
	}
	if _, err := s.curl("http://" + p.Status.PodIP + ":9000/seeds/carob"); err == nil {
		t.Error("the object was given to somebody who did not sign")
	}

	// The Pod outlives the node's agent.
	c.kill(t)
	if got := s3("seeds/carob"); got != want {
		t.Errorf("without carob: %d bytes of %d", len(got), len(want))
	}
	c.up(t)
	if n := status(s.ready("minio"), "minio").RestartCount; n != 0 {
		t.Errorf("restarted %d times", n)
	}

	// The object outlives the Pod.
	s.kubectl("delete", "pod", "minio")
	if _, err := os.Stat(filepath.Join(data, "seeds", "carob", "xl.meta")); err != nil {
		t.Errorf("on the machine: %v", err)
	}
	s.apply(manifest)
	old := p.UID
	if p = s.ready("minio"); p.UID == old {
		t.Error("it is the same Pod")
	}
	if got := s3("seeds/carob"); got != want {
		t.Errorf("of another Pod: %d bytes of %d", len(got), len(want))
	}
	if got := s3("seeds?list-type=2"); !strings.Contains(got, "<Key>carob</Key>") {
		t.Errorf("the list of objects: %s", got)
	}
}
