//go:build linux

package lsm

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// host is where the kernel is asked: its file systems, and its system calls. Tests have one of their own.
type host struct {
	root    string // before /proc and /sys; "" is the real one
	modules func() ([]uint64, error)
	self    func() ([]byte, error)
}

func here() host { return host{modules: listModules, self: selfAttr} }

// The file systems whose word decides about privileges.
const (
	procMagic     = unix.PROC_SUPER_MAGIC
	securityMagic = unix.SECURITYFS_MAGIC
	selinuxMagic  = unix.SELINUX_MAGIC
	sysfsMagic    = unix.SYSFS_MAGIC
)

// open opens a file system's root and makes sure that it is what it should be.
func (h host) open(dir string, magic uint32) (*os.File, error) {
	f, err := openPath(h.root+dir, unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	if h.root != "" {
		return f, nil
	}
	var st unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &st) != nil || uint32(st.Type) != magic {
		f.Close()
		return nil, unsupported("open "+dir, "the file system that belongs there is not mounted")
	}
	return f, nil
}

// read reads a file below a file system's root.
func (h host) read(dir string, magic uint32, name string) (string, error) {
	d, err := h.open(dir, magic)
	if err != nil {
		return "", err
	}
	defer d.Close()
	return readIn(d, name)
}

// write writes all of data in one write: what the kernel takes in parts means something else.
func (h host) write(dir string, magic uint32, name string, data []byte) error {
	d, err := h.open(dir, magic)
	if err != nil {
		return err
	}
	defer d.Close()
	f, err := openIn(d, name, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	return fail(writeAll(f, data), "write %s", f.Name())
}

func writeAll(f *os.File, data []byte) error {
	n, err := retry(func() (int, error) { return unix.Write(int(f.Fd()), data) })
	if err == nil && n != len(data) {
		err = syscall.EIO
	}
	return err
}

// most is more than any of the kernel's files that are read here has.
const most = 16 << 20

func readIn(dir *os.File, name string) (string, error) {
	f, err := openIn(dir, name, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return "", fail(bare(err), "read %s", f.Name())
	}
	return string(b), nil
}

// bare is the errno without the path, which we name ourselves.
func bare(err error) error {
	var e *os.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// readLabel is readIn for a file of attr, which gives all in one read: a start waits for it.
func readLabel(dir *os.File, name string) (string, error) {
	fd, err := openFD(dir, name, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	b := make([]byte, labelSize)
	n, err := retry(func() (int, error) { return unix.Read(fd, b) })
	if err != nil {
		return "", fail(err, "read %s/%s", dir.Name(), name)
	}
	return text(b[:n]), nil
}

// openIn opens a file below an open directory, on the same mount, and not through /proc/PID/fd and the like.
func openIn(dir *os.File, name string, flags uint64) (*os.File, error) {
	fd, err := openFD(dir, name, flags)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), dir.Name()+"/"+name), nil
}

func openFD(dir *os.File, name string, flags uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: beneath}
	fd, err := retry(func() (int, error) { return unix.Openat2(int(dir.Fd()), name, &how) })
	return fd, fail(err, "open %s/%s", dir.Name(), name)
}

const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// openProc opens /proc and makes sure that it shows our own pid namespace.
func (h host) openProc() (*os.File, error) {
	f, err := h.open("/proc", procMagic)
	if err != nil || h.root != "" {
		return f, err
	}
	b := make([]byte, 32)
	n, err := unix.Readlinkat(int(f.Fd()), "self", b)
	if err != nil || string(b[:n]) != strconv.Itoa(os.Getpid()) {
		f.Close()
		return nil, unsupported("open /proc", "it shows another pid namespace than ours")
	}
	return f, nil
}

// text is what the kernel has written, without the NUL and the newline that some modules add.
func text(b []byte) string { return string(bytes.TrimRight(b, "\x00\n")) }
