package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A volume that is a device is the file disk in its folder, and the name of its loop device is noted beside it.

func isDisk(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "disk"))
	return err == nil
}

// makeDisk makes the file, or makes it larger.
func makeDisk(dir string, size int64) error {
	f, err := os.OpenFile(filepath.Join(dir, "disk"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// attachLoop has a loop device show the file, unless one does.
func attachLoop(dir string) error {
	if noted(dir, "device") != "" {
		return nil
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer control.Close()
	disk, err := os.OpenFile(filepath.Join(dir, "disk"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer disk.Close()
	for range 8 { // others take loop devices too
		free, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return fmt.Errorf("find a loop device: %w", err)
		}
		name := fmt.Sprintf("/dev/loop%d", free)
		if err := unix.Mknod(name, unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(free)))); err != nil && err != unix.EEXIST {
			return fmt.Errorf("make %s: %w", name, err)
		}
		device, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		err = unix.IoctlSetInt(int(device.Fd()), unix.LOOP_SET_FD, int(disk.Fd()))
		device.Close()
		switch err {
		case nil:
			return note(dir, "device", name)
		case unix.EBUSY:
		default:
			return fmt.Errorf("attach %s: %w", name, err)
		}
	}
	return errors.New("no loop device is free")
}

func onLoop(dir string, request uint) error {
	name := noted(dir, "device")
	if name == "" {
		return nil
	}
	device, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer device.Close()
	if err := unix.IoctlSetInt(int(device.Fd()), request, 0); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func growLoop(dir string) error { return onLoop(dir, unix.LOOP_SET_CAPACITY) }

func detachLoop(dir string) error {
	if err := onLoop(dir, unix.LOOP_CLR_FD); err != nil && !errors.Is(err, unix.ENXIO) {
		return err
	}
	if err := os.Remove(filepath.Join(dir, "device")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// bindDevice shows a device at target, unless it is there already.
func bindDevice(device, target string) error {
	var st unix.Stat_t
	if err := unix.Lstat(target, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return nil
	}
	f, err := os.OpenFile(target, os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	if err := unix.Mount(device, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s on %s: %w", device, target, err)
	}
	return nil
}
