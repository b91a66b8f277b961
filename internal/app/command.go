package app

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"carob.dev/carob/internal/cli"
	"carob.dev/carob/internal/config"
	"carob.dev/carob/internal/health"
)

// Commands are those that are a Carob.
func Commands() []*cobra.Command {
	return []*cobra.Command{upCommand(), serverCommand(), agentCommand(), runtimeCommand()}
}

const upLong = `Starts a one-node Kubernetes: control plane and node in one process, in the foreground. It says what it does and how
long each step took, then one line for each event. Ctrl-C stops the Pods gracefully and ends; SIGTERM ends and leaves the Pods running.

With -d it returns as soon as the node is Ready and the default service account exists, and goes on in the background, with its log in
<root>/carob.log.`

func upCommand() *cobra.Command {
	c := &cobra.Command{Use: "up", Short: "start a one-node cluster", Long: upLong, Args: cobra.NoArgs}
	src := config.AddFlags(c.Flags())
	daemon := c.Flags().BoolP("detach", "d", false, "return once it is usable, and go on in the background")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := src.Load()
		if err != nil {
			return cli.Usage(err)
		}
		out := c.OutOrStdout()
		if *daemon {
			return detach(c.Context(), cfg, out)
		}
		interrupt := make(chan os.Signal, 1)
		signal.Notify(interrupt, unix.SIGINT)
		down := make(chan struct{})
		ready := false
		ctx, stop := signal.NotifyContext(c.Context(), unix.SIGTERM, unix.SIGHUP)
		defer stop()
		go func() {
			<-interrupt
			fmt.Fprintln(out, "stopping the Pods; interrupt again to leave them running")
			close(down)
			if !ready {
				stop()
			}
			<-interrupt
			stop()
			<-interrupt
			os.Exit(1)
		}()
		if cfg.LogLevel == "info" {
			cfg.LogLevel = "warn" // the lines of Tell are what a person wants to see
		}
		log, hush := logger(cfg, os.Stderr)
		return Run(ctx, cfg, Options{
			Log: log, Ending: hush, Tell: func(s string) { fmt.Fprintln(out, s) }, Down: down, Events: true,
			Ready: func() {
				ready = true
				fmt.Fprintf(out, "\nThe cluster is ready. In another terminal:\n  export KUBECONFIG=%s\n  kubectl get nodes        (or: carob kubectl get nodes)\n  carob tree\nCtrl-C stops its Pods and ends.\n\n", cfg.Kubeconfig)
			},
		})
	}
	return c
}

const serverLong = `Runs control plane and node agent until it is told to end; its Pods go on without it, and it finds them again when it
starts. This is what a service unit should run (KillMode=process, Delegate=yes). Stop the Pods with: carob down.`

func serverCommand() *cobra.Command {
	c := &cobra.Command{Use: "server", Short: "the daemon, for a service unit", Long: serverLong, Args: cobra.NoArgs}
	src := config.AddFlags(c.Flags())
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := src.Load()
		if err != nil {
			return cli.Usage(err)
		}
		ctx, stop := signal.NotifyContext(c.Context(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
		defer stop()
		log, hush := logger(cfg, os.Stderr)
		n := openNotifier()
		err = Run(ctx, cfg, Options{
			Log: log, Ending: hush, Tell: func(s string) { log.Info(s); n.tell(notice{Message: s}) }, Ready: func() { n.end(notice{Ready: true}) },
		})
		if err != nil {
			n.end(notice{Error: problem(err)})
		}
		return err
	}
	return c
}

// logger writes what this process has to say, and what Kubernetes' libraries have, which is only worth reading when it is at least a warning.
// They call requests that are broken off by the end of the process errors; hush keeps them still from then on.
func logger(cfg config.Config, w io.Writer) (log *slog.Logger, hush func()) {
	level := slog.LevelInfo
	if err := level.UnmarshalText([]byte(strings.ToUpper(cfg.LogLevel))); err != nil {
		level = slog.LevelInfo
	}
	h := slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})
	theirs := &slog.LevelVar{}
	theirs.Set(max(level, slog.LevelWarn))
	klog.SetSlogLogger(slog.New(quiet{h, theirs}).With("part", "kubernetes"))
	return slog.New(h), func() {
		if level > slog.LevelDebug {
			theirs.Set(slog.LevelError + 1)
		}
	}
}

// notice is what a daemon tells the command that started it.
type notice struct {
	Message string          `json:"message,omitempty"`
	Ready   bool            `json:"ready,omitempty"`
	Error   *health.Problem `json:"error,omitempty"`
}

const notifyEnv = "CAROB_NOTIFY_FD"

// notifier writes notices to the descriptor that detach passed on; without one it does nothing.
type notifier struct {
	f *os.File
}

func openNotifier() *notifier {
	if os.Getenv(notifyEnv) != "3" {
		return &notifier{}
	}
	os.Unsetenv(notifyEnv)
	unix.CloseOnExec(3)
	return &notifier{f: os.NewFile(3, "notify")}
}

func (n *notifier) tell(v notice) {
	if n.f != nil {
		json.NewEncoder(n.f).Encode(v)
	}
}

func (n *notifier) end(v notice) {
	n.tell(v)
	if n.f != nil {
		n.f.Close()
		n.f = nil
	}
}

var startPatience = 90 * time.Second
