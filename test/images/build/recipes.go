package main

import (
	"archive/tar"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The packages of each layer. Dependencies are written out: nothing is installed, so nothing is resolved.
var (
	basePackages = []string{
		"base-files", "base-passwd", "bash", "coreutils", "dash", "debianutils", "diffutils", "findutils", "grep", "gzip", "hostname", "libc-bin",
		"libc6", "libgcc-s1", "mawk", "ncurses-base", "netbase", "procps", "sed", "tar", "curl", "ca-certificates",
		// what these link to
		"libacl1", "libattr1", "libselinux1", "libpcre2-8-0", "libgmp10", "libtinfo6", "libncursesw6", "libproc2-0", "libsystemd0", "libcap2",
		"libgcrypt20", "libgpg-error0", "liblz4-1", "liblzma5", "libzstd1", "libbz2-1.0", "zlib1g", "libssl3", "libcrypt1",
		"libcurl4", "libbrotli1", "libidn2-0", "libunistring2", "libldap-2.5-0", "libnghttp2-14", "libpsl5", "librtmp1", "libssh2-1", "libsasl2-2",
		"libsasl2-modules-db", "libgnutls30", "libhogweed6", "libnettle8", "libp11-kit0", "libtasn1-6", "libffi8", "libdb5.3",
		"libgssapi-krb5-2", "libkrb5-3", "libk5crypto3", "libkrb5support0", "libcom-err2", "libkeyutils1",
	}
	debianPackages = []string{
		"iproute2", "iputils-ping", "netcat-openbsd", "util-linux", "mount", "psmisc",
		"libbpf1", "libbsd0", "libmd0", "libelf1", "libmnl0", "libtirpc3", "libtirpc-common", "libxtables12", "libcap-ng0",
		"libblkid1", "libmount1", "libsmartcols1", "libuuid1", "libudev1", "libreadline8", "readline-common", "libpam0g", "libaudit1", "libaudit-common",
	}
	nginxPackages   = []string{"nginx", "nginx-common"}
	busyboxPackages = []string{"busybox-static"}
	networkPackages = []string{
		"bind9-dnsutils", "bind9-host", "iperf", "socat",
		"bind9-libs", "libedit2", "libfstrm0", "libicu72", "libjemalloc2", "libjson-c5", "liblmdb0", "libmaxminddb0", "libprotobuf-c1", "libstdc++6",
		"libuv1", "libwrap0", "libxml2", "libnsl2",
	}
)

func packages(also string) []string {
	all := slices.Concat(basePackages, debianPackages, nginxPackages, busyboxPackages)
	if also == network {
		all = append(all, networkPackages...)
	}
	return all
}

// network is the archive that is made only when it is asked for: debian with programs that look at networks.
const network = "network"

// standIns are tags of nginx that are not the version they say.
var standIns = []string{"1.8", "1.9"}

// images makes the content of each archive.
func images(debs map[string]string, also string) (map[string][]image, error) {
	base, err := debianBase(debs)
	if err != nil {
		return nil, err
	}
	baseLayer, err := pack(base)
	if err != nil {
		return nil, err
	}
	debian, err := extra(debs, debianPackages)
	if err != nil {
		return nil, err
	}
	debian.symlink("usr/bin/nc", "nc.openbsd")
	debianLayer, err := pack(debian.less(base))
	if err != nil {
		return nil, err
	}
	nginx, err := nginxTree(debs)
	if err != nil {
		return nil, err
	}
	nginxLayer, err := pack(nginx.less(base))
	if err != nil {
		return nil, err
	}
	busybox, err := busyboxTree(debs)
	if err != nil {
		return nil, err
	}
	busyboxLayer, err := pack(busybox)
	if err != nil {
		return nil, err
	}
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	out := map[string][]image{
		"busybox": {{name: "busybox", tag: "latest", config: ocispec.ImageConfig{Env: env, Cmd: []string{"sh"}}, layers: []*blob{busyboxLayer}}},
		"debian": {{
			name: "debian", tag: "latest", config: ocispec.ImageConfig{Env: env, Cmd: []string{"bash"}}, layers: []*blob{baseLayer, debianLayer},
		}},
	}
	if also == network {
		t, err := extra(debs, networkPackages)
		if err != nil {
			return nil, err
		}
		layer, err := pack(t.less(debian).less(base))
		if err != nil {
			return nil, err
		}
		out[network] = []image{{name: network, tag: "latest", config: out["debian"][0].config, layers: []*blob{baseLayer, debianLayer, layer}}}
	}
	web := ocispec.ImageConfig{
		Env: env, Entrypoint: []string{"/docker-entrypoint.sh"}, Cmd: []string{"nginx", "-g", "daemon off;"},
		ExposedPorts: map[string]struct{}{"80/tcp": {}}, StopSignal: "SIGQUIT",
	}
	out["nginx"] = []image{{name: "nginx", tag: "latest", config: web, layers: []*blob{baseLayer, nginxLayer}}}
	for _, tag := range standIns {
		note := fmt.Sprintf("stand-in: the nginx of :latest under the tag %s, for rolling updates without a network", tag)
		t := tree{}
		t.file("usr/share/nginx/stand-in", 0o644, note+"\n")
		layer, err := pack(t.less(nginx))
		if err != nil {
			return nil, err
		}
		cfg := web
		cfg.Labels = map[string]string{"dev.carob.stand-in": note}
		out["nginx"] = append(out["nginx"], image{name: "nginx", tag: tag, config: cfg, layers: []*blob{baseLayer, nginxLayer, layer}})
	}
	return out, nil
}

func extra(debs map[string]string, names []string) (tree, error) {
	t := tree{}
	for _, n := range names {
		if err := t.unpack(debs[n]); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// debianBase is a small Debian: what its packages hold, and what their scripts would have made.
func debianBase(debs map[string]string) (tree, error) {
	t, err := extra(debs, basePackages)
	if err != nil {
		return nil, err
	}
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		if t["usr/"+d] != nil {
			t.symlink(d, "usr/"+d)
		}
	}
	for _, d := range []string{
		"dev", "proc", "sys", "run", "mnt", "media", "srv", "opt", "home", "var/log", "var/www", "usr/local/bin", "usr/local/sbin",
	} {
		t.parents(d)
		t.dir(d, 0o755)
	}
	t.dir("tmp", 0o1777)
	t.dir("var/tmp", 0o1777)
	t.dir("root", 0o700)
	t.symlink("var/run", "/run")
	t.symlink("usr/bin/sh", "dash")
	t.symlink("usr/bin/awk", "mawk")
	t.file("etc/hostname", 0o644, "localhost\n")
	t.file("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n")
	for name, from := range map[string]string{"etc/passwd": "usr/share/base-passwd/passwd.master", "etc/group": "usr/share/base-passwd/group.master"} {
		master := t[from]
		if master == nil {
			return nil, fmt.Errorf("base-passwd lacks %s", from)
		}
		text := string(master.data)
		if name == "etc/passwd" {
			text += "nginx:x:101:101:nginx:/nonexistent:/bin/false\n"
		} else {
			text += "nginx:x:101:\n"
		}
		t.file(name, 0o644, text)
	}
	var bundle strings.Builder
	for _, name := range slices.Sorted(maps.Keys(t)) {
		if n := t[name]; strings.HasPrefix(name, "usr/share/ca-certificates/mozilla/") && n.kind == tar.TypeReg {
			bundle.Write(n.data)
		}
	}
	t.file("etc/ssl/certs/ca-certificates.crt", 0o644, bundle.String())
	return t, nil
}

func nginxTree(debs map[string]string) (tree, error) {
	t, err := extra(debs, nginxPackages)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(t, func(name string, _ *node) bool { return strings.HasPrefix(name, "etc/nginx/sites-") })
	for _, d := range []string{"var/lib/nginx", "var/log/nginx", "etc/nginx/conf.d"} {
		t.parents(d)
		t.dir(d, 0o755)
	}
	t.symlink("var/log/nginx/access.log", "/dev/stdout")
	t.symlink("var/log/nginx/error.log", "/dev/stderr")
	t.file("etc/nginx/nginx.conf", 0o644, nginxConf)
	t.file("etc/nginx/conf.d/default.conf", 0o644, siteConf)
	t.file("usr/share/nginx/html/index.html", 0o644, indexPage)
	t.file("docker-entrypoint.sh", 0o755, "#!/bin/sh\nset -e\nexec \"$@\"\n")
	return t, nil
}

// busyboxTree is the static busybox with a link for each of its applets, which it lists itself.
func busyboxTree(debs map[string]string) (tree, error) {
	full, err := extra(debs, busyboxPackages)
	if err != nil {
		return nil, err
	}
	bin := full["usr/bin/busybox"]
	if bin == nil {
		return nil, fmt.Errorf("busybox-static has no busybox")
	}
	applets, err := listApplets(bin.data)
	if err != nil {
		return nil, err
	}
	t := tree{}
	t.file("bin/busybox", 0o755, string(bin.data))
	for _, a := range applets {
		if a != "busybox" && a == path.Base(a) {
			t.hardlink("bin/"+a, "bin/busybox")
		}
	}
	t.symlink("usr/bin/env", "../../bin/env")
	for _, d := range []string{"dev", "proc", "sys", "run", "home", "var/www", "usr/sbin"} {
		t.parents(d)
		t.dir(d, 0o755)
	}
	t.dir("tmp", 0o1777)
	t.dir("root", 0o700)
	t.file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\n"+
		"nobody:x:65534:65534:nobody:/home:/bin/false\n")
	t.file("etc/group", 0o644, "root:x:0:\ndaemon:x:1:\nwww-data:x:33:\nnogroup:x:65534:\n")
	t.file("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files dns\n")
	return t, nil
}

func listApplets(binary []byte) ([]string, error) {
	dir, err := os.MkdirTemp("", "busybox-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "busybox")
	if err := os.WriteFile(file, binary, 0o755); err != nil {
		return nil, err
	}
	out, err := exec.Command(file, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("busybox --list: %w", err)
	}
	return strings.Fields(string(out)), nil
}

const nginxConf = `user nginx;
worker_processes auto;
error_log /var/log/nginx/error.log notice;
pid /run/nginx.pid;

events {
    worker_connections 1024;
}

http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log /var/log/nginx/access.log;
    sendfile on;
    keepalive_timeout 65;
    include /etc/nginx/conf.d/*.conf;
}
`

const siteConf = `server {
    listen 80;
    server_name localhost;

    location / {
        root /usr/share/nginx/html;
        index index.html index.htm;
    }
}
`

const indexPage = `<!DOCTYPE html>
<html>
<head>
<title>Welcome to nginx!</title>
</head>
<body>
<h1>Welcome to nginx!</h1>
<p>If you see this page, the web server works.</p>
</body>
</html>
`
