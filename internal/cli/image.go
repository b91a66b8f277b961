package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

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
		b, line := pullBar(c.ErrOrStderr())
		err = cl.PullImage(c.Context(), args[0], func(s string) { line.clear(); say(c)(s) }, b)
		line.clear()
		return err
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

	export := &cobra.Command{Use: "export REFERENCE...", Short: "write images as one OCI archive", Args: cobra.MinimumNArgs(1)}
	file := export.Flags().StringP("file", "f", "-", "file to write (- is standard output)")
	export.RunE = func(c *cobra.Command, args []string) error {
		cl, err := client()
		if err != nil {
			return err
		}
		if *file == "-" {
			return cl.ExportImages(c.Context(), args, c.OutOrStdout())
		}
		f, err := os.Create(*file)
		if err != nil {
			return err
		}
		if err := cl.ExportImages(c.Context(), args, f); err != nil {
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

func megabytes(n uint64) string { return fmt.Sprintf("%.1fMB", float64(n)/1e6) }

func printImages(w io.Writer, images []admin.Image) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "IMAGE\tID\tSIZE\tUNIQUE")
	for _, i := range images {
		names := i.Tags
		if len(names) == 0 {
			names = i.Digests
		}
		if len(names) == 0 {
			names = []string{"<none>"}
		}
		for _, n := range names {
			unique := "-"
			if i.UniqueBytes != nil {
				unique = megabytes(*i.UniqueBytes)
			}
			fmt.Fprintf(t, "%s\t%.12s\t%s\t%s\n", n, strings.TrimPrefix(i.ID, "sha256:"), megabytes(i.SizeBytes), unique)
		}
	}
	return t.Flush()
}
