package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"carob.dev/carob/internal/cli/admin"
	"carob.dev/carob/internal/cli/remove"
	"carob.dev/carob/internal/config"
)

// StopLeft stops the Pods that a daemon which is gone left running.
type StopLeft func(ctx context.Context, cfg config.Config, tell func(string)) error

func downCommand(stopLeft StopLeft) *cobra.Command {
	c := &cobra.Command{Use: "down", Short: "stop the Pods gracefully, then the daemon; objects and images stay", Args: cobra.NoArgs}
	src := config.AddRootFlag(c.Flags())
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := src.Load()
		if err != nil {
			return UsageError{err}
		}
		return down(c, cfg, stopLeft)
	}
	return c
}

// down asks the daemon; where none runs it stops what a daemon that was killed left running.
func down(c *cobra.Command, cfg config.Config, stopLeft StopLeft) error {
	say := func(s string) { fmt.Fprintln(c.OutOrStdout(), s) }
	err := admin.NewClient(cfg).Down(c.Context(), say)
	if errors.Is(err, admin.ErrNotRunning) {
		if _, err := os.Stat(cfg.RunDir()); os.IsNotExist(err) {
			say("no daemon is running, and none left anything running")
			return nil
		}
		say("no daemon is running; stopping what one left")
		return stopLeft(c.Context(), cfg, say)
	}
	return err
}

func uninstallCommand(stopLeft StopLeft) *cobra.Command {
	c := &cobra.Command{Use: "uninstall", Short: "stop everything and leave nothing: state, images, network, cgroups", Args: cobra.NoArgs}
	src := config.AddRootFlag(c.Flags())
	kubeconfig := c.Flags().String("kubeconfig", "", "kubeconfig to remove, if it is this Carob's (default: the one that it wrote last)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := src.Load()
		if err != nil {
			return UsageError{err}
		}
		if *kubeconfig != "" {
			cfg.Kubeconfig = *kubeconfig
		}
		if err := down(c, cfg, stopLeft); err != nil {
			fmt.Fprintf(c.ErrOrStderr(), "carob: not everything could be stopped gracefully (%v); killing what is left\n", err)
			if err := admin.NewClient(cfg).Kill(c.Context()); err != nil {
				return err
			}
		}
		if err := remove.All(c.Context(), cfg); err != nil {
			return err
		}
		fmt.Fprintln(c.OutOrStdout(), "removed all that belonged to "+cfg.Root)
		return nil
	}
	return c
}
