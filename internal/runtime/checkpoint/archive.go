package checkpoint

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"
)

// Images is the folder in the archive, and in the work folder, with CRIU's images of the processes.
const Images = "checkpoint"

// Contents is what an archive is made of.
type Contents struct {
	// Work is the folder that was the OCI runtime's work path; in it, Images is the folder that was its image path.
	Work string
	// Config becomes config.dump.
	Config Config
	// Spec is the OCI specification of the container and becomes spec.dump, Status the CRI's view of it and becomes status.dump: JSON both.
	Spec, Status []byte
	// Upper is what the container wrote, as an overlay keeps it, over Layers, topmost first.
	Upper  string
	Layers []string
}

// Config names the container and what it was made from, with the fields that checkpointctl knows.
type Config struct {
	ID              string    `json:"id"`
	Name            string    `json:"name"`
	RootfsImage     string    `json:"rootfsImage,omitempty"`
	RootfsImageRef  string    `json:"rootfsImageRef,omitempty"`
	RootfsImageName string    `json:"rootfsImageName,omitempty"`
	OCIRuntime      string    `json:"runtime,omitempty"`
	CreatedTime     time.Time `json:"createdTime"`
	CheckpointedAt  time.Time `json:"checkpointedTime"`
	RestoredAt      time.Time `json:"restoredTime"`
	Restored        bool      `json:"restored"`
}

// Write writes the archive: config.dump, spec.dump, status.dump, CRIU's dump.log and stats-dump where there are such, rootfs-diff.tar with
// what the container added or changed, deleted.files with what it removed, and the folder Images. It ends early when ctx does.
func Write(ctx context.Context, w io.Writer, c Contents) error {
	a := archive{tar: tar.NewWriter(&until{ctx, w}), at: c.Config.CheckpointedAt}
	diff, err := os.CreateTemp(c.Work, "rootfs-diff-")
	if err != nil {
		return err
	}
	defer diff.Close()
	if err := os.Remove(diff.Name()); err != nil {
		return err
	}
	deleted, err := writeDifference(&until{ctx, diff}, c.Upper, c.Layers)
	if err != nil {
		return fmt.Errorf("what the container wrote: %w", err)
	}
	for _, f := range []struct {
		name  string
		value any
	}{{"config.dump", c.Config}, {"spec.dump", json.RawMessage(c.Spec)}, {"status.dump", json.RawMessage(c.Status)}, {"deleted.files", deleted}} {
		raw, err := json.MarshalIndent(f.value, "", "  ")
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if err := a.add(f.name, int64(len(raw)), bytes.NewReader(raw)); err != nil {
			return err
		}
	}
	size, err := diff.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if err := a.add("rootfs-diff.tar", size, io.NewSectionReader(diff, 0, size)); err != nil {
		return err
	}
	for _, name := range []string{"dump.log", "stats-dump"} {
		if err := a.file(filepath.Join(c.Work, name), name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := a.images(filepath.Join(c.Work, Images)); err != nil {
		return err
	}
	return a.tar.Close()
}

// until fails once its context has ended.
type until struct {
	ctx context.Context
	w   io.Writer
}

func (u *until) Write(b []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.w.Write(b)
}

type archive struct {
	tar *tar.Writer
	at  time.Time
}

func (a *archive) add(name string, size int64, r io.Reader) error {
	if err := a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: size, ModTime: a.at}); err != nil {
		return err
	}
	if _, err := io.CopyN(a.tar, r, size); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (a *archive) file(file, name string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return a.add(name, st.Size(), f)
}

// images adds the folder of CRIU's images. An OCI runtime that says it made a checkpoint and left none has not.
func (a *archive) images(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return errors.New("the OCI runtime wrote no images of the processes")
	}
	if err := a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: Images + "/", Mode: 0o700, ModTime: a.at}); err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			return fmt.Errorf("%s among the images is no regular file", e.Name())
		}
		if err := a.file(filepath.Join(dir, e.Name()), path.Join(Images, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
