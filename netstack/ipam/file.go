//go:build linux

package ipam

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Each lease takes some twenty system calls. Package os would make three times as many, because it looks whether it could wait for a file.

// open opens a file for its owner only. Nobody else can write to the directory, and a link in it is none of ours.
func open(path string, flags int) (fd int, err error) {
	err = retry("open", path, func() error {
		fd, err = unix.Open(path, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	return fd, err
}

// writeAll writes the whole text where the file is read next.
func writeAll(fd int, path, text string) error {
	n := 0
	err := retry("write", path, func() (err error) {
		n, err = unix.Write(fd, []byte(text))
		return err
	})
	if err == nil && n < len(text) { // on a file system that is full
		err = &os.PathError{Op: "write", Path: path, Err: io.ErrShortWrite}
	}
	return err
}

// retry makes a system call again while signals interrupt it.
func retry(op, path string, call func() error) error {
	for {
		err := call()
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return &os.PathError{Op: op, Path: path, Err: err}
		}
	}
}
