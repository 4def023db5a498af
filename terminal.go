//go:build linux

package caisson

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/caisson-dev/caisson/internal/pty"
)

// Terminal is a pseudoterminal (pty(7)) for one command: set [Cmd.Terminal] and start it. Of the command's standard descriptors those are the
// terminal for which [Cmd] has no reader or writer; and it is the controlling terminal of a new session, which the command leads. What
// the caller writes is typed, what the caller reads is on the screen.
//
//	cmd.Terminal = &caisson.Terminal{Rows: 24, Cols: 80}
//	if err := cmd.Start(); err != nil {
//		return err
//	}
//	defer cmd.Terminal.Close()
//	io.Copy(os.Stdout, cmd.Terminal)
//	return cmd.Wait()
//
// In a sandbox with a /dev of its own (package chroot: Dev) the terminal comes from the sandbox's own devpts: /dev/pts/0, or whatever ttyname(3)
// says inside, is there and belongs to the command's user, and /dev/console is the terminal, too. In any other sandbox it is one of the host's, which
// may have no name inside; and where the sandbox also has a user namespace, its owner is the caller.
// Nothing that the command does to its terminal reaches a terminal of the caller's: what it types into it (TIOCSTI) is
// typed inside. But what it prints is not to be trusted when it is shown on another terminal, as anything printed is.
//
// Read gives io.EOF when nobody has the terminal open any more: the command has ended, and so has what it started. With a pid namespace
// nothing outlives the command; without one, a process that is left behind keeps the terminal open. [Cmd.Wait] does not wait for that, neither reads
// nor closes the terminal, and what was printed last can be read afterwards; if [Cmd.WaitDelay] is set, Read gives os/exec.ErrWaitDelay when
// that has passed after the end of the command. As long as nobody reads, a command that prints some KiB waits. TERM is the business of [Cmd.Env].
//
// The methods can be used from Start on, at the same time by several goroutines. Linux 5.6.
type Terminal struct {
	// Rows and Cols are the size at first, in characters. Zero is a size that is not known, which many programs take for 24 rows of
	// 80.
	Rows, Cols uint16

	used   atomic.Bool
	late   atomic.Bool // the deadline of reads is that of WaitDelay
	master *os.File
}

// Read reads what the command has printed. At the end the error is io.EOF.
func (t *Terminal) Read(b []byte) (int, error) {
	n, err := t.master.Read(b)
	if errors.Is(err, syscall.EIO) { // the kernel looks for output first and then whether the other end is closed: some may have come in between
		n, err = t.master.Read(b)
	}
	switch {
	case errors.Is(err, syscall.EIO): // how the kernel says that nobody has the other end
		err = io.EOF
	case t.late.Load() && errors.Is(err, os.ErrDeadlineExceeded):
		err = exec.ErrWaitDelay
	}
	return n, err
}

// ended bounds the time in which a process that the command has left behind can print. Wait calls it.
func (t *Terminal) ended(delay time.Duration) {
	if t != nil && delay > 0 && t.SetReadDeadline(time.Now().Add(delay)) == nil {
		t.late.Store(true)
	}
}

// Write types. In the terminal's first mode "\x04" at the beginning of a line is the end of the input, and "\x03" interrupts the command. It waits
// while the command has not read what was typed before, some KiB. What is typed when nobody has the terminal open any more is lost, without an error.
func (t *Terminal) Write(b []byte) (int, error) { return t.master.Write(b) }

// Close hangs up: the command gets SIGHUP, which process 1 of a pid namespace ignores unless it has a handler, and reads the end of its input. Reads and
// writes under way end with os.ErrClosed.
func (t *Terminal) Close() error { return t.master.Close() }

// Resize changes the size. The kernel tells the foreground processes by SIGWINCH.
func (t *Terminal) Resize(rows, cols uint16) error {
	if t.master == nil {
		return os.ErrInvalid
	}
	return pty.SetSize(t.master, rows, cols)
}

// SetDeadline is that of an os.File: reads and writes end with os.ErrDeadlineExceeded then.
func (t *Terminal) SetDeadline(d time.Time) error {
	t.late.Store(false)
	return t.master.SetDeadline(d)
}

// SetReadDeadline is for reads only.
func (t *Terminal) SetReadDeadline(d time.Time) error {
	t.late.Store(false)
	return t.master.SetReadDeadline(d)
}

// SetWriteDeadline is for writes only.
func (t *Terminal) SetWriteDeadline(d time.Time) error { return t.master.SetWriteDeadline(d) }

// SyscallConn gives the descriptor of the master for what has no method here, such as its modes (tty_ioctl(4), ioctl_tty(2)).
func (t *Terminal) SyscallConn() (syscall.RawConn, error) { return t.master.SyscallConn() }

// MakeRaw sets a terminal of the caller's to raw mode (termios(3), cfmakeraw): every key is passed on as it is, ^C too. It is for a program that
// copies from it to a [Terminal]. The function that it gives sets the mode back, and may be called several times. The error is ENOTTY where f is no
// terminal. A background process that calls either is stopped by SIGTTOU.
func MakeRaw(f *os.File) (restore func() error, err error) { return pty.MakeRaw(f) }

// TerminalSize is the size of a terminal of the caller's, to be handed on to [Terminal.Resize] when SIGWINCH comes. The error is ENOTTY
// where f is no terminal.
func TerminalSize(f *os.File) (rows, cols uint16, err error) { return pty.Size(f) }
