//go:build linux

package copytree

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/deep"
)

// Strip removes an extended attribute from all files and directories below a directory.
func Strip(dir, xattr string) error {
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
		return isDir, strip(procPath(fd), xattr, st.Mode&0o7777)
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
