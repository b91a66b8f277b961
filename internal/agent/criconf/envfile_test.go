package criconf

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestParseEnvFile(t *testing.T) {
	for _, tt := range []struct{ name, text, key, want, problem string }{
		{"one", "A='b'\n", "A", "b", ""},
		{"no newline", "A='b'", "A", "b", ""},
		{"among others", "# A='x'\n\n  B='1' # note\nA='b c'#\n", "A", "b c", ""},
		{"several lines", "B='x\n  A='\nA='1\n\n2'\n", "A", "1\n\n2", ""},
		{"more behind a value", "A='1' 2\n", "A", "", "invalid environment variable format at line 1: unexpected content after closing quote"},
		{"value of several lines", "A='1\n# 2\n  3'\n", "A", "1\n# 2\n  3", ""},
		{"not there", "A='b'", "C", "", ""},
		{"nothing assigned", "A= 'b'\nA='c'", "A", "", ""},
		{"nothing assigned to another", "B= 'b'\nA='c'", "A", "c", ""},
		{"nothing is special", `A='$B\n"'`, "A", `$B\n"`, ""},
		{"no sign", "A", "A", "", "invalid environment variable format at line 1: missing '='"},
		{"no name", "='b'", "A", "", "invalid environment variable format at line 1: empty variable name"},
		{"space before the sign", "A ='b'", "A", "", "invalid environment variable format at line 1: whitespace before '=' is not allowed"},
		{"no quotes", "\nA=b", "A", "", "invalid environment variable format at line 2: value must be enclosed in single quotes"},
		{"open", "A='b\nc\n", "A", "", "invalid environment variable format at line 1: unclosed single quote"},
		{"what comes later does not count", "A='b'\nx", "A", "b", ""},
	} {
		got, err := parseEnvFile(tt.text, tt.key)
		if text := errText(err); got != tt.want || text != tt.problem {
			t.Errorf("%s: %q %q, want %q %q", tt.name, got, text, tt.want, tt.problem)
		}
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestEnvFileStaysInItsVolume: what a container puts into the volume leads nowhere else.
func TestEnvFileStaysInItsVolume(t *testing.T) {
	dir := t.TempDir()
	volume := filepath.Join(dir, "v")
	secret := filepath.Join(dir, "secret")
	for path, text := range map[string]string{secret: "A='stolen'", filepath.Join(volume, "d", "env"): "A='ok'", filepath.Join(volume, "large"): "A='" + strings.Repeat("x", maxEnvFile)} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"up": "../secret", "abs": secret, "inside": "d/env", "updir": ".."} {
		if err := os.Symlink(to, filepath.Join(volume, link)); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{"d/env": "ok", "inside": "ok", "/d/env": "ok", "up": "", "abs": "", "updir/secret": "", "d": "", "none": "", "large": ""} {
		got, err := envFile(volume, &corev1.FileKeySelector{VolumeName: "v", Path: path, Key: "A"})
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q %v", path, got, err)
		}
	}
}
