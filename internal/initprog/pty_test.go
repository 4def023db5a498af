//go:build linux

package initprog

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// openPTY opens a new pseudo-terminal (pty(7)).
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { master.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// onTerminal makes init the leader of a session with the terminal as its
// controlling one and as standard input.
func onTerminal(slave *os.File) option {
	return func(b *box) {
		b.Stdin = slave
		b.SysProcAttr.Setsid = true
		b.SysProcAttr.Setctty = true
	}
}

// The command's group is the terminal's foreground group.
func TestForeground(t *testing.T) {
	_, slave := openPTY(t)
	b := shell(t, stat, onTerminal(slave))
	p := b.statLine()
	require.Equal(t, p.pid, p.pgrp)
	require.Equal(t, p.pid, p.tpgid)
	require.Equal(t, b.Process.Pid, p.session)
	_, _, code := b.end()
	require.Zero(t, code)
}

// Reading from the terminal does not stop the command, and the signals that init
// blocks to hand over the terminal are neither blocked nor ignored in the command.
func TestForegroundReads(t *testing.T) {
	master, slave := openPTY(t)
	b := shell(t, `while read -r k v; do case $k in SigIgn:|SigBlk:) echo $v;; esac; done < /proc/self/status
		read -r line; echo "got $line"`, onTerminal(slave))
	const stops = 1<<(unix.SIGTSTP-1) | 1<<(unix.SIGTTIN-1) | 1<<(unix.SIGTTOU-1)
	for range 2 { // blocked, ignored
		set, err := strconv.ParseUint(b.line(), 16, 64)
		require.NoError(t, err)
		require.Zero(t, set&stops)
	}
	_, err := master.WriteString("hello\n")
	require.NoError(t, err)
	require.Equal(t, "got hello", b.line())
	b.end()
}

// ^C comes from the terminal, once: init is not in the foreground group and does
// not forward it a second time.
func TestInterruptOnce(t *testing.T) {
	master, slave := openPTY(t)
	b := helper(t, "signals", onTerminal(slave))
	require.Equal(t, "ready", b.line())
	b.record(Executed)
	_, err := master.WriteString("\x03")
	require.NoError(t, err)
	require.Equal(t, "2", b.line())
	time.Sleep(50 * time.Millisecond) // a second one would come within this
	require.NoError(t, b.Process.Signal(syscall.Signal(64)))
	_, out, _ := b.end()
	require.Equal(t, "64\n", out)
}

// A hang-up goes to the leader of the session, which forwards it.
func TestHangUp(t *testing.T) {
	master, slave := openPTY(t)
	b := run(t, []string{"/bin/sleep"}, []string{"sleep", "1000"}, onTerminal(slave))
	b.record(Executed)
	require.NoError(t, slave.Close())
	require.NoError(t, master.Close())
	_, _, code := b.end()
	require.Equal(t, 128+int(unix.SIGHUP), code)
}

// Standard input is the terminal of init's session, but init does not lead it: the command stays in init's process group,
// so that it can read where its caller can, and gets a ^C once, from the terminal.
func TestNotLeader(t *testing.T) {
	master, slave := openPTY(t)
	b := newBox(t, nil, noNamespace, onTerminal(slave))
	behindShell(t, b, stat+`
		trap 'echo interrupted' INT
		read -r line; echo "got $line"
		until read -r line && test -n "$line"; do :; done; echo "got $line"`)
	b.begin()
	leader, command := b.statLine(), b.statLine()
	require.Equal(t, leader.pid, command.pgrp)
	require.Equal(t, leader.pid, command.tpgid)
	_, err := master.WriteString("hello\n")
	require.NoError(t, err)
	require.Equal(t, "got hello", b.line())
	// The empty line lets read return where the signal came just before it: a trap waits for what the shell does.
	_, err = master.WriteString("\x03\n")
	require.NoError(t, err)
	require.Equal(t, "interrupted", b.line())
	_, err = master.WriteString("bye\n")
	require.NoError(t, err)
	require.Equal(t, "got bye", b.line())
	b.end()
}

// behindShell makes the box a shell that leads the session, ignores ^C, and starts init as its child.
func behindShell(t *testing.T, b *box, script string) {
	t.Helper()
	args, err := Args(3, []string{"/bin/sh"}, []string{"sh", "-c", script})
	require.NoError(t, err)
	_, err = unix.FcntlInt(highFd(t, b.Path), unix.F_SETFD, 0) // a shell executes it
	require.NoError(t, err)
	b.Cmd.Args = append([]string{"sh", "-c", "trap : INT\n" + stat + `"$@"; exit`, "sh", b.Path}, args[1:]...)
	b.Path = "/bin/sh"
}

// A terminal that is not the controlling one is left alone.
func TestOtherTerminal(t *testing.T) {
	_, slave := openPTY(t)
	b := shell(t, stat, func(b *box) { b.Stdin = slave; b.SysProcAttr.Setsid = true })
	p := b.statLine()
	require.Equal(t, p.pid, p.pgrp)
	require.Negative(t, p.tpgid)
	b.end()
	_, err := unix.IoctlGetInt(int(slave.Fd()), unix.TIOCGSID)
	require.ErrorIs(t, err, unix.ENOTTY)
}
