package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/template/parse"

	"k8s.io/kubectl/pkg/util/templates"
)

func TestPatch(t *testing.T) {
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	src, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(goroot)), "src", "text", "template", "exec.go"))
	if err != nil {
		t.Fatal(err)
	}
	out, ok := patch(string(src))
	if !ok {
		t.Fatal("this Go's text/template is not recognised")
	}
	for _, want := range []string{changed, `case "Runnable":`, `return v.MethodByName("Runnable")`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the changed source lacks %s", want)
		}
	}
	if _, ok := patch(string(src) + "\nvar _ = reflect.Value{}.MethodByName(x)\n"); ok {
		t.Error("a source that finds methods in a second place was taken")
	}
	if _, ok := patch("package template\n"); ok {
		t.Error("a source without the line was taken")
	}
}

// TestMethods finds the names that kubectl's help templates use: each must be a field of cobra.Command or in methods.
func TestMethods(t *testing.T) {
	fields := []string{"Aliases", "Example", "Long", "Short"}
	found := 0
	for _, text := range []string{templates.MainHelpTemplate(), templates.MainUsageTemplate(), templates.OptionsHelpTemplate(), templates.OptionsUsageTemplate()} {
		tree := parse.New("help")
		tree.Mode = parse.SkipFuncCheck
		if _, err := tree.Parse(text, "", "", map[string]*parse.Tree{}); err != nil {
			t.Fatal(err)
		}
		for _, name := range names(tree.Root) {
			found++
			if !slices.Contains(fields, name) && !slices.Contains(methods, name) {
				t.Errorf("a template of kubectl calls %s, which methods lacks", name)
			}
		}
	}
	if found < 10 {
		t.Errorf("only %d names were found in the templates", found)
	}
}

// names are the fields and methods that a part of a template names.
func names(n parse.Node) []string {
	var all []string
	list := func(l *parse.ListNode) {
		if l != nil {
			for _, n := range l.Nodes {
				all = append(all, names(n)...)
			}
		}
	}
	pipe := func(p *parse.PipeNode) {
		if p != nil {
			for _, c := range p.Cmds {
				for _, a := range c.Args {
					all = append(all, names(a)...)
				}
			}
		}
	}
	branch := func(b *parse.BranchNode) { pipe(b.Pipe); list(b.List); list(b.ElseList) }
	switch n := n.(type) {
	case *parse.ListNode:
		list(n)
	case *parse.ActionNode:
		pipe(n.Pipe)
	case *parse.PipeNode:
		pipe(n)
	case *parse.IfNode:
		branch(&n.BranchNode)
	case *parse.RangeNode:
		branch(&n.BranchNode)
	case *parse.WithNode:
		branch(&n.BranchNode)
	case *parse.FieldNode:
		all = append(all, n.Ident...)
	case *parse.VariableNode:
		all = append(all, n.Ident[1:]...)
	case *parse.ChainNode:
		all = append(append(all, names(n.Node)...), n.Field...)
	}
	return all
}
