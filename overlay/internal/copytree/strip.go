//go:build linux

package copytree

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/deep"
)

// Strip removes extended attributes from all files and directories below a directory.
func Strip(dir string, xattrs ...string) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	t := remover()
	t.After = nil
	t.Before = func(fd int, _ deep.Path) (bool, error) {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return false, err
		}
		isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		if !isDir && st.Mode&unix.S_IFMT != unix.S_IFREG {
			return false, nil
		}
		for _, xattr := range xattrs {
			if err := strip(procPath(fd), xattr, st.Mode&0o7777); err != nil {
				return false, err
			}
		}
		return isDir, nil
	}
	return t.Walk(fd)
}

// RemoveDevices removes all character devices 0:0 with the name below a directory.
func RemoveDevices(dir, name string) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	t := remover()
	t.After = nil
	open := t.Open
	t.Open = func(dir int, at string) (int, error) {
		var st unix.Stat_t
		if at == name && unix.Fstatat(dir, at, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
			return -1, unix.Unlinkat(dir, at, 0)
		}
		return open(dir, at)
	}
	return t.Walk(fd)
}

// strip makes a file writable for a moment where its owner may not write to it.
func strip(at, xattr string, mode uint32) error {
	err := unix.Removexattr(at, xattr)
	if err == syscall.EACCES {
		if err = unix.Chmod(at, mode|0o200); err == nil {
			err = unix.Removexattr(at, xattr)
			if e := unix.Chmod(at, mode); e != nil {
				return e
			}
		}
	}
	if err == syscall.ENODATA || err == syscall.EOPNOTSUPP {
		return nil
	}
	return err
}
