// Command registry serves OCI archives on loopback, in docker.io's place.
//
//	go run ./test/registry -addr 127.0.0.1:5000 -images build/images -hosts DIR [-private nginx=user:password]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"carob.dev/carob/test/registry/serve"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "address to listen on; port 0 takes any")
	images := flag.String("images", "build/images", "folder with OCI archives")
	hosts := flag.String("hosts", "", "folder to write <registry>/hosts.toml into")
	as := flag.String("as", "docker.io", "registry to stand in for")
	private := map[string]serve.Login{}
	flag.Func("private", "NAME=user:password: a repository that wants a login; may be repeated", func(v string) error {
		name, login, ok := strings.Cut(v, "=")
		user, password, ok2 := strings.Cut(login, ":")
		if !ok || !ok2 {
			return fmt.Errorf("want NAME=user:password")
		}
		private[name] = serve.Login{User: user, Password: password}
		return nil
	})
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *addr, *images, *hosts, *as, private); err != nil {
		fmt.Fprintln(os.Stderr, "registry:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends. The first line it prints is the address, once all images are there.
func run(ctx context.Context, addr, images, hosts, as string, private map[string]serve.Login) error {
	r, err := serve.Start(addr, private)
	if err != nil {
		return err
	}
	defer func() { _ = r.Stop(context.WithoutCancel(ctx)) }()
	if err := r.AddFolder(images); err != nil {
		return err
	}
	if hosts != "" {
		if err := r.WriteHosts(hosts, as); err != nil {
			return err
		}
	}
	fmt.Println(r.Addr)
	for _, name := range r.Images {
		fmt.Println(" ", as+"/"+name)
	}
	<-ctx.Done()
	return nil
}
