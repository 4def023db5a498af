//go:build linux

package notify

import (
	"errors"
	"fmt"
	"syscall"
)

// Error says what could not be done and why. It unwraps to the errno, so that errors.Is works with fs.ErrPermission,
// errors.ErrUnsupported and the errno itself.
type Error struct {
	Op   string // what was tried: "read 4096 bytes at 0x7ffd1000 of 4711"
	Err  error  // most often a syscall.Errno
	Hint string // what to do, where the errno alone would mislead; or ""
}

// Error gives all that is known on one line.
func (e *Error) Error() string {
	text := e.Op + ": " + e.Err.Error()
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// Unwrap gives Err.
func (e *Error) Unwrap() error { return e.Err }

// ErrGone says that nobody waits for the answer any more: the thread that made the call has been killed, or the call
// was interrupted by a signal, or it has been answered. What was read for it may be another process's and is not given.
var ErrGone = errors.New("nobody waits for the answer to this call")

// ErrRefused says that the target could do harm by it, or find out what is none of its business, if the supervisor did it with its own rights.
// The error gives the errno for the target, too, or is errors.ErrUnsupported.
var ErrRefused = errors.New("refused to the target of a supervisor")

func fail(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &Error{Op: fmt.Sprintf(format, args...), Err: err}
}

// invalid is the error of a value that makes no sense. It is an EINVAL for errors.Is.
func invalid(op, text string) error { return &Error{Op: op, Err: &reason{text, syscall.EINVAL}} }

// unsupported is the error of what there is no way to do.
func unsupported(op, text string) error {
	return &Error{Op: op, Err: &reason{text, errors.ErrUnsupported}}
}

// refused is the reason of an [ErrRefused].
func refused(text string, err error) error { return &reason{text, errors.Join(ErrRefused, err)} }

// reason is a text that says more than the error that it stands for.
type reason struct {
	text string
	err  error
}

func (r *reason) Error() string { return r.text }
func (r *reason) Unwrap() error { return r.err }
