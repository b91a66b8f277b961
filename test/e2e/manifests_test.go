//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
)

// simple is a Pod whose one container, main, runs a script in busybox. more are further lines of its spec, unindented.
func simple(name, script string, more ...string) string {
	spec := append([]string{"terminationGracePeriodSeconds: 1", "containers:", container("main", script)}, more...)
	return podOf(name, spec...)
}

// podOf is a Pod with these lines of its spec, unindented.
func podOf(name string, spec ...string) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: %s\n  labels: {run: %s}\nspec:\n%s\n", name, name, indent(strings.Join(spec, "\n"), 2))
}

// container is one of a list of containers: a script in busybox, and further lines.
func container(name, script string, more ...string) string {
	lines := []string{"- name: " + name, "  image: busybox", "  imagePullPolicy: IfNotPresent", `  command: ["sh", "-c", ` + quote(script) + "]"}
	for _, m := range more {
		lines = append(lines, indent(m, 2))
	}
	return strings.Join(lines, "\n")
}

// forever is a script that sleeps, and ends at once when it is told to.
const forever = "trap 'exit 0' TERM; sleep 100000 & wait"

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func indent(text string, by int) string {
	lines := strings.Split(strings.Trim(text, "\n"), "\n")
	for i, l := range lines {
		if l != "" {
			lines[i] = strings.Repeat(" ", by) + l
		}
	}
	return strings.Join(lines, "\n")
}

// deployment is one whose Pods run a script, which can tell its version from $VERSION; more are further lines of its spec.
func deployment(name string, replicas int, more ...string) string {
	return fmt.Sprintf(`---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: %s
spec:
  replicas: %d
  selector: {matchLabels: {app: %s}}
%s
  template:
    metadata: {labels: {app: %s}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
%s
`, name, replicas, name, indent(strings.Join(more, "\n"), 2), name, indent(container("main", forever, "env: [{name: VERSION, value: one}]"), 6))
}
