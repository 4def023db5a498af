//go:build linux

package plan

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Error says which step of a plan failed and why. It unwraps to the errno, so that errors.Is works with
// fs.ErrPermission, fs.ErrNotExist, errors.ErrUnsupported and the errno itself.
type Error struct {
	Primitive string // the part that asked for the step: "namespaces.IDs"; "launch" for the launcher's own
	Call      string // the call as Plan.String prints it; "" when the plan could not be built
	Step      int    // which step failed, counted from 1; 0 when nothing was started
	Steps     int    // how many steps the plan has
	Err       error  // most often a syscall.Errno
	Hint      string // what to do, where the errno alone would mislead; or ""
}

// Error gives all that is known on one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("caisson: ")
	if e.Step > 0 {
		fmt.Fprintf(&b, "step %d of %d, ", e.Step, e.Steps)
	}
	b.WriteString(e.Primitive + ": ")
	if e.Call != "" {
		b.WriteString(e.Call + ": ")
	}
	b.WriteString(e.Err.Error())
	if e.Hint != "" {
		b.WriteString(" (" + e.Hint + ")")
	}
	return b.String()
}

// ErrChanged is for the function of [Plan.TakeAt] or [Plan.AskAt] that finds the host other than it was when the start began ([Calls]): what the child has opened belongs to
// it alone so far, and the start is made once more. Where that goes on, it is the error of the start.
var ErrChanged = fmt.Errorf("the host has changed in this moment: %w", syscall.EAGAIN)

// Unwrap gives Err.
func (e *Error) Unwrap() error { return e.Err }

// ConflictError says that two parts want to provide the same thing.
type ConflictError struct {
	What          string // "hostname"
	First, Second string // the primitives, in the order of the parts
}

// Error names both parts.
func (e *ConflictError) Error() string {
	if e.First == e.Second {
		return fmt.Sprintf("the %s is given twice by %s", e.What, e.First)
	}
	return fmt.Sprintf("the %s is given by %s and by %s", e.What, e.First, e.Second)
}

// Is makes a conflict an EINVAL for errors.Is.
func (e *ConflictError) Is(target error) bool { return target == syscall.EINVAL }

func errnoName(e syscall.Errno) string {
	if n := unix.ErrnoName(e); n != "" {
		return n
	}
	return fmt.Sprintf("errno %d", int(e))
}

// Errno finds the system's error number in err; 0 when there is none.
func Errno(err error) syscall.Errno {
	var e syscall.Errno
	errors.As(err, &e)
	return e
}
