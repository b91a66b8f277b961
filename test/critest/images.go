package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"

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

// publish puts the images that the judge asks for into the registry, as its own recipes make them, on the offline busybox, debian and nginx.
// shell is a busybox that runs other programs rather than its own applets (the one that the offline image has does not), nnp the program
// of package nnp.
func publish(r *serve.Registry, shell, nnp string) error {
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
	debian, err := get("library/debian:latest")
	if err != nil {
		return err
	}
	programs := map[string]string{}
	for name, path := range map[string]string{"shell": shell, "nnp": nnp} {
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		programs[name] = string(raw)
	}
	applets, err := exec.Command(shell, "--list").Output()
	if err != nil {
		return fmt.Errorf("%s --list: %w", shell, err)
	}
	tools := []file{{path: "usr/bin/busybox", mode: 0o755, data: programs["shell"]}}
	for _, a := range strings.Fields(string(applets)) {
		if a == "busybox" {
			continue
		}
		tools = append(tools, file{path: "usr/bin/" + a, mode: 0o755, link: "usr/bin/busybox"})
	}
	e2eBusybox, err := with(debian, tools...) // with Debian's ipcs and pgrep, which its busybox lacks
	if err != nil {
		return err
	}
	e2eNginx, err := with(nginx, file{path: "usr/bin/grep", mode: 0o755, data: programs["shell"]}) // one that takes zeros for text
	if err != nil {
		return err
	}
	httpd, err := as(nginx, v1.Config{Entrypoint: []string{"sh", "-c", "echo in place of httpd; exec nginx -g 'daemon off;'"}, StopSignal: "SIGQUIT"})
	if err != nil {
		return err
	}
	setuid, err := with(busybox, file{path: "nnp", mode: 0o4755, data: programs["nnp"]})
	if err != nil {
		return err
	}
	if setuid, err = as(setuid, v1.Config{Cmd: []string{"/nnp"}}); err != nil {
		return err
	}
	hostNginx, err := with(nginx, file{path: "etc/nginx/conf.d/default.conf", mode: 0o644, data: hostNetworkSite})
	if err != nil {
		return err
	}
	grouped, err := with(busybox,
		file{path: "etc/passwd", mode: 0o644, data: "root:x:0:0:root:/root:/bin/sh\ndefault-user:x:1000:1000::/home/default-user:/bin/sh\n"},
		file{path: "etc/group", mode: 0o644, data: "root:x:0:\ndefault-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n"})
	if err != nil {
		return err
	}
	if grouped, err = as(grouped, v1.Config{User: "1000", Cmd: []string{"sh"}}); err != nil {
		return err
	}
	all := map[string]v1.Image{
		"e2e-test-images/busybox:1.29-2": e2eBusybox, "e2e-test-images/nginx:1.14-2": e2eNginx, "e2e-test-images/httpd:2.4.39-4": httpd,
		"e2e-test-images/nonewprivs:1.3":                        setuid,
		staging + "hostnet-nginx-" + runtime.GOARCH + ":latest": hostNginx,
		staging + "test-image-predefined-group:latest":          grouped,
	}
	for repository, user := range map[string]string{"uid": "1002", "username": "www-data", "uid-group": "1003:www-data", "username-group": "www-data:www-data"} {
		img, err := as(busybox, v1.Config{User: user, Cmd: []string{"sh"}})
		if err != nil {
			return err
		}
		all[staging+"test-image-user-"+repository+":latest"] = img
	}
	// Each of these is an image of its own, by a file of another name; the tags 1, 2 and 3 are one.
	for _, n := range []string{"test-image-latest:latest", "test-image-digest:latest", "test-image-tag:test", "test-image-tag:all", "test-image-1:latest",
		"test-image-2:latest", "test-image-3:latest", "test-image-tags:1", "pause:3.9"} {
		if all[staging+n], err = with(busybox, file{path: "TEST_" + n, mode: 0o644, data: "test\n"}); err != nil {
			return err
		}
	}
	all["pause:3.9"] = all[staging+"pause:3.9"]
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

// as is the image with another configuration, and its environment.
func as(img v1.Image, cfg v1.Config) (v1.Image, error) {
	f, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cfg.Env = f.Config.Env
	return mutate.Config(img, cfg)
}

// file is to be a file with this content, or another name of a file.
type file struct {
	path string
	mode int64
	data string
	link string
}

// with adds a layer of files.
func with(img v1.Image, files ...file) (v1.Image, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: f.path, Mode: f.mode, Size: int64(len(f.data)), Linkname: f.link}
		if f.link != "" {
			h.Typeflag = tar.TypeLink
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, f.data); err != nil {
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
