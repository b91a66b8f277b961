package cli

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"carob.dev/carob/internal/cli/admin"
	"carob.dev/carob/internal/cli/check"
	"carob.dev/carob/internal/config"
	"carob.dev/carob/internal/health"
	"carob.dev/carob/internal/version"
)

func statusCommand() *cobra.Command {
	c := &cobra.Command{Use: "status", Short: "how the Carob of this machine is", Args: cobra.NoArgs}
	src := config.AddRootFlag(c.Flags())
	format := addOutputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := src.Load()
		if err != nil {
			return UsageError{err}
		}
		s, err := admin.NewClient(cfg).Status(c.Context())
		if errors.Is(err, admin.ErrNotRunning) {
			s = admin.Status{Root: cfg.Root, Problems: []health.Problem{*admin.NotRunning(cfg.Root)}}
		} else if err != nil {
			return err
		}
		if err := output(c.OutOrStdout(), *format, s, func(w io.Writer) error { return printStatus(w, s) }); err != nil {
			return err
		}
		return unhealthy(s.Problems)
	}
	return c
}

func printStatus(w io.Writer, s admin.Status) error {
	if s.PID != 0 {
		t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		if s.Node != "" {
			fmt.Fprintf(t, "node\t%s\n", s.Node)
		}
		if s.Server != "" {
			fmt.Fprintf(t, "server\t%s\nkubeconfig\t%s\n", s.Server, s.Kubeconfig)
		}
		fmt.Fprintf(t, "ready\t%v\nroot\t%s\nruntime\t%s\nprocess\t%d, up %s\nversion\t%s (%s)\n", s.Ready, s.Root, s.Runtime, s.PID,
			time.Since(s.Started).Round(time.Second), s.Version, s.Commit)
		for _, step := range s.Steps {
			fmt.Fprintf(t, "start: %s\t%d ms\n", step.Name, step.Millis)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	printProblems(w, s.Problems)
	return nil
}

func checkCommand() *cobra.Command {
	c := &cobra.Command{Use: "check", Short: "find what is wrong with this host, and how to mend it", Args: cobra.NoArgs}
	src := config.AddFlags(c.Flags())
	format := addOutputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := src.Load()
		if err != nil {
			return UsageError{err}
		}
		_, err = admin.NewClient(cfg).Status(c.Context())
		problems := check.Decide(cfg, check.Gather(cfg, err == nil))
		if problems == nil {
			problems = []health.Problem{}
		}
		err = output(c.OutOrStdout(), *format, map[string]any{"problems": problems}, func(w io.Writer) error {
			if len(problems) == 0 {
				_, err := fmt.Fprintln(w, "This host is fit for carob.")
				return err
			}
			printProblems(w, problems)
			return nil
		})
		if err != nil {
			return err
		}
		return unhealthy(problems)
	}
	return c
}

func printProblems(w io.Writer, problems []health.Problem) {
	for _, p := range problems {
		fmt.Fprintf(w, "%s %s: %s\n", p.Severity, p.Code, p.What)
		if p.Why != "" {
			fmt.Fprintf(w, "  why: %s\n", p.Why)
		}
		if p.Fix != "" {
			fmt.Fprintf(w, "  fix: %s\n", p.Fix)
		}
	}
}

func unhealthy(problems []health.Problem) error {
	for _, p := range problems {
		if p.Severity == health.Error {
			return errUnhealthy
		}
	}
	return nil
}

func versionCommand() *cobra.Command {
	c := &cobra.Command{Use: "version", Short: "which carob this is", Args: cobra.NoArgs}
	format := addOutputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		v := version.Get()
		return output(c.OutOrStdout(), *format, v, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "carob %s (%s), Kubernetes %s, %s, %s\n", v.Version, v.Commit, v.Kubernetes, v.Go, v.Platform)
			return err
		})
	}
	return c
}
