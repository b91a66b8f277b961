// Command life is a small node without a control plane: it opens the runtime with a real network and real images in the namespaces it is
// started in, and leads Pods through their lives. It may be killed at any moment and started again; then it goes on where it was.
//
// test/crash runs it. Its state is a Carob's, so what finds a Carob's leaks finds its.
//
//	life -root R prepare -images FOLDER   import the image
//	life -root R pod                      one Pod, from nothing to nothing
//	life -root R storm                    many Pods at once, until it is killed
//	life -root R wrecks                   many Pods whose shims and pauses somebody kills meanwhile
//	life -root R end                      remove every Pod, close, and take away what is empty; what was forgotten stays, to be found
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"

	"carob.dev/carob/internal/config"
	"carob.dev/carob/internal/network"
	"carob.dev/carob/internal/runtime"
	"carob.dev/carob/internal/runtime/image"
)

// busybox is the image of all containers.
const busybox = "docker.io/library/busybox:latest"

// node is what the program opens.
type node struct {
	cfg     config.Config
	images  *image.Store
	network *network.Network
	port    bool
	// checkpoints says that the Pod's container is checkpointed.
	checkpoints bool
	lives       int
	*runtime.Runtime
}

func main() {
	root := flag.String("root", "", "folder for all state; absolute")
	n := &node{}
	flag.BoolVar(&n.port, "port", false, "give the Pod a host port")
	flag.BoolVar(&n.checkpoints, "checkpoint", false, "checkpoint the Pod's container, by programs that pretend to")
	flag.IntVar(&n.lives, "lives", 100, "how many Pods wrecks leads")
	images := flag.String("images", "build/images", "folder of busybox.tar")
	warm := flag.Int("warm", 0, "how many warm sandboxes to keep")
	verbose := flag.Bool("v", false, "log all")
	flag.Parse()
	level := slog.LevelWarn
	if *verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	if err := n.run(context.Background(), flag.Arg(0), config.Default(*root), *images, *warm, log); err != nil {
		fmt.Fprintln(os.Stderr, "life:", err)
		os.Exit(1)
	}
}

func (n *node) run(ctx context.Context, what string, cfg config.Config, images string, warm int, log *slog.Logger) (err error) {
	if err := n.open(ctx, cfg, warm, log); err != nil {
		return err
	}
	switch what {
	case "prepare":
		archive, err := os.Open(filepath.Join(images, "busybox.tar"))
		if err != nil {
			return err
		}
		defer archive.Close()
		if _, err := n.images.Import(ctx, archive, nil); err != nil {
			return err
		}
		return n.close(ctx)
	case "pod":
		if err := n.lead(ctx, onlyPod); err != nil {
			return err
		}
		return n.end(ctx)
	case "storm":
		return n.storm(ctx)
	case "wrecks":
		if err := n.wrecks(ctx, n.lives); err != nil {
			return err
		}
		return n.end(ctx)
	case "end":
		if err := n.check(ctx); err != nil {
			return err
		}
		return n.end(ctx)
	}
	return fmt.Errorf("%q is not something to do", what)
}

func networkConfig(cfg config.Config, log *slog.Logger) network.Config {
	return network.Config{NFTable: cfg.NFTable(), Dir: cfg.Path("network"), NodeCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/24")},
		PodCIDRs: []netip.Prefix{cfg.PodCIDR}, Log: log}
}

func (n *node) open(ctx context.Context, cfg config.Config, warm int, log *slog.Logger) (err error) {
	n.cfg = cfg
	if n.checkpoints {
		if err := n.pretend(); err != nil {
			return err
		}
	}
	if n.images, err = image.Open(ctx, image.Config{Dir: cfg.Path("images"), Log: log, InUse: func(string) bool { return true }}); err != nil {
		return err
	}
	if n.network, err = network.New(ctx, networkConfig(cfg, log)); err != nil {
		return err
	}
	n.Runtime, err = runtime.New(ctx, runtime.Config{Root: cfg.Root, RunDir: cfg.RunDir(), CgroupRoot: cfg.CgroupRoot(), Images: n.images,
		Network: n.network, OCIRuntimes: n.cfg.OCIRuntimes, WarmSandboxes: warm, Log: log})
	return err
}

func (n *node) close(ctx context.Context) error {
	return errors.Join(n.Runtime.Close(ctx), n.network.Close(), n.images.Close(ctx))
}
