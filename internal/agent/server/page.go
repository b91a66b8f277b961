package server

import (
	"fmt"
	"io"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"time"
)

// page is metrics in the text form of Prometheus.
type page struct{ families map[string]*family }

// family are the samples of one name.
type family struct {
	kind, help string
	lines      []string
}

// add adds a sample. labels are names and values in turn. at is when it was taken; zero for now.
func (p *page) add(name, kind, help string, value float64, at time.Time, labels ...string) {
	if p.families == nil {
		p.families = map[string]*family{}
	}
	f := p.families[name]
	if f == nil {
		f = &family{kind: kind, help: help}
		p.families[name] = f
	}
	var line strings.Builder
	line.WriteString(name)
	for i := 0; i+1 < len(labels); i += 2 {
		open := ","
		if i == 0 {
			open = "{"
		}
		line.WriteString(open + labels[i] + `="` + escape.Replace(labels[i+1]) + `"`)
	}
	if len(labels) > 1 {
		line.WriteString("}")
	}
	line.WriteString(" " + strconv.FormatFloat(value, 'g', -1, 64))
	if !at.IsZero() {
		line.WriteString(" " + strconv.FormatInt(at.UnixMilli(), 10))
	}
	f.lines = append(f.lines, line.String())
}

var escape = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

// write sends the families in the order of their names.
func (p *page) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	names := make([]string, 0, len(p.families))
	for n := range p.families {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		f := p.families[n]
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", n, f.help, n, f.kind)
		for _, l := range f.lines {
			io.WriteString(w, l+"\n")
		}
	}
}
