//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/pty"
)

// desk is a terminal at which run is started; the test has the other end.
type desk struct {
	master, slave *os.File
	cmd           *exec.Cmd
}

func sit(t *testing.T, uid int, args ...string) *desk {
	t.Helper()
	return sitWith(t, uid, nil, args...)
}

// sitWith is sit with another standard output.
func sitWith(t *testing.T, uid int, stdout *os.File, args ...string) *desk {
	t.Helper()
	master, slave, err := pty.Open()
	must(t, err)
	t.Cleanup(func() { master.Close(); slave.Close() })
	d := &desk{master, slave, command(uid, args...)}
	must(t, d.slave.Chown(uid, -1))
	d.size(t, 40, 120)
	d.cmd.Stdin, d.cmd.Stdout, d.cmd.Stderr = d.slave, d.slave, d.slave
	if stdout != nil {
		d.cmd.Stdout = stdout
	}
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
	must(t, pty.SetSize(d.master, rows, columns))
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

// TestTerminalName: the terminal has a name inside, belongs to the user, is the console, and is the first one of the sandbox.
func TestTerminalName(t *testing.T) {
	eachUser(t, func(t *testing.T, uid int) {
		for _, flags := range [][]string{{"-it"}, {"-it", "--init"}, {"-t"}, {"-it", "--userns", "keep-id"}} {
			d := sit(t, uid, in(flags, "tty")...)
			wait(t, d.master, "/dev/pts/0 mine true console true\r")
			d.exits(t, 0)
		}
	})
	if os.Geteuid() == 0 {
		d := sit(t, 0, in([]string{"-it", "-u", "1234"}, "tty")...)
		wait(t, d.master, "/dev/pts/0 mine true console true\r")
		d.exits(t, 0)
	}
}

// TestTerminalJobs: an interactive shell has job control.
func TestTerminalJobs(t *testing.T) {
	shell, err := exec.LookPath("bash")
	if err != nil {
		t.Skip(err)
	}
	eachUser(t, func(t *testing.T, uid int) {
		for _, flags := range [][]string{{"-it"}, {"-it", "--init"}} {
			d := sit(t, uid, append(flags, "-e", "PS1=$ ", "--", shell, "--norc", "--noprofile", "--noediting", "-i")...)
			if text := wait(t, d.master, "$ "); strings.Contains(text, "process group") || strings.Contains(text, "job control") {
				t.Errorf("%q", text)
			}
			d.send(t, "tty; stty size; cat\r")
			wait(t, d.master, "/dev/pts/0\r\n40 120\r\n")
			d.send(t, "first\r")
			wait(t, d.master, "first\r\nfirst\r\n")
			d.send(t, "\x1a")
			wait(t, d.master, "cat\r\n$ ") // stopped, and the shell listens
			d.send(t, "fg\r")
			wait(t, d.master, "fg\r\ncat\r\n")
			d.send(t, "second\r")
			wait(t, d.master, "second\r\nsecond\r\n")
			d.send(t, "\x03")
			wait(t, d.master, "$ ")
			d.send(t, "echo $?\r")
			wait(t, d.master, "130\r\n")
			d.send(t, "exit 4\r")
			d.exits(t, 4)
		}
	})
}

// TestTerminalNobodyReads: when our output goes nowhere, the command is hung up, and our terminal is as it was.
func TestTerminalNobodyReads(t *testing.T) {
	eachUser(t, func(t *testing.T, uid int) {
		r, w, err := os.Pipe()
		must(t, err)
		defer w.Close()
		d := sitWith(t, uid, w, in([]string{"-it"}, "print", "100000000")...)
		must(t, w.Close())
		wait(t, r, "line 10\r\n")
		if m := d.mode(t); m.Lflag&unix.ICANON != 0 {
			t.Error("the terminal is not raw")
		}
		must(t, r.Close())
		d.cmd.Wait()
		if !d.cmd.ProcessState.Exited() {
			t.Error(d.cmd.ProcessState)
		}
		if m := d.mode(t); m.Lflag&unix.ICANON == 0 {
			t.Error("the terminal is still raw")
		}
	})
}

// TestTerminalHangUp: the caller's terminal is closed, and so is the command's.
func TestTerminalHangUp(t *testing.T) {
	eachUser(t, func(t *testing.T, uid int) {
		for _, flags := range [][]string{{"-it"}, {"-it", "--init"}} {
			d := sit(t, uid, in(flags, "cat")...)
			d.send(t, "typed\r")
			wait(t, d.master, "typed\r\ntyped\r\n")
			must(t, d.slave.Close())
			must(t, d.master.Close())
			timer := time.AfterFunc(time.Minute, func() { d.cmd.Process.Kill() })
			if d.cmd.Wait(); !timer.Stop() {
				t.Errorf("%v: it goes on without a terminal", flags)
			}
		}
	})
}

// TestTerminalLeftBehind: what is left behind in the host's pid namespace does not keep run waiting.
func TestTerminalLeftBehind(t *testing.T) {
	d := sit(t, os.Geteuid(), in([]string{"-it", "--pid", "host", "--init=false"}, "leave")...)
	begin := time.Now()
	wait(t, d.master, "left\r\n")
	d.exits(t, 0)
	if gone := time.Since(begin); gone > 4*time.Second {
		t.Error("it took", gone)
	}
	for end := time.Now().Add(20 * time.Second); napping() && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
	}
}

// napping reports whether what was left behind is still there.
func napping() bool {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range all {
		if b, err := os.ReadFile(name); err == nil && string(b) == "tool\x00nap3\x00" {
			return true
		}
	}
	return false
}

// TestTerminalCVE_2017_5226: what is typed from inside (TIOCSTI) into whatever the command has is not typed into the caller's terminal.
func TestTerminalCVE_2017_5226(t *testing.T) {
	eachUser(t, func(t *testing.T, uid int) {
		for _, flags := range [][]string{{"-it"}, {"-t"}, {"-i"}, nil, {"-it", "--init"}, {"-it", "--pid", "host"}} {
			d := sit(t, uid, in(flags, "inject")...)
			wait(t, d.master, "injected")
			d.exits(t, 0)
			must(t, unix.SetNonblock(int(d.slave.Fd()), true))
			if n, err := unix.Read(int(d.slave.Fd()), make([]byte, 100)); err != unix.EAGAIN {
				t.Errorf("%v: %d bytes were typed, %v", flags, n, err)
			}
		}
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
