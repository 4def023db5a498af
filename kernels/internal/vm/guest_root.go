//go:build linux

package vm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	host = "/host" // the host's /, by 9p
	mem  = "/mem"  // what is written, and the new root
	root = mem + "/root"
	p9   = "trans=virtio,version=9p2000.L,msize=524288,cache="
)

// enterRoot makes the guest's root and moves into it. Rootfs itself cannot be pivoted away from; a moved mount can, so
// that pivot_root(2) works in tests.
func (j job) enterRoot() error {
	if err := errors.Join(mount("root", host, "9p", unix.MS_RDONLY, p9+"loose"), mount("mem", mem, "tmpfs", 0, "size=80%"),
		overlay(0, host+j.Root, root)); err != nil {
		return err
	}
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if err := errors.Join(os.MkdirAll(root+dir, 0o755), unix.Mount(dir, root+dir, "", unix.MS_MOVE, "")); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	mountKernelFiles()
	if err := errors.Join(j.show(), j.mountWork(), j.linkModules(), linkDescriptors()); err != nil {
		return err
	}
	return errors.Join(os.Chdir(root), unix.Mount(".", "/", "", unix.MS_MOVE, ""), unix.Chroot("."), os.Chdir("/"),
		// As systemd has it, and so nearly every host: what does not care for propagation shall fail here.
		unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""))
}

// mountKernelFiles ignores errors: what the kernel does not have stays absent.
func mountKernelFiles() {
	for _, m := range []struct{ target, kind, data string }{
		{"/tmp", "tmpfs", "mode=1777"},
		{"/run", "tmpfs", "mode=755"},
		{"/dev/pts", "devpts", "ptmxmode=666"},
		{"/dev/shm", "tmpfs", "mode=1777"},
		{"/dev/mqueue", "mqueue", ""},
		{"/sys/fs/cgroup", "cgroup2", ""},
		{"/sys/kernel/security", "securityfs", ""},
		{"/sys/fs/selinux", "selinuxfs", ""},
		{"/sys/fs/bpf", "bpf", ""},
	} {
		mount(m.kind, root+m.target, m.kind, 0, m.data)
	}
}

// show makes directories of the host visible through what now hides them.
func (j job) show() error {
	for i, dir := range j.Show {
		if err := overlay(i+1, host+dir, root+dir); err != nil {
			return err
		}
	}
	return nil
}

func (j job) mountWork() error {
	if j.Work == "" {
		return nil
	}
	return mount("work", root+j.Work, "9p", 0, p9+"mmap")
}

// linkModules puts the kernel's modules where modprobe, also the kernel's own call of it, looks for them.
func (j job) linkModules() error {
	link := root + "/lib/modules/" + filepath.Base(j.Modules)
	if _, err := os.Lstat(link); err == nil {
		return nil
	}
	return errors.Join(os.MkdirAll(filepath.Dir(link), 0o755), os.Symlink(j.Modules, link))
}

// linkDescriptors does for /dev what udev does elsewhere.
func linkDescriptors() error {
	dev := root + "/dev/"
	return errors.Join(os.Symlink("/proc/self/fd", dev+"fd"), os.Symlink("fd/0", dev+"stdin"),
		os.Symlink("fd/1", dev+"stdout"), os.Symlink("fd/2", dev+"stderr"))
}

// overlay mounts a directory of the host so that it can be written to. The number must be unused.
func overlay(number int, lower, target string) error {
	upper, work := mem+"/upper"+strconv.Itoa(number), mem+"/work"+strconv.Itoa(number)
	if err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o755)); err != nil {
		return err
	}
	return mount("overlay", target, "overlay", 0, "lowerdir="+lower+",upperdir="+upper+",workdir="+work)
}
