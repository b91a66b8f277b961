package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == crunChild {
		if err := crunFloor(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	b := &bench{}
	only := flag.String("only", os.Getenv("ONLY"), "names of measurements, by commas; all if empty")
	out := flag.String("o", "", "file for the results as JSON")
	list := flag.Bool("list", false, "list the measurements and end")
	flag.StringVar(&b.binary, "binary", "bin/carob", "the program to measure")
	flag.StringVar(&b.images, "images", "build/images", "folder of busybox.tar")
	flag.StringVar(&b.dir, "dir", "", "folder for state, on the disk to be measured")
	flag.IntVar(&b.runs, "runs", 15, "how often quick things are repeated")
	flag.IntVar(&b.pods, "pods", 500, "how many Pods the measurement of density makes")
	flag.Parse()
	if *list {
		for _, m := range measurements {
			fmt.Printf("%-14s %s\n", m.name, m.what)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := run(ctx, b, *only, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, b *bench, only, out string) (err error) {
	chosen, err := choose(only)
	if err != nil {
		return err
	}
	for _, p := range []*string{&b.binary, &b.images, &b.dir} {
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	defer func() { err = errors.Join(err, b.close()) }()
	var all []Result
	for _, m := range chosen {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fmt.Fprintf(os.Stderr, "measuring %s ...\n", m.name)
		list, err := m.run(ctx, b)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		for i := range list {
			list[i].Measurement = m.name
			fmt.Fprintln(os.Stderr, "  "+list[i].line())
		}
		all = append(all, list...)
	}
	table(all)
	if out == "" {
		return nil
	}
	raw, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(raw, '\n'), 0o644)
}

func choose(only string) ([]measurement, error) {
	if only == "" {
		return slices.DeleteFunc(slices.Clone(measurements), func(m measurement) bool { return m.long }), nil
	}
	var chosen []measurement
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(measurements, func(m measurement) bool { return m.name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("no measurement is called %q: see -list", name)
		}
		chosen = append(chosen, measurements[i])
	}
	return chosen, nil
}

// table prints the results, aligned.
func table(all []Result) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tMEDIAN\tLEAST\tMOST\tRUNS\tBUDGET\t")
	for _, r := range all {
		budget, verdict := "", ""
		if r.Budget != 0 {
			op := "<="
			if r.AtLeast {
				op = ">="
			}
			budget = fmt.Sprintf("%s %s", op, r.number(r.Budget))
			verdict = "pass"
			if !r.pass() {
				verdict = "OVER"
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", r.What, r.number(r.Median), r.number(r.Least), r.number(r.Most), r.Runs, budget, verdict)
	}
	w.Flush()
}
