package image

import (
	"errors"
	"fmt"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"carob.dev/carob/internal/health"
	"carob.dev/carob/internal/runtime/image/unpack"
)

// What can be wrong with an image or its registry; every error of this package that has such a cause wraps one of these.
var (
	// ErrNotFound: no such image on the node, or, from a pull, in any of the registry's hosts.
	ErrNotFound = errors.New("not found")
	// ErrUnauthorized: the registry wants credentials, or other ones. The words are those users know from Kubernetes.
	ErrUnauthorized = errors.New("pull access denied, repository does not exist or may require authorization")
	// ErrUnavailable: no host of the registry could be reached or answered properly. Worth another try later.
	ErrUnavailable = errors.New("registry unavailable")
	// ErrCorrupt: content is not what its digest, size or diffID says, or cannot be understood.
	ErrCorrupt = unpack.ErrCorrupt
	// ErrInvalid: the reference, the credentials or the configuration cannot be understood.
	ErrInvalid = errors.New("invalid")
	// ErrPlatform: the image has no variant for this node's system and processor.
	ErrPlatform = errors.New("no match for platform in manifest")
)

// opError says which operation failed on which image. It carries the gRPC code that CRI clients expect.
type opError struct {
	op, ref string
	err     error
}

func (e *opError) Error() string { return fmt.Sprintf("failed to %s image %q: %v", e.op, e.ref, e.err) }

func (e *opError) Unwrap() error { return e.err }

// GRPCStatus lets a gRPC server answer with the right code.
func (e *opError) GRPCStatus() *status.Status { return status.New(code(e.err), e.Error()) }

func code(err error) codes.Code {
	switch {
	case errors.Is(err, ErrNotFound):
		return codes.NotFound
	case errors.Is(err, ErrUnauthorized):
		return codes.PermissionDenied
	case errors.Is(err, ErrUnavailable):
		return codes.Unavailable
	case errors.Is(err, ErrInvalid):
		return codes.InvalidArgument
	case errors.Is(err, ErrPlatform):
		return codes.FailedPrecondition
	case errors.Is(err, ErrCorrupt):
		return codes.DataLoss
	case errors.Is(err, syscall.ENOSPC):
		return codes.ResourceExhausted
	}
	return codes.Unknown
}

// wrap names operation and image, once, and tells a full disk in the user's words.
func (s *Store) wrap(op, ref string, err error) error {
	if err == nil {
		return nil
	}
	var done *opError
	if errors.As(err, &done) {
		return err
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = fmt.Errorf("%w: %w", &health.Problem{
			Code:     "DiskFull",
			Severity: health.Error,
			What:     "no space left for images in " + s.dir,
			Fix:      "free disk space, or remove unused images",
		}, err)
	}
	return &opError{op: op, ref: ref, err: err}
}
