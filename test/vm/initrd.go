package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// bootModules are those that the kernel needs to reach its root.
var bootModules = []string{"virtio_pci", "virtio_blk", "ext4"}

// stage1 is the first program: it loads modules, mounts the root and hands over to the init that the kernel's command line names.
const stage1 = `#!/bin/busybox sh
/bin/busybox mkdir -p /proc /dev /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
while read -r m; do /bin/busybox insmod "/modules/$m"; done </modules/order
/bin/busybox mount -t ext4 -o rw,noatime /dev/vda /root
/bin/busybox mount -t ext4 -o ro /dev/vdb /root/load
/bin/busybox mount --move /dev /root/dev
for w in $(/bin/busybox cat /proc/cmdline); do
  case $w in guest.init=*) init=${w#guest.init=} ;; esac
done
/bin/busybox umount /proc
exec /bin/busybox switch_root /root "$init"
`

// makeInitrd writes an archive (cpio, newc) with a static busybox, the modules and stage1.
func makeInitrd(tree, release, file string) error {
	modules := filepath.Join(tree, "usr/lib/modules", release)
	order, err := withDependencies(filepath.Join(modules, "modules.dep"), bootModules)
	if err != nil {
		return err
	}
	var a cpio
	for _, dir := range []string{"bin", "modules", "root", "dev", "proc"} {
		a.add(dir, 0o40755, nil)
	}
	a.add("init", 0o100755, []byte(stage1))
	busybox, err := os.ReadFile(filepath.Join(tree, "usr/bin/busybox"))
	if err != nil {
		return err
	}
	a.add("bin/busybox", 0o100755, busybox)
	var names bytes.Buffer
	for _, m := range order {
		data, err := os.ReadFile(filepath.Join(modules, m))
		if err != nil {
			return err
		}
		a.add("modules/"+path.Base(m), 0o100644, data)
		fmt.Fprintln(&names, path.Base(m))
	}
	a.add("modules/order", 0o100644, names.Bytes())
	a.add("TRAILER!!!", 0, nil)
	return os.WriteFile(file, a.Bytes(), 0o644)
}

// withDependencies reads modules.dep and returns the files of the modules and of what they need, those that are needed first. What is
// built into the kernel needs none.
func withDependencies(file string, names []string) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	needs, byName := map[string][]string{}, map[string]string{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		module, deps, _ := strings.Cut(lines.Text(), ":")
		needs[module] = strings.Fields(deps)
		byName[strings.TrimSuffix(path.Base(module), ".ko")] = module
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	builtin, err := os.ReadFile(filepath.Join(filepath.Dir(file), "modules.builtin"))
	if err != nil {
		return nil, err
	}
	var order []string
	seen := map[string]bool{}
	var visit func(string)
	visit = func(m string) {
		if seen[m] {
			return
		}
		seen[m] = true
		for _, d := range needs[m] {
			visit(d)
		}
		order = append(order, m)
	}
	for _, n := range names {
		m, ok := byName[n]
		if !ok && bytes.Contains(builtin, []byte("/"+n+".ko\n")) {
			continue
		}
		if !ok {
			return nil, fmt.Errorf("the kernel has no module %s", n)
		}
		visit(m)
	}
	return order, nil
}

// cpio writes the archive that the kernel reads as its first file system.
type cpio struct {
	bytes.Buffer
	inode int
}

func (a *cpio) add(name string, mode uint32, data []byte) {
	a.inode++
	fmt.Fprintf(a, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", a.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	a.WriteString(name + "\x00")
	a.pad()
	a.Write(data)
	a.pad()
}

func (a *cpio) pad() {
	for a.Len()%4 != 0 {
		a.WriteByte(0)
	}
}
