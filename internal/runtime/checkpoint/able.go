package checkpoint

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Able asks whether a program with the OCI command line can checkpoint containers: it must have the command, and CRIU, which does the work,
// must be here and run on this kernel. The error tells what is in the way, and what to do, or is that of ctx. It takes as long as
// `criu check`, some tens of milliseconds.
func Able(ctx context.Context, runtime string) error {
	if _, err := ask(ctx, runtime, "checkpoint", "--help"); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%s has no command to checkpoint: crun has it when built with CRIU (its --version shows +CRIU), runc has it always; "+
			"run the Pod by such a one, as a RuntimeClass's handler or the default", runtime)
	}
	criu, err := exec.LookPath("criu")
	if err != nil {
		return fmt.Errorf("%s needs criu for it, which is not in PATH: install criu", filepath.Base(runtime))
	}
	out, err := ask(ctx, criu, "check")
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil, strings.Contains(out, "Looks good"): // it also says so where something is missing that few processes need
		return nil
	}
	cause := strings.Join(LastErrors(out, 2), "; ")
	if cause == "" {
		cause = err.Error()
	}
	return fmt.Errorf("%s does not run on this kernel (%s check: %s): install a newer criu", criu, criu, cause)
}

func ask(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// LastErrors are the last n lines of CRIU's output that tell of errors.
func LastErrors(log string, n int) (list []string) {
	for line := range strings.Lines(log) {
		if at := strings.Index(line, "Error ("); at >= 0 {
			list = append(list, strings.TrimSpace(line[at:]))
		}
	}
	return list[max(0, len(list)-n):]
}
