package tree

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"
)

// PrintOptions are how the text looks.
type PrintOptions struct {
	Color bool
	Now   time.Time
	// Namespaced heads each namespace with a line of its own.
	Namespaced bool
}

type line struct{ prefix, name, ready, reason, age, detail string }

// Print draws the tree as aligned text: one line an object, a container or a process.
func Print(w io.Writer, t *Tree, o PrintOptions) error {
	rows := []line{{name: "NAME", ready: "READY", reason: "STATUS", age: "AGE", detail: "DETAIL"}}
	ns := ""
	for _, r := range t.Roots {
		if o.Namespaced && r.Namespace != ns {
			ns = r.Namespace
			rows = append(rows, line{name: "Namespace/" + ns})
		}
		walk(r, "", "", o, &rows)
	}
	widths := [4]int{}
	for _, r := range rows {
		for i, cell := range []string{r.prefix + r.name, r.ready, r.reason, r.age} {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	for i, r := range rows {
		s := pad(r.prefix+r.name, widths[0]) + "  " + pad(r.ready, widths[1]) + "  " + pad(r.reason, widths[2]) + "  " + pad(r.age, widths[3]) + "  " + r.detail
		s = strings.TrimRight(s, " ")
		if o.Color && i > 0 {
			s = paint(s, r)
		}
		if _, err := fmt.Fprintln(w, s); err != nil {
			return err
		}
	}
	return nil
}

func walk(n *Node, prefix, below string, o PrintOptions, rows *[]line) {
	l := describe(n, o)
	l.prefix = prefix
	*rows = append(*rows, l)
	for i, c := range n.Children {
		if i == len(n.Children)-1 {
			walk(c, below+"└─", below+"  ", o, rows)
		} else {
			walk(c, below+"├─", below+"│ ", o, rows)
		}
	}
}

func describe(n *Node, o PrintOptions) line {
	switch n.Type {
	case "pause":
		return line{name: "pause", detail: fmt.Sprintf("pid %d, %s, holds %s", n.Process.PID, size(n.Process.RSSBytes), strings.Join(telling(n.Process.Shares), " "))}
	case "container":
		c := n.Container
		l := line{name: n.Name, ready: yesNo(c.Ready), reason: title(c.State), detail: c.Image}
		if c.Role != "container" {
			l.name += " (" + c.Role + ")"
		}
		if c.Detail != "" {
			l.reason = c.Detail
		}
		if c.Restarts > 0 {
			l.detail += fmt.Sprintf(", %d restarts", c.Restarts)
		}
		if len(c.Shares) > 0 {
			l.detail += ", shares " + strings.Join(telling(c.Shares), " ")
		}
		if own := slices.DeleteFunc(slices.Clone(c.Mounts), isToken); len(own) > 0 {
			l.detail += ", mounts " + strings.Join(own, " ")
		}
		return l
	case "process":
		p := n.Process
		cmd := strings.Join(p.Command, " ")
		if cmd == "" {
			cmd = "[" + p.Comm + "]"
		}
		return line{name: p.Comm, detail: fmt.Sprintf("pid %d, %s, %s", p.PID, size(p.RSSBytes), short(cmd))}
	}
	l := line{name: n.Kind + "/" + n.Name, ready: n.Replicas, reason: n.Reason}
	if l.ready == "" {
		l.ready = n.Ready
	}
	if n.Created != nil {
		l.age = duration.HumanDuration(o.Now.Sub(*n.Created))
	}
	if p := n.Pod; p != nil {
		l.reason = p.Phase
		var parts []string
		if p.IP != "" {
			parts = append(parts, p.IP)
		}
		if p.Node != "" {
			parts = append(parts, "on "+p.Node)
		}
		for _, v := range p.Volumes {
			if isToken(v.Name) {
				continue
			}
			parts = append(parts, v.Name+"="+v.Source)
		}
		l.detail = strings.Join(parts, ", ")
	}
	return l
}

// isToken says whether a volume, or the mount of one, is the service account token that every Pod gets unasked.
func isToken(volume string) bool { return strings.HasPrefix(volume, "kube-api-access-") }

// telling leaves out the namespaces that say nothing about the Pod: those that all processes of a machine mostly share, and pause's own
// empty root.
func telling(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == "user" || s == "cgroup" || s == "mnt" })
}

func yesNo(b bool) string {
	if b {
		return "True"
	}
	return "False"
}

func title(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// short keeps one line of at most 60 characters, and no control characters of a process' making.
func short(s string) string {
	r := []rune(strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, s))
	if len(r) > 60 {
		return string(r[:59]) + "…"
	}
	return string(r)
}

func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1fGi", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1fMi", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%dKi", n>>10)
}

func pad(s string, w int) string {
	if n := w - len([]rune(s)); n > 0 {
		return s + strings.Repeat(" ", n)
	}
	return s
}

// paint colours a line by how well its subject is: red for failure, green for readiness, dim for processes.
func paint(s string, l line) string {
	switch {
	case strings.HasPrefix(l.detail, "pid "):
		return "\x1b[2m" + s + "\x1b[0m"
	case l.reason == "Failed" || strings.Contains(l.reason, "Error") || strings.Contains(l.reason, "BackOff"):
		return "\x1b[31m" + s + "\x1b[0m"
	case l.ready == "True" || l.reason == "Running":
		return "\x1b[32m" + s + "\x1b[0m"
	}
	return s
}
