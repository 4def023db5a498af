//go:build linux

package main

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/plan"
)

// paths hides and protects what docker run does, but for a privileged command, and what is asked for.
func (f *flags) paths() []plan.Primitive {
	masks, readOnly := f.masked, []string(nil)
	if !f.privileged {
		masks = slices.Concat(f.hidden(chroot.DockerMasks()), masks)
		readOnly = f.hidden(chroot.DockerReadOnly())
	}
	return []plan.Primitive{chroot.Mask(masks), chroot.ReadOnly(readOnly)}
}

// sys is a /sys of the sandbox's own, with its network devices, and in it its control group. With the host's network or another's, and
// where the kernel would refuse another one, there is that of the host's root, read-only, or none.
func (f *flags) sys(asked []mount) (all []mount) {
	if !f.network.own() || !f.hasRoomForSys() || f.revealing() {
		return nil
	}
	all = append(all, mount{"/sys", chroot.Sysfs{Writable: f.privileged}})
	if f.cgroupns != "host" && !slices.ContainsFunc(asked, func(m mount) bool { return m.at == "/sys" || m.at == "/sys/fs" }) {
		all = append(all, mount{"/sys/fs/cgroup", chroot.Cgroupfs{}})
	}
	return all
}

// hasRoomForSys reports whether /sys is there or can be made.
func (f *flags) hasRoomForSys() bool {
	if f.layered() {
		return true
	}
	dir := filepath.Join("/", f.rootfs, "sys")
	if f.rootfs != "" {
		dir = filepath.Join(f.rootfs, "sys")
	}
	if _, err := os.Lstat(dir); err == nil {
		return true
	}
	return f.rootfs != "" && unix.Access(filepath.Dir(dir), unix.W_OK) == nil
}

// revealing reports whether a new /sys would show what the caller's hides: in a user namespace the kernel refuses it
// (mount_too_revealing). What is mounted at the places that are there for it hides nothing.
func (f *flags) revealing() bool {
	if f.hostIDs() && firstUserNamespace() {
		return false
	}
	mounts, err := chroot.Mounts(os.Getpid())
	if err != nil {
		return true
	}
	whole := false
	for _, m := range mounts {
		switch {
		case m.Mountpoint == "/sys":
			whole = m.FSType == "sysfs" && m.Root == "/"
		case strings.HasPrefix(m.Mountpoint, "/sys/") && !isPlace(m.Mountpoint):
			return true
		}
	}
	return !whole
}

// isPlace reports whether a directory of /sys is an empty one, made to mount something on it, or below such a mount.
func isPlace(name string) bool {
	for _, p := range []string{"/sys/fs/cgroup", "/sys/fs/bpf", "/sys/fs/fuse/connections", "/sys/fs/pstore", "/sys/fs/selinux", "/sys/fs/smackfs",
		"/sys/kernel/config", "/sys/kernel/debug", "/sys/kernel/security", "/sys/kernel/tracing", "/sys/firmware/efi/efivars", "/sys/hypervisor/s390"} {
		if name == p || strings.HasPrefix(name, p+"/") {
			return true
		}
	}
	return false
}

// firstUserNamespace: only the first one maps all ids to themselves.
func firstUserNamespace() bool {
	m, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && slices.Equal(strings.Fields(string(m)), []string{"0", "0", "4294967295"})
}

// hostDevices are what a privileged command sees in /dev beside the usual.
func hostDevices() (all []mount) {
	filepath.WalkDir("/dev", func(name string, d os.DirEntry, err error) error {
		switch {
		case err != nil: // it has just vanished, or may not be read
		case d.IsDir() && slices.Contains([]string{"/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd"}, name):
			return filepath.SkipDir
		case d.Type()&os.ModeDevice != 0 && !inEveryDev(name):
			all = append(all, mount{name, chroot.Device{Path: name}})
		}
		return nil
	})
	return all
}

// inEveryDev: chroot.Dev has it, or the terminal.
func inEveryDev(name string) bool {
	return slices.Contains([]string{"null", "zero", "full", "random", "urandom", "tty", "ptmx", "console"}, path.Base(name))
}
