// Package cli is the commands for users: what they ask of the public API, of the local admin socket, or of the host itself.
//
// Commands that are a Carob (up, server) live in the app package and are handed in. It may import everything below it.
package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"sigs.k8s.io/yaml"

	"carob.dev/carob/internal/health"
)

// Exit codes of every command.
const (
	ExitOK = 0
	// ExitFailed: it did not work; the reason is on standard error.
	ExitFailed = 1
	// ExitUsage: the command line was wrong; nothing was done.
	ExitUsage = 2
	// ExitUnhealthy: `check` or `status` found an error.
	ExitUnhealthy = 3
)

const long = `Carob runs Kubernetes Pods on Linux from one small program.

  carob up                  a one-node cluster, in the foreground; Ctrl-C stops its Pods and itself
  carob kubectl get pods    the stock kubectl, for the cluster that up made
  carob tree                what owns what, down to the processes
  carob down                stop the Pods, then the daemon
  carob uninstall           leave nothing behind

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 check or status found an error.`

// errUnhealthy ends a command with ExitUnhealthy after it has printed what is wrong.
var errUnhealthy = errors.New("unhealthy")

// UsageError marks an error of the command line itself.
type UsageError struct{ error }

// Usage makes err a UsageError; nil stays nil.
func Usage(err error) error {
	if err == nil {
		return nil
	}
	return UsageError{err}
}

// Root is the whole command line: the user's commands and the given ones.
func Root(stopLeft StopLeft, daemon ...*cobra.Command) *cobra.Command {
	root := &cobra.Command{
		Use: "carob", Short: "Kubernetes Pods from one small program", Long: long,
		SilenceUsage: true, SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args:              cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return UsageError{fmt.Errorf("unknown command %q; see carob --help", args[0])}
			}
			return c.Help()
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return UsageError{err} })
	root.AddCommand(daemon...)
	root.AddCommand(treeCommand(), statusCommand(), checkCommand(), imageCommand(), kubectlCommand(), kubeconfigCommand(),
		downCommand(stopLeft), uninstallCommand(stopLeft), versionCommand())
	markUsage(root)
	return root
}

// markUsage has wrong arguments count as wrong usage, in our own commands; kubectl's keep its exit codes.
func markUsage(c *cobra.Command) {
	if c.Name() == kubectlName {
		return
	}
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return UsageError{err}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		markUsage(sub)
	}
}

// Run executes the command line and returns its exit code. Errors are printed as what, why and fix where they are coded.
func Run(root *cobra.Command, args []string, stderr io.Writer) int {
	root.SetArgs(args)
	err := root.Execute()
	if err == nil {
		return ExitOK
	}
	if errors.Is(err, errUnhealthy) {
		return ExitUnhealthy
	}
	printError(stderr, err)
	var usage UsageError
	if errors.As(err, &usage) {
		return ExitUsage
	}
	return ExitFailed
}

func printError(w io.Writer, err error) {
	p, ok := health.As(err)
	if !ok {
		fmt.Fprintf(w, "carob: %v\n", err)
		return
	}
	fmt.Fprintf(w, "carob: %s (%s)\n", p.What, p.Code)
	if p.Why != "" {
		fmt.Fprintf(w, "  why: %s\n", p.Why)
	}
	if p.Fix != "" {
		fmt.Fprintf(w, "  fix: %s\n", p.Fix)
	}
}

// output prints v as JSON or YAML, or calls text.
func output(w io.Writer, format string, v any, text func(io.Writer) error) error {
	switch format {
	case "":
		return text(w)
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	case "yaml":
		raw, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(raw)
		return err
	}
	return UsageError{fmt.Errorf("-o %s: want json or yaml", format)}
}

func addOutputFlag(c *cobra.Command) *string {
	return c.Flags().StringP("output", "o", "", "json or yaml, for programs")
}

// colored says whether w is a terminal that a person reads in colour.
func colored(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""
}
