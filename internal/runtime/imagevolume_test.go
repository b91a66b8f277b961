package runtime

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestImageVolume mounts an image, and a folder of it, into a container, in the machine's user namespace and in one of the Pod's own.
func TestImageVolume(t *testing.T) {
	b := newBench(t)
	os.Chmod(filepath.Dir(b.cfg.Root), 0o711) // as the folders of a machine are
	for name, u := range map[string]*runtimeapi.UserNamespace{"plain": nil, "users": users(firstID, 65536)} {
		cfg := b.podConfig("image-volume-" + name)
		cfg.Linux.SecurityContext.NamespaceOptions.UsernsOptions = u
		pod := b.pod(cfg)
		c := containerConfig("main", "sh", "-c", "ls /image/bin/sh /etc-of-image/passwd; echo >/image/x; /image/bin/sh -c 'echo ran'")
		c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = u
		spec := &runtimeapi.ImageSpec{Image: c.Image.Image}
		c.Mounts = append(c.Mounts, &runtimeapi.Mount{ContainerPath: "/image", Readonly: true, Image: spec},
			&runtimeapi.Mount{ContainerPath: "/etc-of-image", Readonly: true, Image: spec, ImageSubPath: "etc"})
		id := b.start(pod, c)
		b.ended(id)
		out := b.log(id)
		for _, want := range []string{"/image/bin/sh", "/etc-of-image/passwd", "ead-only file system", "ran"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in:\n%s", name, want, out)
			}
		}
		if ref := b.status(id).GetMounts()[len(c.Mounts)-1].GetImage().GetImageRef(); ref == "" || !b.UsesImage(ref) {
			t.Errorf("%s: the image of the mount is told as %q", name, ref)
		}
	}
}

func TestBadImageVolumes(t *testing.T) {
	b := newBench(t)
	pod := b.pod(b.podConfig("bad-image-volumes"))
	for want, m := range map[string]*runtimeapi.Mount{
		"readonly":                  {ContainerPath: "/image"},
		"host_path and image":       {ContainerPath: "/image", Readonly: true, HostPath: "/tmp"},
		"propagation":               {ContainerPath: "/image", Readonly: true, Propagation: runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL},
		"must stay within":          {ContainerPath: "/image", Readonly: true, ImageSubPath: "etc/../.."},
		"must stay within the":      {ContainerPath: "/image", Readonly: true, ImageSubPath: "/etc"},
		"no such file or directory": {ContainerPath: "/image", Readonly: true, ImageSubPath: "not-there"},
	} {
		c := containerConfig("main", "true")
		m.Image = &runtimeapi.ImageSpec{Image: c.Image.Image}
		c.Mounts = append(c.Mounts, m)
		if _, err := b.CreateContainer(context.Background(), pod, c, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", m, err, want)
		}
	}
}
