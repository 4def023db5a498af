//go:build linux

package plan

import (
	"fmt"
	"syscall"
	"time"
)

// Result tells how and why a command ended, and what it used.
type Result struct {
	Reason   Reason
	ExitCode int            // 0 to 255; -1 unless Reason is Exited
	Signal   syscall.Signal // that ended the command; 0 for none
	Core     bool           // a core file was written
	Detail   string         // what a part of the sandbox knows about the reason, or ""

	Elapsed    time.Duration // from Start to the end of Wait
	UserTime   time.Duration // CPU time of the command and of those children that it has waited for
	SystemTime time.Duration // the same in the kernel

	// MaxRSS is the largest resident set of one process, in bytes (getrusage(2)). It is never below the caller's own at the
	// start: execve counts the memory that the child came with. A control group knows better.
	MaxRSS int64

	// What the sandbox as a whole has used; zero without a part that knows, as package cgroups does.
	MemoryPeak        int64         // bytes charged at most at once
	CPUTime           time.Duration // of all processes that were inside
	PIDsPeak          int64         // processes and threads at most at once
	IORead, IOWritten int64         // bytes from and to block devices
	Syscall           string        // the call that ended a Filtered command, as far as a part knows: x86_64 mkdir(0x7f.., 0777)
}

// Reason is why a command ended.
type Reason uint8

// The reasons.
const (
	NotEnded    Reason = iota // it has not been waited for
	Exited                    // by itself, with ExitCode
	Signaled                  // by Signal, sent by somebody else
	Killed                    // by Process.Kill
	Canceled                  // because its context was cancelled
	TimedOut                  // because the deadline of its context passed
	OutOfMemory               // because its control group reached its memory limit; the part that limits it knows
	Filtered                  // by a system call that its filter answers with its end (SIGSYS)
)

var reasons = [...]string{"not ended", "exited", "signaled", "killed", "canceled", "timed out", "out of memory",
	"killed by the system call filter"}

// String gives the reason in words.
func (r Reason) String() string {
	if int(r) < len(reasons) {
		return reasons[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// String gives the reason with exit code or signal.
func (r Result) String() string {
	text := r.Reason.String()
	switch {
	case r.Reason == Exited:
		text += fmt.Sprintf(" with %d", r.ExitCode)
	case r.Signal != 0 && r.Reason != OutOfMemory && r.Reason != Filtered:
		text += fmt.Sprintf(" by signal %d, %v", int(r.Signal), r.Signal)
	}
	if r.Detail != "" {
		text += ": " + r.Detail
	}
	return text
}
