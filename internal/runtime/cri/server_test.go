package cri

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestCoded(t *testing.T) {
	for _, c := range []struct {
		err  error
		code codes.Code
		text string
	}{
		{fmt.Errorf("pull: %w", context.DeadlineExceeded), codes.DeadlineExceeded, "pull: context deadline exceeded"},
		{fmt.Errorf("pull: %w", context.Canceled), codes.Canceled, "pull: context canceled"},
		{status.Error(codes.NotFound, "gone"), codes.NotFound, "gone"},
		{fmt.Errorf("exec: %w", status.Error(codes.NotFound, "gone")), codes.NotFound, "exec: gone"},
		{fmt.Errorf("exec: %w", errors.Join(status.Error(codes.NotFound, "gone"), errors.New("more"))), codes.NotFound, "exec: gone\nmore"},
		{errors.New("plain"), codes.Unknown, "plain"},
	} {
		got := status.Convert(coded(c.err))
		if got.Code() != c.code || got.Message() != c.text {
			t.Errorf("%v: %v %q, want %v %q", c.err, got.Code(), got.Message(), c.code, c.text)
		}
	}
}
