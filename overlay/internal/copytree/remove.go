//go:build linux

package copytree

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/deep"
)

// RemoveAll removes a directory with all that is in it, however deep. No link is followed.
func RemoveAll(name string) error {
	if err := Empty(name); err != nil {
		return err
	}
	return unix.Rmdir(name)
}

// Empty removes all that is in a directory.
func Empty(name string) error {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return remover().Walk(fd)
}

// remover removes on its way back. Overlayfs makes a directory in the work directory that nobody may read; an ordinary user makes it
// readable first.
func remover() *deep.Tree {
	return &deep.Tree{
		Names: func(dir int) ([]string, error) {
			all, err := names(dir)
			if err == syscall.EACCES && unix.Chmod(procPath(dir), 0o700) == nil {
				return names(dir)
			}
			return all, err
		},
		Open: func(dir int, name string) (int, error) {
			return unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		},
		Before: func(fd int, _ deep.Path) (bool, error) {
			var st unix.Stat_t
			err := unix.Fstat(fd, &st)
			return st.Mode&unix.S_IFMT == unix.S_IFDIR, err
		},
		After: func(dir int, name string) error {
			err := unix.Unlinkat(dir, name, 0)
			if err == syscall.EISDIR || err == syscall.EPERM {
				err = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
			}
			return err
		},
	}
}

func names(dir int) ([]string, error) {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), ".")
	defer f.Close()
	return f.Readdirnames(-1)
}
