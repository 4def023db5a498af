//go:build linux

package lsm

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// openPath opens path without doing anything with what is there: no device is opened, no fifo blocks.
func openPath(path string, flags int) (*os.File, error) {
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_PATH|unix.O_CLOEXEC|flags, 0) })
	if err != nil {
		return nil, fail(err, "open %s", path)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func retry(f func() (int, error)) (int, error) {
	for {
		if n, err := f(); err != syscall.EINTR {
			return n, err
		}
	}
}
