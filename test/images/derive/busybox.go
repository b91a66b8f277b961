package derive

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Busybox are the files of a busybox with a link for each of its applets, to be laid over a Debian, whose C library it needs. It is not the one of
// the offline busybox image, which runs its own applets where a shell names a program.
func Busybox(program string) ([]File, error) {
	raw, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	applets, err := exec.Command(program, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --list: %w", program, err)
	}
	files := []File{{Path: "usr/bin/busybox", Mode: 0o755, Data: string(raw)}}
	for _, a := range strings.Fields(string(applets)) {
		if a != "busybox" {
			files = append(files, File{Path: "usr/bin/" + a, Mode: 0o755, Link: "usr/bin/busybox"})
		}
	}
	return files, nil
}
