//go:build linux

package cgroups

import (
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// dir is a group's directory in one hierarchy.
type dir struct {
	*hierarchy
	path string // below the mount point: "/a/b"
	f    *os.File
	up   *dir // the directory above, while it is open; or nil
}

func (d *dir) fd() int { return int(d.f.Fd()) }

// String gives the directory's path on this machine.
func (d *dir) String() string { return path.Join(d.mount, d.path) }

func (d *dir) failed(op, file, value string, err error) error {
	controller, _, _ := strings.Cut(file, ".")
	if file == "" || controller == "cgroup" {
		controller = ""
	}
	return &Error{Op: op, Group: d.String(), Controller: controller, File: file, Value: value, Err: err, Hint: d.hint(op, file, err)}
}

func (d *dir) hint(op, file string, err error) string {
	switch {
	case op == "write" && file == "cgroup.subtree_control" && err == syscall.EBUSY:
		return "a group with processes of its own gives no controllers to groups below it: move them with Group.Vacate, or name another parent"
	case (file == "cgroup.procs" || file == "cgroup.controllers" || file == "cgroup.subtree_control") && gone(err):
		return "the group has been removed"
	case op == "write" && file == "cgroup.procs" && err == syscall.EBUSY:
		return "the group gives controllers to groups below it, and so takes no processes: add them to one of those"
	case op == "write" && file == "memory.memsw.limit_in_bytes" && err == syscall.ENOENT:
		return "the kernel was started without swapaccount=1"
	case op == "write" && file == "memory.limit_in_bytes" && err == syscall.EINVAL:
		return "more than memory and swap together may be: set Swap too"
	case op == "mkdir" && err == syscall.EAGAIN:
		return "a group above allows no more groups below it, or none so deep: Descendants and Depth of its Limits"
	case err == syscall.EROFS:
		return "the hierarchy is mounted read-only, as in most containers"
	case (err == syscall.EACCES || err == syscall.EPERM) && (op == "mkdir" || op == "write" || op == "open"):
		return "needs root, or a group that has been delegated to the user"
	case err == unix.ENOSYS && op == "open":
		return "needs Linux 5.6"
	}
	return ""
}

func (d *dir) read(file string, b []byte) ([]byte, error) {
	b, err := d.kernel.readFile(d.fd(), file, b)
	if err != nil {
		return nil, d.failed("read", file, "", err)
	}
	return b, nil
}

func (d *dir) write(file, value string) error {
	if err := d.kernel.writeFile(d.fd(), file, value); err != nil {
		return d.failed("write", file, value, err)
	}
	return nil
}

// child opens a directory below.
func (d *dir) child(name string) (dir, error) {
	c := dir{hierarchy: d.hierarchy, path: path.Join(d.path, name)}
	fd, err := d.kernel.open(d.fd(), name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return dir{}, c.failed("open", "", "", err)
	}
	c.f = os.NewFile(uintptr(fd), "cgroup")
	return c, nil
}

// make makes a directory below and opens it.
func (d *dir) make(name string) (dir, error) {
	c := dir{hierarchy: d.hierarchy, path: path.Join(d.path, name)}
	if err := d.kernel.mkdir(d.fd(), name); err != nil {
		return dir{}, c.failed("mkdir", "", "", err)
	}
	c, err := d.child(name)
	if err == nil && !d.v2 && slices.Contains(d.controllers, "cpuset") {
		err = c.inheritCPUs(d)
	}
	if err != nil {
		if c.f != nil {
			c.f.Close()
		}
		d.kernel.rmdir(d.fd(), name)
		return dir{}, err
	}
	return c, nil
}

// inheritCPUs copies what version 1 leaves empty: no process may enter a cpuset without processors and memory.
func (d *dir) inheritCPUs(parent *dir) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		b, err := parent.read(file, make([]byte, 256))
		if err != nil {
			return err
		}
		if err := d.write(file, strings.TrimSpace(string(b))); err != nil {
			return err
		}
	}
	return nil
}

// names lists the directories below.
func (d *dir) names() ([]string, error) {
	names, err := d.kernel.groupsIn(d.fd())
	if err != nil {
		return nil, d.failed("list", "", "", err)
	}
	return names, nil
}

// enable gives controllers to the groups below a directory of version 2, and before that to the directory itself where its
// own parent has not.
func (d *dir) enable(controllers []string) error {
	if len(controllers) == 0 {
		return nil
	}
	lack, err := d.lacking("cgroup.subtree_control", controllers)
	if err != nil || len(lack) == 0 {
		return err
	}
	above, err := d.lacking("cgroup.controllers", lack)
	if err != nil {
		return err
	}
	if len(above) > 0 {
		if d.path == "/" {
			return missing("enable", "", strings.Join(above, " "), d.String(), "the kernel or the owner of the group does not give it")
		}
		parent, err := d.openDir(path.Dir(d.path))
		if err != nil {
			return err
		}
		defer parent.f.Close()
		if err := parent.enable(above); err != nil {
			return err
		}
	}
	return d.write("cgroup.subtree_control", "+"+strings.Join(lack, " +"))
}

func (d *dir) lacking(file string, controllers []string) ([]string, error) {
	b, err := d.read(file, make([]byte, 0, 128))
	if err != nil {
		return nil, err
	}
	have := strings.Fields(string(b))
	return slices.DeleteFunc(slices.Clone(controllers), func(c string) bool { return slices.Contains(have, c) }), nil
}
