//go:build linux

package cgroups

import (
	"errors"
	"io"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernel is the calls by which the hierarchies are reached. A test passes others, and with them faults.
type kernel struct {
	open  func(dir int, name string, flags int) (int, error)
	mkdir func(dir int, name string) error
	rmdir func(dir int, name string) error
	write func(fd int, s string) (int, error)
	magic func(fd int) (int64, error)
}

func realKernel() *kernel {
	return &kernel{open: openBeneath, mkdir: mkdir, rmdir: rmdir, write: write, magic: magic}
}

// openBeneath opens what lies below a directory of the hierarchy. No link is followed, and nothing that is mounted over
// a part of the hierarchy is entered: those who may write to the host's tree could place either there.
func openBeneath(dir int, name string, flags int) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV}
	var short [96]byte // names without a heap allocation: Stats opens a dozen
	b := short[:]
	if len(name) >= len(b) {
		b = make([]byte, len(name)+1)
	}
	copy(b, name)
	for {
		fd, _, e := unix.Syscall6(unix.SYS_OPENAT2, uintptr(dir), uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&how)),
			unsafe.Sizeof(how), 0, 0)
		switch e {
		case 0:
			return int(fd), nil
		case unix.EINTR, unix.EAGAIN: // a rename meanwhile (openat2(2))
			continue
		}
		return -1, e
	}
}

func mkdir(dir int, name string) error { return unix.Mkdirat(dir, name, 0o755) }

func rmdir(dir int, name string) error { return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) }

// write makes one call: the files of a hierarchy take each write for a whole value.
func write(fd int, s string) (int, error) {
	for {
		n, _, e := unix.Syscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.StringData(s))), uintptr(len(s)))
		switch e {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		}
		return -1, e
	}
}

func magic(fd int) (int64, error) {
	var st unix.Statfs_t
	err := unix.Fstatfs(fd, &st)
	return int64(st.Type), err
}

// writeFile writes a value to a file below the directory.
func (k *kernel) writeFile(dir int, name, value string) error {
	fd, err := k.open(dir, name, unix.O_WRONLY)
	if err != nil {
		return err
	}
	n, err := k.write(fd, value)
	unix.Close(fd)
	if err == nil && n != len(value) {
		err = io.ErrShortWrite
	}
	return err
}

// readFile reads a whole file into b, or into more memory where that is too small.
func (k *kernel) readFile(dir int, name string, b []byte) ([]byte, error) {
	fd, err := k.open(dir, name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return readAll(fd, b)
}

func readAll(fd int, b []byte) ([]byte, error) {
	b = b[:cap(b)]
	for n := 0; ; {
		m, err := unix.Pread(fd, b[n:], int64(n))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, err
		case m == 0:
			return b[:n], nil
		}
		if n += m; n == len(b) {
			b = append(b, make([]byte, len(b)+512)...)
		}
	}
}

// gone reports whether the error says that the group has been removed: by ENOENT when a file is opened, by ENODEV when an
// open one is used.
func gone(err error) bool { return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENODEV) }
