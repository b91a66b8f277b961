// Command overlay writes what `go build -overlay` needs to make carob a quarter smaller, in memory too: GOROOT's text/template with one line
// changed. It is standard library plus standard tools only, imports nothing of carob, and nothing imports it.
//
// A template can call any method of any value by a name that is known only when it runs. A program that can execute templates, as the
// kubectl inside carob does for its help, must therefore keep every exported method of every type that is reachable, and all that those
// methods need: more than a quarter of carob, none of it ever called. The changed line finds only the methods that templates in carob do
// call, by constant names, so that the linker knows which. Templates of users (kubectl get -o go-template) see decoded JSON, which has no
// methods.
//
// A program built without the overlay does the same and is larger. With a text/template that this program does not recognise, the
// overlay is empty.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"go/format"
	"os"
	"path/filepath"
	"strings"
)

// methods are the names that the templates in carob call: those for kubectl's help (k8s.io/kubectl/pkg/util/templates), for kubectl
// explain, and cobra's own. A test looks for others.
var methods = []string{
	"CommandPath", "HasAvailableSubCommands", "HasExample", "HasFlags", "HasInheritedFlags", "HasSubCommands", "InheritedFlags",
	"LocalFlags", "NameAndAliases", "PersistentFlags", "Runnable", "String", "UsageString", "UseLine",
}

const (
	line    = "if method := ptr.MethodByName(fieldName); method.IsValid() {"
	changed = "if method := methodNamed(ptr, fieldName); method.IsValid() {"
)

func main() {
	out := flag.String("out", "build/overlay", "folder to write to")
	goroot := flag.String("goroot", "", "GOROOT of the toolchain that builds (go env GOROOT)")
	flag.Parse()
	if err := run(*out, *goroot); err != nil {
		fmt.Fprintln(os.Stderr, "overlay:", err)
		os.Exit(1)
	}
}

func run(out, goroot string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	original := filepath.Join(goroot, "src", "text", "template", "exec.go")
	src, err := os.ReadFile(original)
	if err != nil {
		return err
	}
	replace := map[string]string{}
	if text, ok := patch(string(src)); ok {
		file, err := filepath.Abs(filepath.Join(out, "exec.go"))
		if err != nil {
			return err
		}
		if err := writeIfChanged(file, text); err != nil {
			return err
		}
		replace[original] = file
	} else {
		fmt.Fprintln(os.Stderr, "overlay: this Go's text/template is not the known one: the program is built without the overlay and will be larger")
	}
	raw, err := json.MarshalIndent(map[string]any{"Replace": replace}, "", "  ")
	if err != nil {
		return err
	}
	return writeIfChanged(filepath.Join(out, "overlay.json"), raw)
}

// patch changes the one line; false if it is not there exactly once, or if methods are found in another place too.
func patch(src string) ([]byte, bool) {
	if strings.Count(src, line) != 1 || strings.Count(src, "MethodByName(") != 1 {
		return nil, false
	}
	var b strings.Builder
	b.WriteString(strings.Replace(src, line, changed, 1))
	b.WriteString("\n// methodNamed finds the methods that templates of this program call.\nfunc methodNamed(v reflect.Value, name string) reflect.Value {\nswitch name {\n")
	for _, m := range methods {
		fmt.Fprintf(&b, "case %q:\nreturn v.MethodByName(%q)\n", m, m)
	}
	b.WriteString("}\nreturn reflect.Value{}\n}\n")
	text, err := format.Source([]byte(b.String()))
	return text, err == nil
}

// writeIfChanged leaves the file's time alone if nothing is new, so that nothing is built anew.
func writeIfChanged(path string, data []byte) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == string(data) {
		return nil
	}
	return os.WriteFile(path, data, 0o644)
}
