//go:build linux

package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/caisson-dev/caisson"
)

// terminal connects the command's terminal with the caller's standard input and output.
type terminal struct {
	*caisson.Terminal
	caller *os.File      // the caller's terminal, of which the size is taken; nil if there is none
	input  bool          // what is typed goes to the command
	others bool          // what the command leaves behind goes on
	reset  func() error  // sets the mode of the caller's terminal back
	output chan struct{} // closed when all output has been copied
}

// openTerminal gives the command a terminal. With -i everything typed is the command's, ^C too: the caller's terminal is in
// raw mode until the end.
func (f *flags) openTerminal(cmd *caisson.Cmd) (_ connection, err error) {
	t := &terminal{Terminal: cmd.Terminal, input: f.interactive, others: f.pid == "host", output: make(chan struct{})}
	switch {
	case f.interactive && !isTerminal(os.Stdin):
		return nil, errors.New("the input device is not a TTY")
	case f.interactive:
		t.caller = os.Stdin
	case isTerminal(os.Stdout):
		t.caller = os.Stdout
	}
	if t.caller != nil {
		t.Rows, t.Cols, _ = caisson.TerminalSize(t.caller) // who has no size has 0
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // who does not read our output must not end us with a raw terminal
	if t.input {
		t.reset, err = caisson.MakeRaw(t.caller)
	}
	return t, err
}

// begin copies from now on. The end of either side of the caller's is a hang-up for the command.
func (t *terminal) begin() {
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, syscall.SIGWINCH)
	t.resize() // it may have changed before Notify
	go func() {
		for range changes {
			t.resize()
		}
	}()
	if t.input {
		go t.copyInput() // not waited for: it may be waiting for the next key when the command ends
	}
	go t.copyOutput()
}

// resize gives the command's terminal the size of the caller's.
func (t *terminal) resize() {
	if t.caller == nil {
		return
	}
	if rows, cols, err := caisson.TerminalSize(t.caller); err == nil {
		t.Resize(rows, cols)
	}
}

// copyInput: a raw terminal's input ends when somebody hangs it up.
func (t *terminal) copyInput() {
	_, err := io.Copy(t.Terminal, os.Stdin)
	if e := new(fs.PathError); errors.As(err, &e) && e.Op == "write" {
		return // the command has ended, and what it has printed is still read
	}
	t.Close()
}

func (t *terminal) copyOutput() {
	defer close(t.output)
	io.Copy(os.Stdout, t.Terminal)
	t.Close()
}

// drain waits for the output. In the host's pid namespace a process that the command has left behind may hold the terminal for ever.
func (t *terminal) drain() {
	if t.others {
		t.SetReadDeadline(time.Now().Add(time.Second))
	}
	<-t.output
}

// restore gives the caller's terminal its mode back.
func (t *terminal) restore() {
	if t.reset != nil {
		t.reset()
	}
}
