//go:build linux

package chroot

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// errNoClone: a mount that is attached nowhere can be copied since Linux 6.15.
var errNoClone = errors.New("the kernel does not copy detached mounts")

// names are all names that the tree has in its directory.
func (d Dev) names() (all []string) {
	for _, dir := range d.dirs() {
		all = append(all, dir.name)
	}
	for _, l := range links {
		all = append(all, l[1])
	}
	selected, _ := d.nodes()
	for _, n := range selected {
		all = append(all, n.name)
	}
	return all
}

// dirs are the directories that others are mounted on.
func (d Dev) dirs() []dir {
	if d.Mqueue {
		return append(dirs[:], dir{"mqueue", 0o755})
	}
	return dirs[:]
}

// build makes the tree, in the caller's user namespace: whoever wants to write to it must have CAP_SYS_ADMIN there.
func (d Dev) build(selected []node) (*os.File, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fs)
	for _, o := range devOptions {
		if err := unix.FsconfigSetString(fs, o.Key, o.Value); err != nil {
			return nil, os.NewSyscallError("fsconfig", err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, os.NewSyscallError("fsconfig", err)
	}
	tree, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, devAttributes)
	if err != nil {
		return nil, os.NewSyscallError("fsmount", err)
	}
	f := os.NewFile(uintptr(tree), "/dev")
	if err := d.complete(fs, tree, selected); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// complete fills the tree, makes the file system read-only, and looks whether it can be cloned.
func (d Dev) complete(fs, tree int, selected []node) error {
	for _, dir := range d.dirs() {
		if err := made(tree, dir.name, dir.mode, unix.Mkdirat(tree, dir.name, dir.mode)); err != nil {
			return err
		}
	}
	for _, l := range links {
		if err := unix.Symlinkat(l[0], tree, l[1]); err != nil {
			return os.NewSyscallError("symlinkat", err)
		}
	}
	for _, n := range selected {
		if err := made(tree, n.name, 0o666, unix.Mknodat(tree, n.name, unix.S_IFCHR|0o666, int(unix.Mkdev(n.major, n.minor)))); err != nil {
			return err
		}
	}
	if err := errors.Join(unix.FsconfigSetFlag(fs, "ro"), unix.FsconfigReconfigure(fs)); err != nil {
		return os.NewSyscallError("fsconfig", err)
	}
	c, err := cloneOf(tree)
	if errors.Is(err, unix.EINVAL) {
		return errNoClone
	}
	if err != nil {
		return err
	}
	return c.Close()
}

// made gives what has been made its mode: the umask is one for all threads, and the program's.
func made(tree int, name string, mode uint32, err error) error {
	if err != nil {
		return &os.PathError{Op: "make", Path: "/dev/" + name, Err: err}
	}
	return os.NewSyscallError("fchmodat", unix.Fchmodat(tree, name, mode, 0))
}
