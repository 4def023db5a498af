//go:build linux

package main

import (
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
)

// pipes connects the command's standard descriptors. Files and pipes of the caller are passed on as they are. A terminal
// never is: whoever has it open with CAP_SYS_ADMIN can type into it (TIOCSTI), so a pipe is put between, as by docker
// run without -t.
type pipes struct {
	stdin io.WriteCloser // nil where nothing has to be copied
}

func connectPipes(cmd *caisson.Cmd, interactive bool) (p pipes, err error) {
	cmd.Stdout, cmd.Stderr = hideTerminal(os.Stdout), hideTerminal(os.Stderr)
	switch {
	case interactive && isTerminal(os.Stdin):
		p.stdin, err = cmd.StdinPipe()
	case interactive:
		cmd.Stdin = os.Stdin
	}
	return p, err
}

// hideTerminal: through anything but an *os.File the command writes by a pipe.
func hideTerminal(f *os.File) io.Writer {
	if isTerminal(f) {
		return struct{ io.Writer }{f}
	}
	return f
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

func (p pipes) begin() {
	if p.stdin == nil {
		return
	}
	go func() { // not waited for: it may be waiting for the next line when the command ends
		io.Copy(p.stdin, os.Stdin)
		p.stdin.Close()
	}()
}

func (pipes) drain()   {} // Wait has done it
func (pipes) restore() {}
