// Command critest has the CRI's validation suite (sigs.k8s.io/cri-tools) judge `carob runtime`. run.sh puts it into a test host.
//
// It serves the images that the suite asks for from a registry on loopback, starts the runtime on a root of its own, runs the suite,
// uninstalls, and looks for what was left. It ends with exit code 0 only if every spec of the list passed and nothing was left.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"carob.dev/carob/internal/config"
	"carob.dev/carob/test/leak"
	"carob.dev/carob/test/registry/serve"
	"carob.dev/carob/test/specs"
)

type options struct {
	dir, carob, critest, images, shell, nnp, runtime, list, focus string
	holder                                                        int
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", "", "folder to work in")
	flag.StringVar(&o.carob, "carob", "bin/carob", "the program under test")
	flag.StringVar(&o.critest, "critest", "build/critest", "the suite")
	flag.StringVar(&o.images, "images", "build/images", "folder of image archives")
	flag.StringVar(&o.shell, "shell", "build/busybox", "a busybox that runs programs rather than its applets")
	flag.StringVar(&o.nnp, "nnp", "build/critest-tools/nnp", "the program of test/critest/nnp")
	flag.StringVar(&o.runtime, "oci-runtime", "crun=crun", "the OCI runtime, as carob's flag takes it")
	flag.StringVar(&o.list, "list", "", "file with the names of the specs that must pass")
	flag.StringVar(&o.focus, "focus", "", "run only specs whose name matches this expression")
	flag.IntVar(&o.holder, "holder", 0, "process that holds the test host's namespaces")
	flag.Parse()
	if abs, err := filepath.Abs(o.critest); err == nil {
		o.critest = abs // it runs in another folder
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "critest:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	root := filepath.Join(o.dir, "root")
	r, err := serve.Start("127.0.0.1:0", nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Stop(context.WithoutCancel(ctx))) }()
	if err := r.AddFolder(o.images); err != nil {
		return err
	}
	if err := publish(r, o.shell, o.nnp); err != nil {
		return err
	}
	hosts := filepath.Join(o.dir, "certs.d")
	for _, name := range registries {
		if err := r.WriteHosts(hosts, name); err != nil {
			return err
		}
	}
	end, err := startRuntime(ctx, o, root, hosts)
	if err != nil {
		return err
	}
	all, err := runSuite(ctx, o, config.Default(root).RunDir()+"/cri.sock")
	if e := end(); e != nil {
		return errors.Join(err, e)
	}
	if err != nil {
		return err
	}
	if out, err := exec.Command(o.carob, "uninstall", "--root", root).CombinedOutput(); err != nil {
		return fmt.Errorf("uninstall: %w: %s", err, out)
	}
	must, err := specs.List(o.list)
	if err != nil {
		return err
	}
	if o.focus != "" {
		must = nil
	}
	also, err := specs.Judge(os.Stdout, all, must)
	if err != nil {
		return err
	}
	for _, name := range also {
		fmt.Printf("passes, and is not in the list yet: %s\n", name)
	}
	left, err := leak.Find(leak.Scope{Root: root, HolderPID: o.holder, Ignore: []int{os.Getpid()}})
	for _, l := range left {
		err = errors.Join(err, fmt.Errorf("left behind: %s", l))
	}
	return err
}

// startRuntime returns once the runtime serves. end stops it and waits.
func startRuntime(ctx context.Context, o options, root, hosts string) (end func() error, err error) {
	log, err := os.Create(filepath.Join(o.dir, "runtime.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, o.carob, "runtime", "--root", root, "--oci-runtime", o.runtime, "--registry-config-dir", hosts, "--log-level", "debug")
	cmd.Stderr = log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "the runtime serves ") {
			return func() error {
				if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
					return err
				}
				return cmd.Wait()
			}, nil
		}
		fmt.Println(lines.Text())
	}
	cmd.Wait()
	raw, _ := os.ReadFile(log.Name())
	return nil, fmt.Errorf("the runtime did not start:\n%s", raw)
}

// runSuite runs the specs and returns how each ended. That some failed is told by them, not by the suite's exit code.
func runSuite(ctx context.Context, o options, socket string) ([]specs.Spec, error) {
	report := filepath.Join(o.dir, "report.json")
	args := []string{"-runtime-endpoint", "unix://" + socket, "-image-endpoint", "unix://" + socket, "-ginkgo.json-report", report, "-ginkgo.no-color"}
	if o.focus != "" {
		args = append(args, "-ginkgo.focus", o.focus)
	}
	log, err := os.Create(filepath.Join(o.dir, "critest.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, o.critest, args...)
	cmd.Dir = o.dir
	cmd.Stdout, cmd.Stderr = log, log
	began := time.Now()
	err = cmd.Run()
	fmt.Printf("the suite took %v\n", time.Since(began).Round(time.Second))
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, err
	}
	return specs.Read(report)
}
