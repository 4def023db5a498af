//go:build linux

package layer

import (
	"bytes"
	"errors"
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// hole is the size of the pieces that are left out where they are zeros only. Archives have no holes (the OCI advises against them); in this
// way a sparse file becomes one again.
const hole = 16 << 10

var zeros [hole]byte

func isZero(b []byte) bool {
	for len(b) > hole {
		if !bytes.Equal(b[:hole], zeros[:]) {
			return false
		}
		b = b[hole:]
	}
	return bytes.Equal(b, zeros[:len(b)])
}

// file writes a file. It is a new one in any case: what had the name is removed, and never written to.
func (u *unpacker) file(j *job) error {
	fd, err := create(j.fd, j.name, j.meta.mode)
	if err != nil {
		return err
	}
	err = u.writeFile(fd, j)
	if e := unix.Close(fd); err == nil && e != syscall.EINTR {
		err = e
	}
	return err
}

func create(dir int, name string, mode uint32) (fd int, err error) {
	for range 10 { // rounds lost to somebody who makes the same name
		fd, err = unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode&0o777)
		switch err {
		case syscall.EINTR:
		case syscall.EEXIST:
			if err := removeAll(dir, name); err != nil {
				return -1, err
			}
		default:
			return fd, err
		}
	}
	return -1, err
}

// writeFile writes the contents and then sets the rest: to write takes capabilities and set-user-ID bits away.
func (u *unpacker) writeFile(fd int, j *job) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	write := writeBlocks
	if j.from != nil {
		write = u.copyBlocks
	}
	end, err := write(fd, j)
	if err == errCutOff {
		return nil // the reader knows why
	}
	if err == nil && end < j.size {
		err = unix.Ftruncate(fd, j.size)
	}
	if err != nil {
		return err
	}
	if j.dir.inherits {
		j.meta.existed = true
	}
	return j.meta.set(fd, &st)
}

var errCutOff = errors.New("cut off")

// writeBlocks writes what comes from the reader, and gives where the file ends.
func writeBlocks(fd int, j *job) (end int64, err error) {
	err = writeBlock(fd, j.data, 0, &end)
	for at := int64(len(j.data)); at < j.size && err == nil; {
		b, ok := <-j.more
		if !ok {
			return end, errCutOff
		}
		err = writeBlock(fd, b, at, &end)
		at += int64(len(b))
		j.put(b)
	}
	return end, err
}

// copyBlocks copies from the archive.
func (u *unpacker) copyBlocks(fd int, j *job) (end int64, err error) {
	b := make([]byte, blockSize)
	for at := int64(0); at < j.size && err == nil; {
		var n int
		n, err = j.from.ReadAt(b[:min(blockSize, j.size-at)], j.at+at)
		switch {
		case n == 0 && err == io.EOF:
			return end, &corrupt{io.ErrUnexpectedEOF}
		case err == nil || err == io.EOF:
			err = writeBlock(fd, b[:n], at, &end)
		}
		at += int64(n)
		if err == nil {
			err = u.ctx.Err()
		}
	}
	return end, err
}

// writeBlock writes a block without what is zeros in it, and moves end to where the file ends.
func writeBlock(fd int, b []byte, at int64, end *int64) error {
	for len(b) > 0 {
		n := 0
		for n < len(b) && !isZero(b[n:min(n+hole, len(b))]) {
			n = min(n+hole, len(b))
		}
		if n > 0 {
			if err := pwrite(fd, b[:n], at); err != nil {
				return err
			}
			*end = at + int64(n)
		} else {
			n = min(hole, len(b))
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}

func pwrite(fd int, b []byte, at int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, at)
		if err != nil && err != syscall.EINTR {
			return err
		}
		if n > 0 {
			b, at = b[n:], at+int64(n)
		}
	}
	return nil
}
