//go:build linux

package main

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
)

// terminal is a pseudoterminal (pty(7)): the command has one end as its standard descriptors and controlling terminal; we
// have the other, and pass on what comes from either side.
type terminal struct {
	master *os.File
	slave  *os.File
	caller *os.File      // the caller's terminal, of which the size is taken; nil if there is none
	input  bool          // what is typed goes to the command
	saved  *unix.Termios // the mode of the caller's terminal, when it has been changed
	output chan struct{} // closed when all output has been copied
}

// openTerminal makes a terminal and gives it to the command. With -i everything typed is the command's, ^C too: the
// caller's terminal is in raw mode until restore.
func (f *flags) openTerminal(cmd *caisson.Cmd, who account) (*terminal, error) {
	t := &terminal{input: f.interactive, output: make(chan struct{})}
	switch {
	case f.interactive && !isTerminal(os.Stdin):
		return nil, errors.New("the input device is not a TTY")
	case f.interactive:
		t.caller = os.Stdin
	case isTerminal(os.Stdout):
		t.caller = os.Stdout
	}
	if err := t.open(); err != nil {
		return nil, err
	}
	if f.hostIDs() { // else it is root's inside, or the user's own
		if err := t.slave.Chown(int(who.uid), -1); err != nil { // so that /dev/stdout can be opened
			return nil, err
		}
	}
	t.resize()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = t.slave, t.slave, t.slave
	if !t.input {
		return t, nil
	}
	return t, t.raw()
}

// open opens both ends. The slave is opened through the master (TIOCGPTPEER, Linux 4.13), not by a name.
func (t *terminal) open() (err error) {
	if t.master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return err
	}
	master := t.master.Fd()
	if err := unix.IoctlSetPointerInt(int(master), unix.TIOCSPTLCK, 0); err != nil {
		return os.NewSyscallError("unlock pseudoterminal", err)
	}
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, master, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return os.NewSyscallError("open pseudoterminal", errno)
	}
	t.slave = os.NewFile(fd, "pseudoterminal")
	return nil
}

// raw passes on what is typed as it is (termios(3), cfmakeraw).
func (t *terminal) raw() error {
	mode, err := unix.IoctlGetTermios(int(t.caller.Fd()), unix.TCGETS)
	if err != nil {
		return os.NewSyscallError("read terminal mode", err)
	}
	saved := *mode
	t.saved = &saved
	mode.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	mode.Oflag &^= unix.OPOST
	mode.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	mode.Cflag = mode.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	mode.Cc[unix.VMIN], mode.Cc[unix.VTIME] = 1, 0
	return os.NewSyscallError("set terminal mode", unix.IoctlSetTermios(int(t.caller.Fd()), unix.TCSETS, mode))
}

// restore gives the caller's terminal its mode back.
func (t *terminal) restore() {
	if t.saved != nil {
		unix.IoctlSetTermios(int(t.caller.Fd()), unix.TCSETS, t.saved)
	}
}

// resize gives the command's terminal the size of the caller's. The kernel tells the command by SIGWINCH.
func (t *terminal) resize() {
	if t.caller == nil {
		return
	}
	if size, err := unix.IoctlGetWinsize(int(t.caller.Fd()), unix.TIOCGWINSZ); err == nil {
		unix.IoctlSetWinsize(int(t.master.Fd()), unix.TIOCSWINSZ, size)
	}
}

// begin copies from now on. The slave is closed here, so that the master's end comes with that of the command.
func (t *terminal) begin() {
	t.slave.Close()
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, syscall.SIGWINCH)
	t.resize() // it may have changed before Notify
	go func() {
		for range changes {
			t.resize()
		}
	}()
	if t.input {
		go io.Copy(t.master, os.Stdin) // not waited for: it may be waiting for the next key when the command ends
	}
	go func() {
		io.Copy(os.Stdout, t.master) // ends with EIO, when the session has ended
		close(t.output)
	}()
}

// drain waits for the output. The kernel hangs the terminal up when the leader of its session ends, which is the command
// or its init process.
func (t *terminal) drain() { <-t.output }
