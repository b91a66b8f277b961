// Package internal holds the test of the rules of who may import whom.
package internal

import (
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "carob.dev/carob/"

// layers is the order of the packages: a package may import those of earlier layers and itself, never those of its own layer's
// other members nor later ones, but for the pairs in extra. The first prefix that fits wins, so longer ones come first within a layer.
var layers = [][]string{
	{"internal/config", "internal/failpoint", "internal/health", "internal/version"},
	{"internal/sys", "internal/api", "internal/pki"},
	{"internal/network"},
	{"internal/runtime", "internal/store"},
	{"internal/network/service", "internal/network/dns", "internal/network/policy", "internal/network/overlay"},
	{"internal/agent", "internal/apiserver", "internal/controller", "internal/scheduler"},
	{"internal/cluster", "internal/tree", "internal/cli", "internal/web"},
	{"internal/app"},
	{"cmd"},
}

// extra are the imports within one layer that are allowed, each for a reason.
var extra = map[string][]string{
	"internal/cli":     {"internal/tree"}, // carob tree prints the model
	"internal/pki":     {"internal/sys"},  // certificates are written atomically
	"internal/runtime": {"internal/sys"},
}

// forbidden are imports that certain packages may never have, directly.
var forbidden = map[string][]string{
	"internal/agent/podstate": {module + "internal/sys", "os", "syscall", "golang.org/x/sys"},
	"internal/scheduler":      {module + "internal/sys", module + "internal/store"},
	"internal/controller":     {module + "internal/sys", module + "internal/store"},
	"internal/agent":          {module + "internal/store"},
	"cmd/carob-shim":          {"k8s.io/", "net/http", "encoding/json/v2", module + "internal/agent"},
}

// denied are modules that no part of the product may depend on, however deep.
var denied = []string{"k8s.io/kubernetes", "github.com/docker/docker", "github.com/containerd/go-cni"}

func layerOf(pkg string) (int, string) {
	best, name := -1, ""
	for i, l := range layers {
		for _, p := range l {
			if (pkg == p || strings.HasPrefix(pkg, p+"/")) && len(p) > len(name) {
				best, name = i, p
			}
		}
	}
	return best, name
}

func TestImportRules(t *testing.T) {
	eachImport(t, func(pkg, file, imp string) {
		for prefix, list := range forbidden {
			if pkg != prefix && !strings.HasPrefix(pkg, prefix+"/") {
				continue
			}
			for _, f := range list {
				if imp == f || strings.HasPrefix(imp, strings.TrimSuffix(f, "/")+"/") {
					t.Errorf("%s: %s may not import %s", file, prefix, imp)
				}
			}
		}
		if !strings.HasPrefix(imp, module) {
			return
		}
		imp = strings.TrimPrefix(imp, module)
		from, fromName := layerOf(pkg)
		to, toName := layerOf(imp)
		switch {
		case from < 0:
			t.Errorf("%s: package %s stands in no layer", file, pkg)
		case to < 0:
			t.Errorf("%s: imports %s, which stands in no layer", file, imp)
		case fromName == toName || to < from:
		case to == from && allowed(fromName, toName):
		default:
			t.Errorf("%s: %s (layer %d) may not import %s (layer %d)", file, pkg, from, imp, to)
		}
	})
}

func allowed(from, to string) bool {
	for _, a := range extra[from] {
		if a == to {
			return true
		}
	}
	return false
}

// eachImport calls f for every import of every file of the product that is not a test.
func eachImport(t *testing.T, f func(pkg, file, imp string)) {
	t.Helper()
	for _, top := range []string{"../internal", "../cmd"} {
		err := filepath.WalkDir(top, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			for _, s := range parsed.Imports {
				imp, err := strconv.Unquote(s.Path.Value)
				if err != nil {
					return err
				}
				f(strings.TrimPrefix(filepath.Dir(path), "../"), path, imp)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestDeniedDependencies holds the line of what may be linked into the product, and that it needs no C compiler.
func TestDeniedDependencies(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "-f", "{{.ImportPath}}{{if .CgoFiles}} CGO{{end}}", "carob.dev/carob/cmd/...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		pkg, cgo, _ := strings.Cut(strings.TrimSpace(line), " ")
		if cgo != "" {
			t.Errorf("%s needs cgo", pkg)
		}
		for _, d := range denied {
			if pkg == d || strings.HasPrefix(pkg, d+"/") {
				t.Errorf("the product depends on %s, which is denied", pkg)
			}
		}
	}
}
