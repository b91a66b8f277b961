package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"carob.dev/carob/internal/cli/admin"
	"carob.dev/carob/internal/config"
)

func imageCommand() *cobra.Command {
	c := &cobra.Command{Use: "image", Short: "the node's images"}
	src := config.AddRootFlag(c.PersistentFlags())
	client := func() (*admin.Client, error) {
		cfg, err := src.Load()
		if err != nil {
			return nil, UsageError{err}
		}
		return admin.NewClient(cfg), nil
	}
	say := func(c *cobra.Command) func(string) {
		return func(s string) { fmt.Fprintln(c.OutOrStdout(), s) }
	}

	ls := &cobra.Command{Use: "ls", Short: "list images", Args: cobra.NoArgs}
	format := addOutputFlag(ls)
	ls.RunE = func(c *cobra.Command, _ []string) error {
		cl, err := client()
		if err != nil {
			return err
		}
		images, err := cl.Images(c.Context())
		if err != nil {
			return err
		}
		return output(c.OutOrStdout(), *format, images, func(w io.Writer) error { return printImages(w, images) })
	}

	imp := &cobra.Command{Use: "import FILE...", Short: "read docker-archive or OCI archives (- is standard input)", Args: cobra.MinimumNArgs(1)}
	imp.RunE = func(c *cobra.Command, args []string) error {
		cl, err := client()
		if err != nil {
			return err
		}
		for _, name := range args {
			if err := importFile(c, cl, name, say(c)); err != nil {
				return fmt.Errorf("import %s: %w", name, err)
			}
		}
		return nil
	}

	pull := &cobra.Command{Use: "pull REFERENCE", Short: "pull an image", Args: cobra.ExactArgs(1)}
	pull.RunE = func(c *cobra.Command, args []string) error {
		cl, err := client()
		if err != nil {
			return err
		}
		return cl.PullImage(c.Context(), args[0], say(c))
	}

	rm := &cobra.Command{Use: "rm REFERENCE...", Short: "remove images by name or ID", Args: cobra.MinimumNArgs(1)}
	rm.RunE = func(c *cobra.Command, args []string) error {
		cl, err := client()
		if err != nil {
			return err
		}
		for _, ref := range args {
			if err := cl.RemoveImage(c.Context(), ref); err != nil {
				return err
			}
			say(c)(ref)
		}
		return nil
	}

	export := &cobra.Command{Use: "export REFERENCE", Short: "write an image as an OCI archive", Args: cobra.ExactArgs(1)}
	file := export.Flags().StringP("file", "f", "-", "file to write (- is standard output)")
	export.RunE = func(c *cobra.Command, args []string) error {
		cl, err := client()
		if err != nil {
			return err
		}
		if *file == "-" {
			return cl.ExportImage(c.Context(), args[0], c.OutOrStdout())
		}
		f, err := os.Create(*file)
		if err != nil {
			return err
		}
		if err := cl.ExportImage(c.Context(), args[0], f); err != nil {
			f.Close()
			os.Remove(*file)
			return err
		}
		return f.Close()
	}
	c.AddCommand(ls, imp, pull, rm, export)
	return c
}

func importFile(c *cobra.Command, cl *admin.Client, name string, say func(string)) error {
	if name == "-" {
		return cl.ImportImages(c.Context(), c.InOrStdin(), say)
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return cl.ImportImages(c.Context(), progress(f, info.Size(), name, c.ErrOrStderr()), say)
}

// progress draws how much of r was read, on a terminal only.
func progress(r io.Reader, size int64, name string, w io.Writer) io.Reader {
	f, ok := w.(*os.File)
	if !ok || size <= 0 || !term.IsTerminal(int(f.Fd())) {
		return r
	}
	return &bar{r: r, size: size, name: name, w: w}
}

type bar struct {
	r                 io.Reader
	size, done, shown int64
	name              string
	w                 io.Writer
}

func (b *bar) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.done += int64(n)
	if pct := b.done * 100 / b.size; pct != b.shown || err == io.EOF {
		b.shown = pct
		filled := int(pct * 30 / 100)
		fmt.Fprintf(b.w, "\r%s [%s%s] %3d%%", b.name, strings.Repeat("=", filled), strings.Repeat(" ", 30-filled), pct)
		if err == io.EOF {
			fmt.Fprint(b.w, "\r\x1b[K")
		}
	}
	return n, err
}

func printImages(w io.Writer, images []admin.Image) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "IMAGE\tID\tSIZE")
	for _, i := range images {
		names := i.Tags
		if len(names) == 0 {
			names = i.Digests
		}
		if len(names) == 0 {
			names = []string{"<none>"}
		}
		for _, n := range names {
			fmt.Fprintf(t, "%s\t%.12s\t%.1fMB\n", n, strings.TrimPrefix(i.ID, "sha256:"), float64(i.SizeBytes)/1e6)
		}
	}
	return t.Flush()
}
