//go:build linux

package copytree

import (
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// data makes dst hold what src holds: the same blocks where the file system can, else a copy without the holes.
func (c *Copy) data(src, dst int, size int64) error {
	if size == 0 {
		return nil
	}
	if !c.noClone {
		err := unix.IoctlFileClone(dst, src)
		if err == nil {
			return nil
		}
		if !cannotShare(err) {
			return err
		}
		c.noClone = err != syscall.EINVAL // EINVAL is of this file only
	}
	if err := unix.Ftruncate(dst, size); err != nil {
		return err
	}
	for at := int64(0); at < size; {
		from, to, err := segment(src, at, size)
		if err != nil || from >= size {
			return err
		}
		if err := c.segment(src, dst, from, to); err != nil {
			return err
		}
		at = to
	}
	return nil
}

func cannotShare(err error) bool {
	switch err {
	case syscall.EOPNOTSUPP, syscall.EXDEV, syscall.EINVAL, syscall.ENOTTY, syscall.ENOSYS, syscall.EPERM:
		return true
	}
	return false
}

// segment finds the next stretch that is no hole.
func segment(src int, at, size int64) (from, to int64, err error) {
	from, err = unix.Seek(src, at, unix.SEEK_DATA)
	switch {
	case err == syscall.ENXIO: // nothing but a hole up to the end
		return size, size, nil
	case err != nil: // the file system does not tell
		return at, size, nil
	}
	to, err = unix.Seek(src, from, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, err
	}
	return from, min(to, size), nil
}

func (c *Copy) segment(src, dst int, from, to int64) error {
	c.copied += to - from
	for from < to {
		in, out := from, from
		n, err := unix.CopyFileRange(src, &in, dst, &out, int(min(to-from, 1<<30)), 0)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil && cannotShare(err), err == nil && n == 0:
			return c.pump(src, dst, from, to)
		case err != nil:
			return err
		}
		from += int64(n)
	}
	return nil
}

// pump copies by way of our memory. A file that has become shorter meanwhile ends in zeros.
func (c *Copy) pump(src, dst int, from, to int64) error {
	if c.buffer == nil {
		c.buffer = make([]byte, 256<<10)
	}
	for from < to {
		n, err := unix.Pread(src, c.buffer[:min(int64(len(c.buffer)), to-from)], from)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
		for done := 0; done < n; {
			m, err := unix.Pwrite(dst, c.buffer[done:n], from+int64(done))
			if err == syscall.EINTR {
				continue
			}
			if err != nil {
				return err
			}
			if m == 0 {
				return io.ErrShortWrite
			}
			done += m
		}
		from += int64(n)
	}
	return nil
}
