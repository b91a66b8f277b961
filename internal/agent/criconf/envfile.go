package criconf

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// maxEnvFile is how much of a file with variables is read, in bytes.
const maxEnvFile = 1 << 20

// envFile reads one variable from a file in the volume whose folder is given. A file that leads out of the volume is not read.
func envFile(folder string, ref *corev1.FileKeySelector) (string, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return "", fmt.Errorf("open volume %q: %w", ref.VolumeName, err)
	}
	defer root.Close()
	f, err := root.Open(strings.TrimLeft(ref.Path, "/"))
	if err != nil {
		return "", fmt.Errorf("open environment variable file %q of volume %q: %w", ref.Path, ref.VolumeName, err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return "", fmt.Errorf("environment variable file %q of volume %q is not a file", ref.Path, ref.VolumeName)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxEnvFile+1))
	if err != nil {
		return "", fmt.Errorf("read environment variable file %q of volume %q: %w", ref.Path, ref.VolumeName, err)
	}
	if len(raw) > maxEnvFile {
		return "", fmt.Errorf("environment variable file %q of volume %q is larger than 1 MiB", ref.Path, ref.VolumeName)
	}
	value, err := parseEnvFile(string(raw), ref.Key)
	if err != nil {
		return "", fmt.Errorf("couldn't parse env file %q of volume %q: %w", ref.Path, ref.VolumeName, err)
	}
	return value, nil
}

// parseEnvFile finds a variable in lines of the form NAME='value', where a value may go on over several lines and nothing in it is special,
// with comments from # on. What comes behind the variable is not looked at. A variable that is not there is empty.
func parseEnvFile(text, key string) (string, error) {
	rest, line := text, 0
	next := func() (string, bool) {
		if rest == "" {
			return "", false
		}
		line++
		var one string
		one, rest, _ = strings.Cut(rest, "\n")
		return strings.TrimSuffix(one, "\r"), true
	}
	wrong := func(at int, why string) error {
		return fmt.Errorf("invalid environment variable format at line %d: %s", at, why)
	}
	for {
		one, ok := next()
		if !ok {
			return "", nil
		}
		one = strings.TrimLeft(one, " \t")
		if one == "" || one[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(one, "=")
		switch {
		case !ok:
			return "", wrong(line, "missing '='")
		case strings.TrimRight(name, " \t") == "":
			return "", wrong(line, "empty variable name")
		case strings.TrimRight(name, " \t") != name:
			return "", wrong(line, "whitespace before '=' is not allowed")
		case strings.TrimLeft(value, " \t") != value: // as in a shell: nothing is assigned
			if name == key {
				return "", nil
			}
			continue
		case !strings.HasPrefix(value, "'"):
			return "", wrong(line, "value must be enclosed in single quotes")
		}
		began := line
		var b strings.Builder
		for value = value[1:]; ; {
			inside, after, closed := strings.Cut(value, "'")
			b.WriteString(inside)
			if closed {
				if after = strings.TrimLeft(after, " \t"); after != "" && after[0] != '#' {
					return "", wrong(line, "unexpected content after closing quote")
				}
				break
			}
			b.WriteByte('\n')
			if value, ok = next(); !ok {
				return "", wrong(began, "unclosed single quote")
			}
		}
		if name == key {
			return b.String(), nil
		}
	}
}

// fromFile is the value of a variable that a file has.
func (in EnvInput) fromFile(ref *corev1.FileKeySelector) (value string, ok bool, err error) {
	folder := in.Folders[ref.VolumeName]
	if folder == "" {
		return "", false, fmt.Errorf("cannot find the volume %q referenced by FileKeyRef", ref.VolumeName)
	}
	value, err = envFile(folder, ref)
	switch {
	case err != nil:
		return "", false, err
	case value != "":
		return value, true, nil
	case ref.Optional != nil && *ref.Optional:
		return "", false, nil
	}
	return "", false, errors.New("environment variable key \"" + ref.Key + "\" not found in file \"" + ref.Path + "\"")
}
