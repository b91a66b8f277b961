package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"carob.dev/carob/test/images/derive"
	"carob.dev/carob/test/registry/serve"
)

// registries are those that the suite names in its references; all are served by one on loopback.
var registries = []string{"docker.io", "registry.k8s.io", "gcr.io", "k8s.gcr.io", "invalid.registry.k8s.io"}

const group = "e2e-test-images/"

// publish puts the images that the suite asks for into the registry, made of the offline busybox, nginx and network (a Debian with programs that
// look at networks), and of the suite's own programs. programs is the folder of those, source that of the suite's test/images.
func publish(r *serve.Registry, programs, source string) error {
	base := map[string]v1.Image{}
	for _, name := range []string{"busybox", "nginx", "network"} {
		var err error
		if base[name], err = r.Image("library/" + name + ":latest"); err != nil {
			return err
		}
	}
	text := map[string]string{}
	for name, path := range map[string]string{
		"agnhost": filepath.Join(programs, "agnhost"), "nnp": filepath.Join(programs, "nonewprivs"), "pause": filepath.Join(programs, "pause"),
		"sh":  filepath.Join(programs, "sh"),
		"crt": filepath.Join(source, "agnhost/porter/localhost.crt"), "key": filepath.Join(source, "agnhost/porter/localhost.key"),
		"nautilus": filepath.Join(source, "nautilus/html/nautilus.jpg"), "nautilus.json": filepath.Join(source, "nautilus/html/data.json"),
		"kitten": filepath.Join(source, "kitten/html/kitten.jpg"), "kitten.json": filepath.Join(source, "kitten/html/data.json"),
	} {
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		text[name] = string(raw)
	}
	shell, err := derive.Busybox(filepath.Join(programs, "../busybox"))
	if err != nil {
		return err
	}
	m := maker{all: map[string]v1.Image{}}
	config, err := base["busybox"].ConfigFile()
	if err != nil {
		return err
	}
	platform, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: config.OS, Architecture: config.Architecture})
	if err != nil {
		return err
	}
	pause := m.make("pause:3.10.2", platform, v1.Config{Entrypoint: []string{"/pause"}, User: "65535:65535"}, derive.File{Path: "pause", Mode: 0o755, Data: text["pause"]})
	private, err := stored(pause)
	if err != nil {
		return err
	}
	agnhost := v1.Config{Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}}
	current := m.make(group+"agnhost:2.66.1", base["network"], agnhost, append(private,
		derive.File{Path: "agnhost", Mode: 0o755, Data: text["agnhost"]}, derive.File{Path: "agnhost-2", Symlink: "agnhost"},
		derive.File{Path: "localhost.crt", Mode: 0o644, Data: text["crt"]}, derive.File{Path: "localhost.key", Mode: 0o644, Data: text["key"]},
		derive.File{Path: "uploads/.keep", Mode: 0o644}, derive.File{Path: "etc/passwd", Mode: 0o644, Data: users}, derive.File{Path: "etc/group", Mode: 0o644, Data: groups})...)
	// Each further one has another digest, by a file or by its configuration.
	m.make(group+"agnhost:2.55", current, agnhost, derive.File{Path: "previous", Mode: 0o644, Data: "2.55\n"})
	page := v1.Config{Entrypoint: agnhost.Entrypoint, Cmd: []string{"test-webserver"}}
	m.make(group+"nautilus:1.8", current, page, derive.File{Path: "nautilus.jpg", Mode: 0o644, Data: text["nautilus"]},
		derive.File{Path: "data.json", Mode: 0o644, Data: text["nautilus.json"]})
	m.make(group+"kitten:1.8", current, page, derive.File{Path: "kitten.jpg", Mode: 0o644, Data: text["kitten"]},
		derive.File{Path: "data.json", Mode: 0o644, Data: text["kitten.json"]},
		derive.File{Path: "etc/os-release", Mode: 0o644, Data: "NAME=\"Alpine Linux\"\nID=alpine\n"}) // the suite looks for the name
	m.make(group+"glibc-dns-testing:2.1.1", base["network"], v1.Config{Cmd: []string{"bash"}})
	m.make(group+"ipc-utils:1.4", base["network"], v1.Config{Cmd: []string{"sh"}})
	m.make(group+"busybox:1.37.0-2", base["network"], v1.Config{Cmd: []string{"sh"}}, append(shell,
		derive.File{Path: "usr/bin/sh", Mode: 0o755, Data: text["sh"]}, derive.File{Path: "usr/bin/env", Mode: 0o755, Link: "usr/bin/sh"})...)
	m.make(group+"nonroot:1.5", base["busybox"], v1.Config{Cmd: []string{"sh"}, User: "1234"})
	m.make(group+"nonewprivs:1.4", base["busybox"], v1.Config{Cmd: []string{"nnp"}}, derive.File{Path: "usr/local/bin/nnp", Mode: 0o6755, Data: text["nnp"]})
	web, err := base["nginx"].ConfigFile()
	if err != nil {
		return err
	}
	m.make(group+"nginx:1.27.0-2", base["nginx"], web.Config)
	m.make(group+"nginx:1.28.0-2", base["nginx"], web.Config, derive.File{Path: "usr/share/nginx/newer", Mode: 0o644, Data: "1.28.0-2\n"})
	if m.err != nil {
		return m.err
	}
	for _, name := range slices.Sorted(maps.Keys(m.all)) {
		if err := r.Put(name, m.all[name]); err != nil {
			return err
		}
	}
	return nil
}

// maker makes images until the first error.
type maker struct {
	all map[string]v1.Image
	err error
}

func (m *maker) make(name string, from v1.Image, cfg v1.Config, files ...derive.File) v1.Image {
	if m.err != nil {
		return from
	}
	img := from
	if len(files) > 0 {
		img, m.err = derive.With(img, files...)
	}
	if m.err == nil {
		img, m.err = derive.As(img, cfg)
	}
	if m.err != nil {
		m.err = fmt.Errorf("make %s: %w", name, m.err)
		return from
	}
	m.all[name] = img
	return img
}

// The users that the suite expects in agnhost.
const (
	users = "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n" +
		"user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh\n"
	groups = "root:x:0:\ndaemon:x:1:\ntty:x:5:\nshadow:x:42:\nnogroup:x:65534:\nuser-defined-in-image:x:1000:\n" +
		"group-defined-in-image:x:50000:user-defined-in-image\n"
)

// stored are the files of a registry that holds the image as pause:testing, in the layout that agnhost serves when it plays a registry.
func stored(img v1.Image) ([]derive.File, error) {
	const root = "var/registry/pause/"
	at := func(kind string, h v1.Hash, data []byte) derive.File {
		return derive.File{Path: root + kind + "/" + h.Algorithm + "/" + h.Hex[:2] + "/" + h.Hex + "/data", Mode: 0o644, Data: string(data)}
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return nil, err
	}
	name, err := img.ConfigName()
	if err != nil {
		return nil, err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return nil, err
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	files := []derive.File{{Path: root + "manifests/testing", Mode: 0o644, Data: digest.String() + "\n"}, at("manifests", digest, manifest), at("blobs", name, config)}
	for _, l := range layers {
		h, err := l.Digest()
		if err != nil {
			return nil, err
		}
		r, err := l.Compressed()
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			return nil, err
		}
		files = append(files, at("blobs", h, data))
	}
	return files, nil
}
