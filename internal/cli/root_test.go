package cli

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"carob.dev/carob/internal/config"
	"carob.dev/carob/internal/health"
)

func TestExitCodesAndWhatIsPrinted(t *testing.T) {
	root := t.TempDir()
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{nil, ExitOK, ""},
		{[]string{"version"}, ExitOK, ""},
		{[]string{"frob"}, ExitUsage, `unknown command "frob"`},
		{[]string{"version", "more"}, ExitUsage, "unknown command"},
		{[]string{"version", "-o", "xml"}, ExitUsage, "want json or yaml"},
		{[]string{"down", "--nope"}, ExitUsage, "--nope"},
		{[]string{"down", "--root", root, "--max-pods", "0"}, ExitUsage, "--max-pods"},
		{[]string{"image", "pull"}, ExitUsage, "accepts 1 arg"},
		{[]string{"image", "ls", "--root", root}, ExitFailed, "NotRunning"},
		{[]string{"kubeconfig", "--root", root}, ExitFailed, "NotRunning"},
		{[]string{"status", "--root", root}, ExitUnhealthy, ""},
		{[]string{"boom"}, ExitFailed, "carob: it broke (Boom)\n  why: because\n  fix: mend it\n"},
		{[]string{"tree", "-l", "a in"}, ExitUsage, "-l:"},
	} {
		boom := &cobra.Command{Use: "boom", RunE: func(*cobra.Command, []string) error {
			return errors.Join(&health.Problem{Code: "Boom", What: "it broke", Why: "because", Fix: "mend it"})
		}}
		stop := func(context.Context, config.Config, func(string)) error { return nil }
		cmd := Root(stop, boom)
		var out, errs bytes.Buffer
		cmd.SetOut(&out)
		if code := Run(cmd, c.args, &errs); code != c.code || !strings.Contains(errs.String(), c.want) {
			t.Errorf("carob %s: exit code %d, want %d; printed %q, want %q in it", strings.Join(c.args, " "), code, c.code, errs.String(), c.want)
		}
	}
}
