package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// dockerCerts reads a registry's folder that has certificates but no hosts.toml, as Docker's certs.d has: every *.crt is an authority to
// trust, every *.cert with a *.key beside it is shown to the registry. It returns false where the folder has neither.
func dockerCerts(folder, registry string) (endpoint, bool, error) {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, os.ErrNotExist) {
		return endpoint{}, false, nil
	}
	if err != nil {
		return endpoint{}, false, err
	}
	var h hostFields
	var ca, client []any
	for _, e := range entries {
		name := e.Name()
		switch filepath.Ext(name) {
		case ".crt":
			ca = append(ca, name)
		case ".cert":
			key := strings.TrimSuffix(name, ".cert") + ".key"
			if _, err := os.Stat(filepath.Join(folder, key)); err != nil {
				return endpoint{}, false, fmt.Errorf("%w: %s has no key beside it: %w", ErrInvalid, name, err)
			}
			client = append(client, []any{name, key})
		}
	}
	if len(ca)+len(client) == 0 {
		return endpoint{}, false, nil
	}
	if ca != nil {
		h.CA = ca
	}
	if client != nil {
		h.Client = client
	}
	ep := origin(registry)
	return ep, true, h.apply(&ep, folder)
}
