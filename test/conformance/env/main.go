// Command env prints the environment. Debian's busybox, whose shell stands in for that of the suite's image, hides variables from its children whose
// names are no words of a shell; the suite looks for them, so they are taken from what the shell itself was given.
package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

func main() {
	all := os.Environ()
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", os.Getppid()))
	for _, v := range strings.Split(string(raw), "\x00") {
		name, _, ok := strings.Cut(v, "=")
		if ok && strings.ContainsAny(name, "-.") && !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	for _, v := range all {
		fmt.Println(v)
	}
}
