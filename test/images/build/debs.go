package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// download brings the packages into the cache and returns their files by name. Only what is missing is asked for.
func download(cache string, names []string) (map[string]string, error) {
	found, missing := look(cache, names)
	if len(missing) == 0 {
		return found, nil
	}
	err := aptGet(cache, append([]string{"download"}, missing...)...)
	if err != nil {
		if err := aptGet(cache, "update"); err != nil {
			return nil, err
		}
		err = aptGet(cache, append([]string{"download"}, missing...)...)
	}
	if err != nil {
		return nil, err
	}
	if found, missing = look(cache, names); len(missing) > 0 {
		return nil, fmt.Errorf("packages %v were not downloaded", missing)
	}
	return found, nil
}

func look(cache string, names []string) (found map[string]string, missing []string) {
	found = map[string]string{}
	for _, n := range names {
		files, _ := filepath.Glob(filepath.Join(cache, n+"_*.deb"))
		if len(files) == 0 {
			missing = append(missing, n)
			continue
		}
		found[n] = files[len(files)-1]
	}
	return found, missing
}

func aptGet(dir string, args ...string) error {
	cmd := exec.Command("apt-get", append([]string{"-qq", "-o", "APT::Sandbox::User=root"}, args...)...)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("apt-get %s: %w", args[0], err)
	}
	return nil
}

// unpack adds a package's files to the tree. Its scripts do not run.
func (t tree) unpack(deb string) (err error) {
	cmd := exec.Command("dpkg-deb", "--fsys-tarfile", deb)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		_, _ = io.Copy(io.Discard, out)
		if e := cmd.Wait(); err == nil && e != nil {
			err = fmt.Errorf("dpkg-deb %s: %w", deb, e)
		}
	}()
	tr := tar.NewReader(out)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", deb, err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			return fmt.Errorf("%s: %w", deb, err)
		}
		t.add(h, data)
	}
}
