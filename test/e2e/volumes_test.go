//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestVolumes tries each kind of volume from inside a container.
func TestVolumes(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		name string
		f    func(*testing.T)
	}{
		{"LiveUpdate", volumeLiveUpdate}, {"Modes", volumeModes}, {"DownwardAPI", volumeDownward}, {"Projected", volumeProjected}, {"EmptyDir", volumeEmptyDir},
		{"SubPath", volumeSubPath}, {"HostPath", volumeHostPath}, {"Missing", volumeMissing}, {"Optional", volumeOptional}, {"ReadOnly", volumeReadOnly},
	} {
		t.Run(v.name, v.f)
	}
}

// mounts is a container's mounts: name:path[:more].
func mounts(list ...string) string {
	lines := []string{"volumeMounts:"}
	for _, m := range list {
		f := strings.SplitN(m, ":", 3)
		line := "- {name: " + f[0] + ", mountPath: " + f[1]
		if len(f) == 3 {
			line += ", " + f[2]
		}
		lines = append(lines, line+"}")
	}
	return strings.Join(lines, "\n")
}

func volumeLiveUpdate(t *testing.T) {
	s := newSpace(t)
	s.kubectl("create", "configmap", "cm", "--from-literal=a=one", "--from-literal=b=two")
	s.kubectl("create", "secret", "generic", "sec", "--from-literal=key=hidden")
	s.apply(podOf("web", "terminationGracePeriodSeconds: 1",
		"volumes: [{name: cm, configMap: {name: cm}}, {name: sec, secret: {secretName: sec}}, {name: one, configMap: {name: cm, items: [{key: a, path: deep/er/a}]}}]",
		"containers:", container("main", forever, mounts("cm:/cm", "sec:/sec", "one:/one"))))
	s.ready("web")
	if got := s.sh("web", "", "cat /cm/a /cm/b /sec/key /one/deep/er/a; ls /one"); got != "onetwohiddenonedeep\n" {
		t.Errorf("volumes hold %q", got)
	}
	want(t, "ls -la of a configMap", s.sh("web", "", "ls -la /cm"), "..data -> ..20", "a -> ..data/a")
	start := time.Now()
	s.kubectl("create", "configmap", "cm", "--from-literal=a=three", "--from-literal=c=new", "--dry-run=client", "-o=yaml")
	s.kubectl("patch", "configmap", "cm", "-p", `{"data":{"a":"three","b":null,"c":"new"}}`)
	s.eventually("the change of the configMap", func() error {
		if got := s.sh("web", "", "cat /cm/a /cm/c; ls /cm; cat /one/deep/er/a"); got != "threenewa\nc\nthree" {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("the change was seen after %s", took)
	}
	s.kubectl("patch", "secret", "sec", "-p", `{"stringData":{"key":"shown"}}`)
	s.eventually("the change of the secret", func() error {
		if got := s.sh("web", "", "cat /sec/key"); got != "shown" {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
	if out, _, err := s.try("exec", "web", "--", "sh", "-c", "echo x > /cm/a"); err == nil {
		t.Errorf("a configMap could be written: %s", out)
	}
}

func volumeModes(t *testing.T) {
	s := newSpace(t)
	s.kubectl("create", "configmap", "cm", "--from-literal=a=one", "--from-literal=b=two")
	s.apply(podOf("web", "terminationGracePeriodSeconds: 1", "securityContext: {fsGroup: 2345, runAsUser: 1234, runAsGroup: 1234}",
		"volumes: [{name: cm, configMap: {name: cm, defaultMode: 0400, items: [{key: a, path: a}, {key: b, path: b, mode: 0755}]}}, {name: e, emptyDir: {}}]",
		"containers:", container("main", forever, mounts("cm:/cm", "e:/e"))))
	s.ready("web")
	if got := s.sh("web", "", "stat -L -c '%a %g' /cm/a /cm/b; touch /e/x; stat -c '%u %g' /e/x; id -u; id -G"); got != "440 2345\n755 2345\n1234 2345\n1234\n1234 2345\n" {
		t.Errorf("got %q", got)
	}
}

func volumeDownward(t *testing.T) {
	s := newSpace(t)
	s.apply(podOf("web", "terminationGracePeriodSeconds: 1", `volumes:
- name: d
  downwardAPI:
    items:
    - {path: labels, fieldRef: {fieldPath: metadata.labels}}
    - {path: name, fieldRef: {fieldPath: metadata.name}}
    - {path: cpu, resourceFieldRef: {containerName: main, resource: limits.cpu, divisor: 1m}}`,
		"containers:", container("main", forever, mounts("d:/d"), "resources: {limits: {cpu: 250m, memory: 64Mi}}")))
	s.ready("web")
	if got := s.sh("web", "", "cat /d/name; echo; cat /d/cpu; echo; cat /d/labels"); strings.TrimSpace(got) != "web\n250\nrun=\"web\"" {
		t.Errorf("got %q", got)
	}
	s.kubectl("label", "pod", "web", "more=yes")
	s.eventually("the new label", func() error {
		if got := strings.TrimSpace(s.sh("web", "", "cat /d/labels")); got != "more=\"yes\"\nrun=\"web\"" {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
}

func volumeProjected(t *testing.T) {
	s := newSpace(t)
	s.kubectl("create", "configmap", "cm", "--from-literal=a=one")
	s.kubectl("create", "secret", "generic", "sec", "--from-literal=key=hidden")
	s.apply(podOf("web", "terminationGracePeriodSeconds: 1", `volumes:
- name: p
  projected:
    sources:
    - configMap: {name: cm}
    - secret: {name: sec, items: [{key: key, path: sub/key}]}
    - downwardAPI: {items: [{path: ns, fieldRef: {fieldPath: metadata.namespace}}]}
    - serviceAccountToken: {path: token, expirationSeconds: 600, audience: me}`,
		"containers:", container("main", forever, mounts("p:/p"))))
	s.ready("web")
	if got := s.sh("web", "", "cat /p/a /p/sub/key /p/ns; cut -d. -f1 /p/token | wc -l"); got != "onehidden"+s.ns+"1\n" {
		t.Errorf("got %q", got)
	}
	// The token of every Pod is good for the API, and says who it is.
	token := s.sh("web", "", "cat /var/run/secrets/kubernetes.io/serviceaccount/token")
	out, stderr, _ := s.try("--token="+token, "--kubeconfig=/dev/null", "--server=https://127.0.0.1:6443", "--insecure-skip-tls-verify", "auth", "whoami")
	if !strings.Contains(out, "system:serviceaccount:"+s.ns+":default") && !strings.Contains(stderr, "system:serviceaccount:"+s.ns+":default") {
		t.Errorf("whoami with the Pod's token: %q %q", out, stderr)
	}
	if got := s.sh("web", "", "cat /var/run/secrets/kubernetes.io/serviceaccount/namespace; head -1 /var/run/secrets/kubernetes.io/serviceaccount/ca.crt"); got != s.ns+"-----BEGIN CERTIFICATE-----\n" {
		t.Errorf("got %q", got)
	}
}

func volumeEmptyDir(t *testing.T) {
	s := newSpace(t)
	s.apply(podOf("web", "terminationGracePeriodSeconds: 1",
		"volumes: [{name: disk, emptyDir: {}}, {name: mem, emptyDir: {medium: Memory, sizeLimit: 4Mi}}]",
		"containers:", container("a", forever, mounts("disk:/d", "mem:/m")), container("b", forever, mounts("disk:/other", "mem:/m"))))
	p := s.ready("web")
	s.sh("web", "a", "echo shared > /d/f; chmod 777 /d; stat -f -c %T /m | grep -q tmpfs")
	if got := s.sh("web", "b", "cat /other/f; stat -c %a /other; df -k /m | tail -1 | awk '{print $2}'"); got != "shared\n777\n4096\n" {
		t.Errorf("got %q", got)
	}
	if _, _, err := s.try("exec", "web", "-c", "a", "--", "dd", "if=/dev/zero", "of=/m/big", "bs=1M", "count=8"); err == nil {
		t.Error("8 MiB fit into a volume of 4 MiB")
	}
	folder := filepath.Join(s.c.host.Root, "pods", string(p.UID))
	if _, err := os.Stat(folder); err != nil {
		t.Error(err)
	}
	s.kubectl("delete", "pod", "web")
	s.eventually("the end of the Pod's folder", func() error {
		if _, err := os.Stat(folder); !os.IsNotExist(err) {
			return fmt.Errorf("%s: %v", folder, err)
		}
		return nil
	})
}

func volumeSubPath(t *testing.T) {
	s := newSpace(t)
	s.kubectl("create", "configmap", "cm", "--from-literal=a=one", "--from-literal=b=two")
	s.apply(podOf("web", "terminationGracePeriodSeconds: 1", "volumes: [{name: e, emptyDir: {}}, {name: cm, configMap: {name: cm}}]",
		"containers:", container("main", "echo $(cat /etc/one) > /sub/f; "+forever, mounts("e:/sub:subPath: in/side", "cm:/etc/one:subPath: a", "e:/byname:subPathExpr: $(POD)"),
			"env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]"),
		container("whole", forever, mounts("e:/e"))))
	s.ready("web")
	if got := s.sh("web", "whole", "cat /e/in/side/f; ls -d /e/web"); got != "one\n/e/web\n" {
		t.Errorf("got %q", got)
	}
	want(t, "a subPath that leaves the volume", s.applyRefused(podOf("bad", "volumes: [{name: e, emptyDir: {}}]", "containers:", container("main", forever, mounts("e:/sub:subPath: ../x")))),
		"spec.containers[0].volumeMounts.subPath: Invalid value: \"../x\": must not contain '..'")
	s.apply(podOf("link", "terminationGracePeriodSeconds: 1", "volumes: [{name: e, emptyDir: {}}]",
		"initContainers:", container("evil", "ln -s /etc /e/link", mounts("e:/e")), "containers:", container("main", forever, mounts("e:/sub:subPath: link/passwd"))))
	s.waitPod("link", func(p *corev1.Pod) error {
		if w := status(p, "main").State.Waiting; w == nil || w.Reason != "CreateContainerConfigError" {
			return fmt.Errorf("%+v", status(p, "main").State)
		}
		return nil
	})
}

func volumeHostPath(t *testing.T) {
	s := newSpace(t)
	dir := filepath.Join(s.c.host.Dir, "hostpaths")
	if err := os.MkdirAll(dir+"/dir", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/file", []byte("here\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	good := map[string]string{"dir": "Directory", "file": "File", "newdir": "DirectoryOrCreate", "newfile": "FileOrCreate", "untyped": ""}
	names := []string{}
	for path, kind := range good {
		s.apply(podOf(path, "terminationGracePeriodSeconds: 1", fmt.Sprintf("volumes: [{name: h, hostPath: {path: %s/%s, type: %q}}]", dir, path, kind),
			"containers:", container("main", forever, mounts("h:/h"))))
		names = append(names, path)
	}
	s.apply(podOf("device", "terminationGracePeriodSeconds: 1", `volumes: [{name: h, hostPath: {path: /dev/null, type: CharDevice}}]`, "containers:", container("main", forever, mounts("h:/h"))))
	s.ready(append(names, "device")...)
	for _, path := range []string{"newdir", "newfile", "untyped"} {
		if fi, err := os.Stat(filepath.Join(dir, path)); err != nil || fi.IsDir() != (path != "newfile") {
			t.Errorf("%s: %v %v", path, fi, err)
		}
	}
	if got := s.sh("file", "", "cat /h"); got != "here\n" {
		t.Errorf("file: %q", got)
	}
	s.apply(podOf("wrong", "terminationGracePeriodSeconds: 1", "volumes: [{name: h, hostPath: {path: "+dir+"/file, type: Directory}}]", "containers:", container("main", forever, mounts("h:/h"))))
	s.event("wrong", "FailedMount", `MountVolume.SetUp failed for volume "h" : hostPath type check failed: `+dir+"/file is not a directory")
	s.apply(podOf("none", "terminationGracePeriodSeconds: 1", "volumes: [{name: h, hostPath: {path: "+dir+"/nothing, type: File}}]", "containers:", container("main", forever, mounts("h:/h"))))
	s.event("none", "FailedMount", `hostPath type check failed, `+dir+"/nothing is not a file, unable to determine its type")
	wantMatch(t, "get pod", s.kubectl("get", "pod", "none"), `^none +0/1 +ContainerCreating +0`)
}

func volumeMissing(t *testing.T) {
	s := newSpace(t)
	s.apply(podOf("cm", "terminationGracePeriodSeconds: 1", "volumes: [{name: v, configMap: {name: later}}]", "containers:", container("main", forever, mounts("v:/v"))))
	s.apply(podOf("key", "terminationGracePeriodSeconds: 1", "volumes: [{name: v, configMap: {name: other, items: [{key: none, path: x}]}}]", "containers:", container("main", forever, mounts("v:/v"))))
	s.kubectl("create", "configmap", "other", "--from-literal=a=b")
	s.apply(podOf("sec", "terminationGracePeriodSeconds: 1", "volumes: [{name: v, secret: {secretName: later}}]", "containers:", container("main", forever, mounts("v:/v"))))
	s.event("cm", "FailedMount", `MountVolume.SetUp failed for volume "v" : configmap "later" not found`)
	s.event("sec", "FailedMount", `MountVolume.SetUp failed for volume "v" : secret "later" not found`)
	s.event("key", "FailedMount", "references non-existent config key: none")
	s.kubectl("create", "configmap", "later", "--from-literal=a=b")
	s.kubectl("create", "secret", "generic", "later", "--from-literal=a=b")
	s.ready("cm", "sec")
	want(t, "a mount of no volume", s.applyRefused(podOf("bad", "containers:", container("main", forever, mounts("nobody:/v")))),
		`spec.containers[0].volumeMounts[0].name: Not found: "nobody"`)
}

func volumeOptional(t *testing.T) {
	s := newSpace(t)
	s.apply(podOf("web", "terminationGracePeriodSeconds: 1", "volumes: [{name: v, configMap: {name: later, optional: true}}, {name: s, secret: {secretName: later, optional: true}}]",
		"containers:", container("main", forever, mounts("v:/v", "s:/s"))))
	s.ready("web")
	s.kubectl("create", "configmap", "later", "--from-literal=a=b")
	s.eventually("the configMap that came later", func() error {
		out, stderr, err := s.try("exec", "web", "--", "cat", "/v/a")
		if err != nil || out != "b" {
			return fmt.Errorf("%q %q %v", out, stderr, err)
		}
		return nil
	})
}

func volumeReadOnly(t *testing.T) {
	s := newSpace(t)
	s.apply(podOf("web", "terminationGracePeriodSeconds: 1", "volumes: [{name: v, emptyDir: {}}]",
		"containers:", container("main", forever, mounts("v:/ro:readOnly: true", "v:/rw"), "securityContext: {readOnlyRootFilesystem: true}")))
	s.ready("web")
	got := s.sh("web", "", "echo x > /rw/f && cat /ro/f; (echo y > /ro/f) 2>&1; (echo z > /root/f) 2>&1; true")
	if strings.Count(got, "Read-only file system") != 2 || !strings.HasPrefix(got, "x\n") {
		t.Errorf("got %q", got)
	}
}
