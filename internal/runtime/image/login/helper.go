package login

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxAnswer bounds, in bytes, what a program may say.
const maxAnswer = 1 << 20

// helperName keeps a configuration file from naming a program outside PATH.
var helperName = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// tokenUser is how a helper says that the secret is an identity token.
const tokenUser = "<token>"

// ask runs docker-credential-<helper> get, with the server on its standard input. A server that it does not know is no error.
func ask(ctx context.Context, helper, server string) ([]Login, error) {
	if !helperName.MatchString(helper) {
		return nil, fmt.Errorf("helper %q: not a name", helper)
	}
	out, err := run(ctx, "docker-credential-"+helper, []string{"get"}, nil, []byte(server+"\n"))
	if err != nil {
		if strings.Contains(string(out), "credentials not found") {
			return nil, nil
		}
		return nil, err
	}
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(out, &answer); err != nil {
		return nil, fmt.Errorf("its answer: %w", err)
	}
	if answer.Secret == "" {
		return nil, nil
	}
	auth := &runtimeapi.AuthConfig{Username: answer.Username, Password: answer.Secret}
	if answer.Username == tokenUser {
		auth = &runtimeapi.AuthConfig{IdentityToken: answer.Secret}
	}
	host, p := place(server)
	return []Login{{host: host, path: p, auth: auth}}, nil
}

// run starts a program and returns what it wrote to standard output; the error has what it wrote to the other.
func run(ctx context.Context, program string, args, env []string, stdin []byte) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = bytes.NewReader(stdin)
	var out, complaint limited
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err := cmd.Run()
	if out.over {
		err = errors.Join(err, fmt.Errorf("its answer is longer than %d bytes", maxAnswer))
	}
	if err != nil {
		return out.Bytes(), fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(complaint.String()))
	}
	return out.Bytes(), nil
}

// limited keeps the beginning of what is written to it.
type limited struct {
	bytes.Buffer
	over bool
}

var _ io.Writer = (*limited)(nil)

// Write implements io.Writer.
func (l *limited) Write(b []byte) (int, error) {
	if room := maxAnswer - l.Len(); len(b) > room {
		l.over = true
		l.Buffer.Write(b[:room])
		return len(b), nil
	}
	return l.Buffer.Write(b)
}
