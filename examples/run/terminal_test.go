//go:build linux

package main

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// desk is a terminal at which run is started; the test has the other end.
type desk struct {
	*terminal
	cmd *exec.Cmd
}

func sit(t *testing.T, uid int, args ...string) *desk {
	t.Helper()
	d := &desk{&terminal{}, command(uid, args...)}
	if err := d.open(); err != nil {
		t.Skip("no pseudoterminals here:", err)
	}
	t.Cleanup(func() { d.master.Close() })
	must(t, d.slave.Chown(uid, -1))
	d.size(t, 40, 120)
	d.cmd.Stdin, d.cmd.Stdout, d.cmd.Stderr = d.slave, d.slave, d.slave
	if d.cmd.SysProcAttr == nil {
		d.cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	d.cmd.SysProcAttr.Setsid, d.cmd.SysProcAttr.Setctty = true, true
	must(t, d.cmd.Start())
	t.Cleanup(func() { d.cmd.Process.Kill(); d.cmd.Wait() })
	return d
}

func (d *desk) size(t *testing.T, rows, columns uint16) {
	t.Helper()
	must(t, unix.IoctlSetWinsize(int(d.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}))
}

func (d *desk) send(t *testing.T, keys string) {
	t.Helper()
	_, err := d.master.WriteString(keys)
	must(t, err)
}

func (d *desk) mode(t *testing.T) unix.Termios {
	t.Helper()
	m, err := unix.IoctlGetTermios(int(d.slave.Fd()), unix.TCGETS)
	must(t, err)
	return *m
}

// exits waits for the end, and reads what is still printed.
func (d *desk) exits(t *testing.T, code int) {
	t.Helper()
	timer := time.AfterFunc(time.Minute, func() { d.cmd.Process.Kill() })
	defer timer.Stop()
	if d.cmd.Wait(); d.cmd.ProcessState.ExitCode() != code {
		t.Errorf("%v, want %d", d.cmd.ProcessState, code)
	}
}

func TestTerminal(t *testing.T) {
	eachUser(t, func(t *testing.T, uid int) {
		d := sit(t, uid, in([]string{"-it"}, "terminal")...)
		before := d.mode(t)
		out := wait(t, d.master, "ready\r\n")
		if !strings.Contains(out, "terminals true true true errors <nil> <nil>\r\nsize 40 120\r\n") {
			t.Errorf("%q", out)
		}
		if m := d.mode(t); m.Lflag&(unix.ECHO|unix.ICANON|unix.ISIG) != 0 {
			t.Errorf("the terminal is not raw: %#x", m.Lflag)
		}
		d.size(t, 50, 132)
		wait(t, d.master, "size 50 132\r\n")
		d.send(t, "\x03")
		wait(t, d.master, "got 2\r\n")
		d.exits(t, 7)
		after := d.mode(t)
		if before.Lflag&unix.ICANON != 0 && after != before {
			t.Errorf("the mode has changed from %+v to %+v", before, after)
		}
		if after.Lflag&unix.ICANON == 0 {
			t.Error("the terminal is still raw")
		}
	})
}

// TestTerminalKills: ^C has its default action, with an init process.
func TestTerminalKills(t *testing.T) {
	eachUser(t, func(t *testing.T, uid int) {
		d := sit(t, uid, in([]string{"-i", "-t", "--init"}, "sleep")...)
		wait(t, d.master, "ready\r\n")
		d.send(t, "\x03")
		d.exits(t, 130)
	})
}

// TestTerminalSignal: signals do not end run and leave a raw terminal behind.
func TestTerminalSignal(t *testing.T) {
	needRoot(t)
	d := sit(t, 0, in([]string{"-it"}, "terminal")...)
	wait(t, d.master, "ready\r\n")
	must(t, d.cmd.Process.Signal(syscall.SIGTERM))
	wait(t, d.master, "got 15\r\n")
	d.exits(t, 7)
	if m := d.mode(t); m.Lflag&unix.ICANON == 0 {
		t.Error("the terminal is still raw")
	}
}

// TestTerminalNotStarted: the terminal is restored before the error is printed.
func TestTerminalNotStarted(t *testing.T) {
	needRoot(t)
	d := sit(t, 0, "-it", "/no/such/program")
	out := wait(t, d.master, "\n")
	if !strings.HasPrefix(out, "run: ") || !strings.HasSuffix(out, "\r\n") {
		t.Errorf("%q", out)
	}
	d.exits(t, 127)
	if m := d.mode(t); m.Lflag&unix.ICANON == 0 {
		t.Error("the terminal is still raw")
	}
}

// TestTerminalEnvironment: and the owner, who can open it by name.
func TestTerminalEnvironment(t *testing.T) {
	needRoot(t)
	d := sit(t, 0, in([]string{"-t", "-h", "box"}, "env")...)
	wait(t, d.master, "TERM=xterm\r")
	d = sit(t, 0, in([]string{"-t", "-u", "1234"}, "terminal")...)
	wait(t, d.master, "terminals true true true errors <nil> <nil>\r")
}

// TestTerminalWithoutInput: the caller's terminal stays as it is, and the output may go anywhere.
func TestTerminalWithoutInput(t *testing.T) {
	eachUser(t, func(t *testing.T, uid int) {
		d := sit(t, uid, in([]string{"-t"}, "terminal")...)
		wait(t, d.master, "ready\r") // both terminals put a \r before \n
		if m := d.mode(t); m.Lflag&unix.ICANON == 0 {
			t.Error("the terminal is raw")
		}
		d.size(t, 50, 132)
		wait(t, d.master, "size 50 132\r")
		d.send(t, "\x03") // of the caller's terminal: a signal to run
		wait(t, d.master, "got 2\r")
		d.exits(t, 7)
		c := command(uid, in([]string{"-t"}, "print", "3")...)
		end(t, c).has(t, 0, "line 0\r\nline 1\r\nline 2", "")
	})
}

// TestTerminalHidden: without -t the command does not get hold of the caller's terminal.
func TestTerminalHidden(t *testing.T) {
	eachUser(t, func(t *testing.T, uid int) {
		d := sit(t, uid, in(nil, "terminal")...)
		wait(t, d.master, "terminals false false false errors open /dev/tty: no such device or address <nil>")
		d.exits(t, 0)
		d = sit(t, uid, in([]string{"-i"}, "cat")...)
		d.send(t, "typed\n")
		wait(t, d.master, "typed\r\ntyped\r\n") // the terminal's echo, and the command's
		d.send(t, "\x04")
		d.exits(t, 0)
	})
}

// TestTerminalOutput: nothing of the output is lost when the command ends.
func TestTerminalOutput(t *testing.T) {
	times := 40
	if os.Getenv("CAISSON_SLOW") != "" {
		times = 4
	}
	for range times {
		o := try(t, in([]string{"-t"}, "print", "2000")...)
		if lines := strings.Count(o.stdout, "\r\n"); lines != 2000 || !strings.HasSuffix(o.stdout, "line 1999\r\n") {
			t.Fatalf("%d lines of 2000, the last is %q", lines, o.stdout[max(0, len(o.stdout)-20):])
		}
	}
}
