// Package shimbin carries the shim's program inside the main one. It imports nothing of the project but sys.
package shimbin

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"carob.dev/carob/internal/sys"
)

//go:embed all:bin
var files embed.FS

// ErrNotBuilt is returned by a main program that was built before the shim was.
var ErrNotBuilt = errors.New("the shim is not inside this program: build with make build, which builds it first")

// Shim returns the shim's program.
func Shim() ([]byte, error) {
	b, err := files.ReadFile("bin/carob-shim")
	if err != nil {
		return nil, ErrNotBuilt
	}
	return b, nil
}

// Install lays the shim out at <dir>/<sha256>/carob-shim, unless it is there, and returns that path.
func Install(dir string) (string, error) {
	b, err := Shim()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	path := filepath.Join(dir, hex.EncodeToString(sum[:]), "carob-shim")
	if st, err := os.Stat(path); err == nil && st.Size() == int64(len(b)) && st.Mode().IsRegular() {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("lay out the shim: %w", err)
	}
	if err := sys.WriteFileAtomic(path, b, 0o755); err != nil {
		return "", fmt.Errorf("lay out the shim: %w", err)
	}
	return path, nil
}
