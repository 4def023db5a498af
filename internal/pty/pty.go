//go:build linux

package pty

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Open makes a pseudoterminal of the caller's own devpts instance. The master is in non-blocking mode, so that reads end when
// it is closed, and a deadline may be set. Both are closed on execve(2), and neither becomes the caller's controlling terminal.
func Open() (master, peer *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: "/dev/ptmx", Err: err}
	}
	master = os.NewFile(uintptr(fd), "pseudoterminal")
	if err = Check(master); err == nil {
		err = Unlock(master)
	}
	if err == nil {
		peer, err = Peer(master)
	}
	if err != nil {
		master.Close()
		return nil, nil, err
	}
	return master, peer, nil
}

// Unlock lets the peer be opened (unlockpt(3)).
func Unlock(master *os.File) error {
	return control(master, "ioctl TIOCSPTLCK", func(fd int) error { return unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0) })
}

// Peer opens the other end.
func Peer(master *os.File) (peer *os.File, err error) {
	err = control(master, "ioctl TIOCGPTPEER", func(fd int) error {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		if errno != 0 {
			return errno
		}
		peer = os.NewFile(n, "terminal")
		return nil
	})
	return peer, err
}

// Size gives the size of a terminal, by either end (TIOCGWINSZ, tty_ioctl(4)).
func Size(f *os.File) (rows, cols uint16, err error) {
	err = control(f, "ioctl TIOCGWINSZ", func(fd int) error {
		size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		if err == nil {
			rows, cols = size.Row, size.Col
		}
		return err
	})
	return rows, cols, err
}

// SetSize sets it. Where it changes, the kernel tells the foreground processes by SIGWINCH.
func SetSize(f *os.File, rows, cols uint16) error {
	return control(f, "ioctl TIOCSWINSZ", func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
}

// control calls f with the descriptor. os.File.Fd would do but for files in non-blocking mode, which it may change.
func control(file *os.File, what string, f func(fd int) error) error {
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	if conn.Control(func(fd uintptr) { err = f(int(fd)) }) != nil { // it has no other error
		return &os.PathError{Op: what, Path: file.Name(), Err: os.ErrClosed}
	}
	if errno, ok := err.(syscall.Errno); ok {
		return os.NewSyscallError(what, errno)
	}
	return err
}

// WrongFileError says that a descriptor is not what it should be.
type WrongFileError struct {
	Want string // "a pseudoterminal's master"
	Got  string // "a regular file"
}

// Error says both.
func (e *WrongFileError) Error() string { return fmt.Sprintf("%s is not %s", e.Got, e.Want) }

// Is makes it an ENOTTY for errors.Is.
func (e *WrongFileError) Is(target error) bool { return target == syscall.ENOTTY }
