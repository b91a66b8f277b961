package checkpoint

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAble(t *testing.T) {
	const yes, no = "exit 0", "exit 1"
	for name, tc := range map[string]struct{ runtime, criu, says string }{
		"both":              {yes, "echo Looks good.", ""},
		"some missing":      {yes, "echo 'Looks good but some kernel features are missing'; exit 1", ""},
		"no command":        {no, yes, "+CRIU"},
		"no criu":           {yes, "", "install criu"},
		"criu does not run": {yes, "echo 'Error (criu/vdso.c:1): odd'; echo 'Error (criu/kerndat.c:2): failed'; exit 1", "check: Error (criu/vdso.c:1): odd; Error (criu/kerndat.c:2): failed): install a newer criu"},
		"criu says nothing": {yes, no, "exit status 1"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write := func(name, body string) string {
				file := filepath.Join(dir, name)
				if err := os.WriteFile(file, []byte("#!/bin/sh\n[ \"$*\" = 'checkpoint --help' ] || [ \"$*\" = check ] || exit 9\n"+body+"\n"), 0o755); err != nil {
					t.Fatal(err)
				}
				return file
			}
			runtime := write("runtime", tc.runtime)
			if tc.criu != "" {
				write("criu", tc.criu)
			}
			t.Setenv("PATH", dir)
			err := Able(t.Context(), runtime)
			if tc.says == "" && err != nil || tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)) {
				t.Errorf("%v, want %q", err, tc.says)
			}
		})
	}
}

func TestLastErrors(t *testing.T) {
	got := LastErrors("(0.1) fine\n(0.2) Error (a.c:1): one\nError (a.c:2): two\n(0.3) Error (a.c:3): three\nbye", 2)
	if d := cmp.Diff([]string{"Error (a.c:2): two", "Error (a.c:3): three"}, got); d != "" {
		t.Error(d)
	}
}
