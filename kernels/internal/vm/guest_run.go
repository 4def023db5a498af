//go:build linux

package vm

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// run runs the commands and reports. Only a broken port keeps it from running all of them.
func (j job) run(events *json.Encoder) error {
	for i, c := range j.Commands {
		before := inventory()
		code, err := c.run(func(output []byte) error { return events.Encode(Event{Command: i, Output: output}) })
		if err != nil {
			events.Encode(Event{Command: i, Output: fmt.Appendf(nil, "vm init: %v\n", err)})
		}
		if err := events.Encode(Event{Command: i, Exit: &Exit{Code: code, Left: leftovers(before)}}); err != nil {
			return err
		}
	}
	return nil
}

// run runs one command in a session of its own and passes on what it writes.
func (c Command) run(write func([]byte) error) (code int, err error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 125, err
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return 125, err
	}
	defer r.Close()
	p, err := os.StartProcess(c.Args[0], c.Args, &os.ProcAttr{
		Dir: c.Dir, Env: unique(append(c.Env, "PWD="+c.Dir)), Files: []*os.File{null, w, w}, Sys: &unix.SysProcAttr{Setsid: true},
	})
	w.Close()
	if err != nil {
		return 126, err
	}
	copied := make(chan error, 1)
	go func() { copied <- copyOutput(r, write) }()
	code = reap(p.Pid)
	// A process that is left behind may hold the other end for ever.
	r.SetReadDeadline(time.Now().Add(time.Second))
	return code, <-copied
}

// unique keeps the last value of each variable; a program would mostly see the first.
func unique(env []string) []string {
	return (&exec.Cmd{Env: env}).Environ()
}

// copyOutput ends without error at the end of the pipe and at its deadline.
func copyOutput(r *os.File, write func([]byte) error) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := write(buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

// reap waits for a process, and meanwhile for every orphan, and returns its exit code as a shell has it.
func reap(pid int) int {
	var status unix.WaitStatus
	for p := 0; p != pid; {
		p, _ = unix.Wait4(-1, &status, 0, nil)
	}
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
