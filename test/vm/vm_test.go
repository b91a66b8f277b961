package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTally(t *testing.T) {
	for name, tc := range map[string]struct {
		console, want string
	}{
		"all passed":     {"PASS a (1 ms)\nnoise\nPASS b\nDONE", ""},
		"one failed":     {"PASS a\nFAIL b: why\nDONE", "plain: 1 of 2 checks failed: b: why"},
		"hung":           {"PASS a", "plain: the machine ended or hung before its checks were through"},
		"nothing":        {"DONE", "plain: nothing was checked"},
		"failed, hung":   {"FAIL a: why", "plain: 1 of 1 checks failed: a: why"},
		"not at a start": {"PASS a\nsay FAIL b\nDONE", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var y tally
			for line := range strings.Lines(tc.console) {
				y.see(strings.TrimSuffix(line, "\n"))
			}
			got := ""
			if err := y.verdict("plain"); err != nil {
				got = err.Error()
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestWithDependencies(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"modules.dep":     "kernel/a.ko: kernel/c.ko kernel/b.ko\nkernel/b.ko: kernel/c.ko\nkernel/c.ko:\n",
		"modules.builtin": "kernel/fs/ext4.ko\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := withDependencies(filepath.Join(dir, "modules.dep"), []string{"ext4", "a"})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"kernel/c.ko", "kernel/b.ko", "kernel/a.ko"}, got); d != "" {
		t.Error(d)
	}
	if _, err := withDependencies(filepath.Join(dir, "modules.dep"), []string{"z"}); err == nil {
		t.Error("a module that is not there was found")
	}
}
