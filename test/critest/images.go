package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"carob.dev/carob/test/registry/serve"
)

// registries are those that the judge names in its references; all are served by one on loopback.
var registries = []string{"docker.io", "registry.k8s.io", "k8s.gcr.io", "gcr.io"}

const staging = "k8s-staging-cri-tools/"

// publish puts the images that the judge asks for into the registry, as its own recipes make them, on the offline busybox and nginx.
func publish(r *serve.Registry) error {
	get := func(repository string) (v1.Image, error) {
		ref, err := reference(r, repository)
		if err != nil {
			return nil, err
		}
		return remote.Image(ref)
	}
	busybox, err := get("library/busybox:latest")
	if err != nil {
		return err
	}
	nginx, err := get("library/nginx:latest")
	if err != nil {
		return err
	}
	hostNginx, err := withFiles(nginx, map[string]string{"etc/nginx/conf.d/default.conf": hostNetworkSite})
	if err != nil {
		return err
	}
	grouped, err := withFiles(busybox, map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\ndefault-user:x:1000:1000::/home/default-user:/bin/sh\n",
		"etc/group":  "root:x:0:\ndefault-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n",
	})
	if err != nil {
		return err
	}
	if grouped, err = as(grouped, "1000"); err != nil {
		return err
	}
	all := map[string]v1.Image{
		"e2e-test-images/busybox:1.29-2": busybox,
		"e2e-test-images/nginx:1.14-2":   nginx,
		"pause:3.9":                      busybox,
		staging + "hostnet-nginx-" + runtime.GOARCH + ":latest": hostNginx,
		staging + "test-image-predefined-group:latest":          grouped,
	}
	for repository, user := range map[string]string{"uid": "1002", "username": "www-data", "uid-group": "1003:www-data", "username-group": "www-data:www-data"} {
		img, err := as(busybox, user)
		if err != nil {
			return err
		}
		all[staging+"test-image-user-"+repository+":latest"] = img
	}
	// Each of these is an image of its own, by a file of another name; the tags 1, 2 and 3 are one.
	for _, n := range []string{"test-image-latest:latest", "test-image-digest:latest", "test-image-tag:test", "test-image-tag:all", "test-image-1:latest",
		"test-image-2:latest", "test-image-3:latest", "test-image-tags:1"} {
		if all[staging+n], err = withFiles(busybox, map[string]string{"TEST_" + n: "test\n"}); err != nil {
			return err
		}
	}
	all[staging+"test-image-tags:2"], all[staging+"test-image-tags:3"] = all[staging+"test-image-tags:1"], all[staging+"test-image-tags:1"]
	for _, repository := range slices.Sorted(maps.Keys(all)) {
		ref, err := reference(r, repository)
		if err != nil {
			return err
		}
		if err := remote.Write(ref, all[repository]); err != nil {
			return fmt.Errorf("publish %s: %w", repository, err)
		}
	}
	return nil
}

func reference(r *serve.Registry, repository string) (name.Reference, error) {
	return name.ParseReference(r.Addr+"/"+repository, name.Insecure)
}

// as is the image with another default user.
func as(img v1.Image, user string) (v1.Image, error) {
	f, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cfg := f.DeepCopy().Config
	cfg.User = user
	return mutate.Config(img, cfg)
}

// withFiles adds a layer of files.
func withFiles(img v1.Image, files map[string]string) (v1.Image, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, path := range slices.Sorted(maps.Keys(files)) {
		if err := w.WriteHeader(&tar.Header{Name: path, Mode: 0o644, Size: int64(len(files[path]))}); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, files[path]); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(img, layer)
}

const hostNetworkSite = `server {
    listen 12003;
    server_name localhost;

    location / {
        root /usr/share/nginx/html;
        index index.html index.htm;
    }
}
`
