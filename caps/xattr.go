//go:build linux

package caps

import (
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

const attribute = "security.capability"

// ReadFile reads the capabilities of a regular file. A file that has none is an [*Error] with ENODATA. A symbolic link as the last
// part of the path is not followed: ELOOP; those in the directories before it are. It needs the right to search these directories, and
// /proc. First kernel: 2.6.39.
func ReadFile(path string) (c File, err error) {
	err = withPath("read the capabilities of", path, func(fd string) (err error) {
		c, err = read(func(b []byte) (int, error) { return unix.Getxattr(fd, attribute, b) })
		return err
	})
	return c, err
}

// ReadFrom is [ReadFile] for an open file.
func ReadFrom(f *os.File) (c File, err error) {
	err = withFile("read the capabilities of", f, func(fd int) (err error) {
		c, err = read(func(b []byte) (int, error) { return unix.Fgetxattr(fd, attribute, b) })
		return err
	})
	return c, err
}

func read(get func([]byte) (int, error)) (c File, err error) {
	var b [64]byte
	n, err := get(b[:])
	if err == unix.ERANGE { // larger than all that there is
		return c, &FormatError{Size: len(b) + 1}
	}
	if err != nil {
		return c, err
	}
	return c, c.UnmarshalBinary(b[:n])
}

// Write makes c the capabilities of a regular file, which is found as by [ReadFile]. The kernel takes them away again when the file is
// written to. It needs CAP_SETFCAP in a user namespace in which the owner of the file is mapped; in one that is not the first, the kernel puts in the RootID.
func (c File) Write(path string) error {
	return withPath("write the capabilities of", path, func(fd string) error {
		b, err := c.MarshalBinary()
		if err != nil {
			return err
		}
		return unix.Setxattr(fd, attribute, b, 0)
	})
}

// WriteOn is [File.Write] for an open file.
func (c File) WriteOn(f *os.File) error {
	return withFile("write the capabilities of", f, func(fd int) error {
		b, err := c.MarshalBinary()
		if err != nil {
			return err
		}
		return unix.Fsetxattr(fd, attribute, b, 0)
	})
}

// RemoveFile takes all capabilities from a regular file, which is found as by [ReadFile]. Where there are none it is an [*Error] with
// ENODATA. It needs what [File.Write] needs.
func RemoveFile(path string) error {
	return withPath("remove the capabilities of", path, func(fd string) error { return unix.Removexattr(fd, attribute) })
}

// RemoveFrom is [RemoveFile] for an open file.
func RemoveFrom(f *os.File) error {
	return withFile("remove the capabilities of", f, func(fd int) error { return unix.Fremovexattr(fd, attribute) })
}

// withPath opens the file as a place only, which needs no right to read it and blocks on nothing, and looks what it is. The name behind
// /proc/self/fd is that very file, whatever becomes of the path.
func withPath(op, path string, f func(fd string) error) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fileError(op, path, err)
	}
	defer unix.Close(fd)
	if err := regular(fd); err != nil {
		return fileError(op, path, err)
	}
	return fileError(op, path, f("/proc/self/fd/"+strconv.Itoa(fd)))
}

func withFile(op string, file *os.File, f func(fd int) error) error {
	conn, err := file.SyscallConn()
	if err != nil {
		return fileError(op, "a closed file", syscall.EBADF)
	}
	e := conn.Control(func(fd uintptr) {
		if err = regular(int(fd)); err == nil {
			err = f(int(fd))
		}
	})
	if e != nil {
		err = syscall.EBADF
	}
	return fileError(op, file.Name(), err)
}

// regular refuses what the kernel executes no capabilities of.
func regular(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return nil
	case unix.S_IFLNK:
		return syscall.ELOOP
	}
	return &reason{"not a regular file", syscall.EINVAL}
}

func fileError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op + " " + name, Err: err, Hint: fileHint(err)}
}

func fileHint(err error) string {
	switch errnoOf(err) {
	case unix.EPERM:
		return "needs CAP_SETFCAP in a user namespace in which the file's owner is mapped"
	case unix.ENODATA:
		return "it has none"
	case unix.ELOOP:
		return "a symbolic link"
	case unix.EBADF:
		return "closed, or opened with O_PATH"
	}
	return ""
}
