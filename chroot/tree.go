//go:build linux

package chroot

import (
	"io/fs"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Resolve gives the absolute path, inside the root, of what name leads to, with no symbolic link and no ".." in it. It is what it
// was a moment ago: whoever may rename there can make it something else. To act on what name leads to, use the methods.
func (r *Root) Resolve(name string) (string, error) {
	w, err := r.walkThrough(name, true, false)
	if err != nil {
		return "", r.fail("resolve", name, err)
	}
	defer w.restart()
	return "/" + strings.Join(w.names, "/"), nil
}

// Stat describes what name leads to, of whatever kind.
func (r *Root) Stat(name string) (fs.FileInfo, error) { return r.stat("stat", name, 0) }

// Lstat is Stat, and describes a symbolic link itself.
func (r *Root) Lstat(name string) (fs.FileInfo, error) { return r.stat("lstat", name, unix.O_NOFOLLOW) }

func (r *Root) stat(op, name string, flags int) (fs.FileInfo, error) {
	place, err := r.lookup(name, flags)
	if err != nil {
		return nil, r.fail(op, name, err)
	}
	defer place.Close()
	st, err := place.Stat()
	return st, r.fail(op, name, err)
}

// Readlink gives what a symbolic link says.
func (r *Root) Readlink(name string) (string, error) {
	place, err := r.lookup(name, unix.O_NOFOLLOW)
	if err != nil {
		return "", r.fail("readlink", name, err)
	}
	defer place.Close()
	text, err := readlinkat(int(place.Fd()), "")
	if err == syscall.ENOENT { // what an empty name says of something that is no link
		err = syscall.EINVAL
	}
	return text, r.fail("readlink", name, err)
}

// ReadDirNames gives the names in a directory, in no order.
func (r *Root) ReadDirNames(name string) ([]string, error) {
	f, err := r.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	return names, r.fail("read the directory", name, err)
}

// at performs f on the directory of name and the last word of name.
func (r *Root) at(op, name string, f func(dir int, base string) error) error {
	dir, base, err := r.parent(name)
	if err != nil {
		return r.fail(op, name, err)
	}
	defer dir.Close()
	return r.fail(op, name, f(int(dir.Fd()), base))
}

// Mkdir makes a directory with mode perm, less the umask.
func (r *Root) Mkdir(name string, perm fs.FileMode) error {
	return r.at("mkdir", name, func(dir int, base string) error { return unix.Mkdirat(dir, base, modeBits(perm)) })
}

// MkdirAll makes a directory and those above it, as far as they are missing. Links on the way are followed inside the root; one that
// leads nowhere is an error.
func (r *Root) MkdirAll(name string, perm fs.FileMode) error {
	for i := 1; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' || name[i-1] == '/' {
			continue
		}
		if base := path.Base(name[:i]); base == "." || base == ".." {
			continue
		}
		err := r.at("mkdir", name[:i], func(dir int, base string) error { return unix.Mkdirat(dir, base, modeBits(perm)) })
		if err != nil && !isErrno(err, syscall.EEXIST) {
			return err
		}
	}
	place, err := r.lookup(name, unix.O_DIRECTORY)
	if err != nil {
		return r.fail("mkdir", name, err)
	}
	return place.Close()
}

func isErrno(err error, e syscall.Errno) bool {
	wrapped, ok := err.(*Error)
	return ok && wrapped.Err == e
}

// Symlink makes name a symbolic link that says target, which is not looked at.
func (r *Root) Symlink(target, name string) error {
	return r.at("symlink", name, func(dir int, base string) error { return unix.Symlinkat(target, dir, base) })
}

// Mknod makes a device node, fifo or socket (mknod(2)). Devices need CAP_MKNOD on the host. The mode is like that of os.FileInfo:
// os.ModeDevice|os.ModeCharDevice|0o666, os.ModeNamedPipe|0o600; dev is as unix.Mkdev gives it, and 0 for a fifo.
func (r *Root) Mknod(name string, mode fs.FileMode, dev uint64) error {
	kind, err := kindBits(mode)
	if err != nil {
		return r.fail("mknod", name, err)
	}
	return r.at("mknod", name, func(dir int, base string) error {
		return unix.Mknodat(dir, base, kind|modeBits(mode), int(dev))
	})
}

func kindBits(m fs.FileMode) (uint32, error) {
	switch m.Type() {
	case fs.ModeDevice | fs.ModeCharDevice:
		return unix.S_IFCHR, nil
	case fs.ModeDevice:
		return unix.S_IFBLK, nil
	case fs.ModeNamedPipe:
		return unix.S_IFIFO, nil
	case fs.ModeSocket:
		return unix.S_IFSOCK, nil
	}
	return 0, syscall.EINVAL
}

// Rename renames old to name, over what is there (rename(2)).
func (r *Root) Rename(old, name string) error {
	return r.at("rename", old, func(from int, oldBase string) error {
		dir, base, err := r.parent(name)
		if err != nil {
			return err
		}
		defer dir.Close()
		return unix.Renameat(from, oldBase, int(dir.Fd()), base)
	})
}

// Remove removes a file, a link or an empty directory.
func (r *Root) Remove(name string) error {
	return r.at("remove", name, func(dir int, base string) error {
		err := unix.Unlinkat(dir, base, 0)
		if err == syscall.EISDIR || err == syscall.EPERM {
			if e := unix.Unlinkat(dir, base, unix.AT_REMOVEDIR); e != syscall.ENOTDIR {
				return e
			}
		}
		return err
	})
}
