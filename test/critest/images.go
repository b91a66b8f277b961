package main

import (
	"maps"
	"os"
	"runtime"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"carob.dev/carob/test/images/derive"
	"carob.dev/carob/test/registry/serve"
)

// registries are those that the judge names in its references; all are served by one on loopback.
var registries = []string{"docker.io", "registry.k8s.io", "k8s.gcr.io", "gcr.io"}

const staging = "k8s-staging-cri-tools/"

// publish puts the images that the judge asks for into the registry, as its own recipes make them, on the offline busybox, debian and nginx.
// shell is a busybox that runs other programs rather than its own applets (the one that the offline image has does not), nnp the program
// of package nnp.
func publish(r *serve.Registry, shell, nnp string) error {
	busybox, err := r.Image("library/busybox:latest")
	if err != nil {
		return err
	}
	nginx, err := r.Image("library/nginx:latest")
	if err != nil {
		return err
	}
	debian, err := r.Image("library/debian:latest")
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
	tools, err := derive.Busybox(shell)
	if err != nil {
		return err
	}
	e2eBusybox, err := derive.With(debian, tools...) // with Debian's ipcs and pgrep, which its busybox lacks
	if err != nil {
		return err
	}
	e2eNginx, err := derive.With(nginx, derive.File{Path: "usr/bin/grep", Mode: 0o755, Data: programs["shell"]}) // one that takes zeros for text
	if err != nil {
		return err
	}
	httpd, err := derive.As(nginx, v1.Config{Entrypoint: []string{"sh", "-c", "echo in place of httpd; exec nginx -g 'daemon off;'"}, StopSignal: "SIGQUIT"})
	if err != nil {
		return err
	}
	setuid, err := derive.With(busybox, derive.File{Path: "nnp", Mode: 0o4755, Data: programs["nnp"]})
	if err != nil {
		return err
	}
	if setuid, err = derive.As(setuid, v1.Config{Cmd: []string{"/nnp"}}); err != nil {
		return err
	}
	hostNginx, err := derive.With(nginx, derive.File{Path: "etc/nginx/conf.d/default.conf", Mode: 0o644, Data: hostNetworkSite})
	if err != nil {
		return err
	}
	grouped, err := derive.With(busybox,
		derive.File{Path: "etc/passwd", Mode: 0o644, Data: "root:x:0:0:root:/root:/bin/sh\ndefault-user:x:1000:1000::/home/default-user:/bin/sh\n"},
		derive.File{Path: "etc/group", Mode: 0o644, Data: "root:x:0:\ndefault-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n"})
	if err != nil {
		return err
	}
	if grouped, err = derive.As(grouped, v1.Config{User: "1000", Cmd: []string{"sh"}}); err != nil {
		return err
	}
	all := map[string]v1.Image{
		"e2e-test-images/busybox:1.29-2": e2eBusybox, "e2e-test-images/nginx:1.14-2": e2eNginx, "e2e-test-images/httpd:2.4.39-4": httpd,
		"e2e-test-images/nonewprivs:1.3":                        setuid,
		staging + "hostnet-nginx-" + runtime.GOARCH + ":latest": hostNginx,
		staging + "test-image-predefined-group:latest":          grouped,
	}
	for repository, user := range map[string]string{"uid": "1002", "username": "www-data", "uid-group": "1003:www-data", "username-group": "www-data:www-data"} {
		img, err := derive.As(busybox, v1.Config{User: user, Cmd: []string{"sh"}})
		if err != nil {
			return err
		}
		all[staging+"test-image-user-"+repository+":latest"] = img
	}
	// Each of these is an image of its own, by a file of another name; the tags 1, 2 and 3 are one.
	for _, n := range []string{"test-image-latest:latest", "test-image-digest:latest", "test-image-tag:test", "test-image-tag:all", "test-image-1:latest",
		"test-image-2:latest", "test-image-3:latest", "test-image-tags:1", "pause:3.9"} {
		if all[staging+n], err = derive.With(busybox, derive.File{Path: "TEST_" + n, Mode: 0o644, Data: "test\n"}); err != nil {
			return err
		}
	}
	all["pause:3.9"] = all[staging+"pause:3.9"]
	all[staging+"test-image-tags:2"], all[staging+"test-image-tags:3"] = all[staging+"test-image-tags:1"], all[staging+"test-image-tags:1"]
	for _, repository := range slices.Sorted(maps.Keys(all)) {
		if err := r.Put(repository, all[repository]); err != nil {
			return err
		}
	}
	return nil
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
