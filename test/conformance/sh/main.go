// Command sh is the shell, and env, of the stand-in for the image busybox. Debian's busybox is older than that image's and hides from its children the
// variables whose names are no words of a shell; the suite looks for them. So the shell is started with these in one variable that it takes along,
// and env shows them again.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// hidden is the variable that the others travel in.
const hidden = "HIDDEN_FROM_THE_SHELL"

func main() {
	var words, others []string
	for _, v := range os.Environ() {
		name, value, _ := strings.Cut(v, "=")
		switch {
		case name == hidden:
			_ = json.Unmarshal([]byte(value), &others)
		case strings.ContainsAny(name, "-."):
			others = append(others, v)
		default:
			words = append(words, v)
		}
	}
	if filepath.Base(os.Args[0]) == "env" && len(os.Args) == 1 {
		for _, v := range append(words, others...) {
			fmt.Println(v)
		}
		return
	}
	if others != nil {
		text, err := json.Marshal(others)
		if err != nil {
			fmt.Fprintln(os.Stderr, "sh:", err)
			os.Exit(126)
		}
		words = append(words, hidden+"="+string(text))
	}
	err := syscall.Exec("/usr/bin/busybox", os.Args, words)
	fmt.Fprintln(os.Stderr, "sh:", err)
	os.Exit(126)
}
