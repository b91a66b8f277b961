// Command conformance has upstream's e2e suite judge a Carob. run.sh puts it into a test host.
//
// It serves the images that the suite asks for from a registry on loopback, starts a Carob on a root of its own, runs the chosen specs, first those
// that may run beside others and then the serial ones, uninstalls, and looks for what was left. It ends with exit code 0 only if every chosen spec of
// the list passed and nothing was left.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"carob.dev/carob/test/leak"
	"carob.dev/carob/test/registry/serve"
	"carob.dev/carob/test/specs"
)

type options struct {
	dir, carob, programs, source, list string
	choice                             choice
	procs, holder                      int
	limit                              time.Duration
	add                                bool
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", "", "folder to work in")
	flag.StringVar(&o.carob, "carob", "bin/carob", "the program under test")
	flag.StringVar(&o.programs, "programs", "build/conformance", "folder of what build.sh built")
	flag.StringVar(&o.source, "source", "", "folder of the sources of the suite's images")
	flag.StringVar(&o.list, "list", "test/conformance/passing.txt", "file with the names of the specs that must pass")
	flag.StringVar(&o.choice.focus, "focus", "", "run only specs whose name matches this expression")
	flag.StringVar(&o.choice.skip, "skip", "", "do not run specs whose name matches this expression")
	flag.StringVar(&o.choice.set, "specs", "conformance", "conformance, or nodeconformance: those that have only the latter label")
	flag.IntVar(&o.procs, "procs", 3, "number of specs that run at one time")
	flag.IntVar(&o.holder, "holder", 0, "process that holds the test host's namespaces")
	flag.DurationVar(&o.limit, "limit", 2*time.Hour, "time after which a run of specs is ended")
	flag.BoolVar(&o.add, "add", false, "add what passes to the list")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	must, err := specs.List(o.list)
	if err != nil {
		return err
	}
	chosen, err := o.choice.of(must)
	if err != nil {
		return err
	}
	r, err := serve.Start("127.0.0.1:0", nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Stop(context.WithoutCancel(ctx))) }()
	if err := r.AddFolder(filepath.Join(o.programs, "images")); err != nil {
		return err
	}
	if err := publish(r, o.programs, o.source); err != nil {
		return err
	}
	hosts := filepath.Join(o.dir, "certs.d")
	for _, name := range registries {
		if err := r.WriteHosts(hosts, name); err != nil {
			return err
		}
	}
	root, kubeconfig := filepath.Join(o.dir, "root"), filepath.Join(o.dir, "kubeconfig")
	if err := o.do("up", "-d", "--root", root, "--kubeconfig", kubeconfig, "--node-name", "conformance", "--eviction-hard=memory.available<10Mi",
		"--oci-runtime", "crun=crun,runc=runc,test-handler=crun", "--registry-config-dir", hosts); err != nil {
		return err
	}
	all, err := runSuite(ctx, o, kubeconfig)
	if err := errors.Join(err, keep(filepath.Join(root, "carob.log"), o.dir), o.do("uninstall", "--root", root)); err != nil {
		return err
	}
	also, err := specs.Judge(os.Stdout, all, chosen)
	if len(also) > 0 && o.add {
		err = errors.Join(err, write(o.list, also))
	}
	for _, name := range also {
		if !o.add {
			fmt.Printf("passes, and is not in the list yet: %s\n", name)
		}
	}
	left, e := leak.Find(leak.Scope{Root: root, HolderPID: o.holder, Ignore: []int{os.Getpid()}})
	err = errors.Join(err, e)
	for _, l := range left {
		err = errors.Join(err, fmt.Errorf("left behind: %s", l))
	}
	return err
}

func (o options) do(args ...string) error {
	if out, err := exec.Command(o.carob, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("carob %s: %w: %s", args[0], err, out)
	}
	return nil
}

// keep copies a log to where run.sh looks for them, before it is uninstalled.
func keep(log, dir string) error {
	raw, err := os.ReadFile(log)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, filepath.Base(log)), raw, 0o600)
}

// write adds names to the list, which is sorted and has each once.
func write(list string, more []string) error {
	names, err := specs.List(list)
	if err != nil {
		return err
	}
	names = append(names, more...)
	slices.Sort(names)
	var text []byte
	for _, n := range slices.Compact(names) {
		text = append(text, n+"\n"...)
	}
	return os.WriteFile(list, text, 0o644)
}

// runSuite runs the chosen specs, and returns how each of them ended. That some failed is told by them, not by the suite's exit code.
func runSuite(ctx context.Context, o options, kubeconfig string) ([]specs.Spec, error) {
	var all []specs.Spec
	for _, part := range []struct {
		name, filter string
		procs        int
	}{{"parallel", "!Serial", o.procs}, {"serial", "Serial", 1}} {
		began := time.Now()
		some, err := runPart(ctx, o, kubeconfig, part.name, part.filter, part.procs)
		if err != nil {
			return nil, err
		}
		some = slices.DeleteFunc(some, func(s specs.Spec) bool { return !s.AskedFor() })
		fmt.Printf("%d specs (%s) took %v\n", len(some), part.name, time.Since(began).Round(time.Second))
		all = append(all, some...)
	}
	slices.SortFunc(all, specs.ByName)
	return all, nil
}

func runPart(ctx context.Context, o options, kubeconfig, name, filter string, procs int) ([]specs.Spec, error) {
	abs, err := filepath.Abs(o.programs)
	if err != nil {
		return nil, err
	}
	args := []string{"--no-color", "--keep-going", "--silence-skips", fmt.Sprintf("--procs=%d", procs), "--timeout=" + o.limit.String(), "--grace-period=1m",
		"--json-report=" + name + ".json", "--output-dir=" + o.dir, "--label-filter=" + o.choice.labels() + " && " + filter}
	if o.choice.focus != "" {
		args = append(args, "--focus="+o.choice.focus)
	}
	if o.choice.skip != "" {
		args = append(args, "--skip="+o.choice.skip)
	}
	args = append(args, filepath.Join(abs, "e2e.test"), "--", "--kubeconfig="+kubeconfig, "--provider=skeleton", "--dns-domain=cluster.local",
		"--kubectl-path="+filepath.Join(abs, "../kubectl"), "--report-dir="+o.dir)
	log, err := os.Create(filepath.Join(o.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	// ginkgo ends the specs at the limit; what still hangs then is ended here.
	ctx, cancel := context.WithTimeout(ctx, o.limit+3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(abs, "ginkgo"), args...)
	cmd.Dir = o.dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, err
	}
	return specs.Read(filepath.Join(o.dir, name+".json"))
}
