//go:build linux

package namespaces

import (
	"errors"
	"fmt"
	"syscall"
)

// Error says what could not be done and why. It unwraps to the errno, so that errors.Is works with fs.ErrPermission,
// fs.ErrNotExist, errors.ErrUnsupported and the errno itself.
type Error struct {
	Op   string // what was tried: "open /run/netns/blue", "setns(net)"
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

func fail(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &Error{Op: fmt.Sprintf(format, args...), Err: err}
}

// invalid is the error of a value that makes no sense. It is an EINVAL for errors.Is.
func invalid(op, text string) error { return &Error{Op: op, Err: &reason{text, syscall.EINVAL}} }

// unsupported is the error of what the kernel has no way to do. It is errors.ErrUnsupported for errors.Is.
func unsupported(op, text string) error {
	return &Error{Op: op, Err: &reason{text, errors.ErrUnsupported}}
}

// reason is a text that says more than the error that it stands for.
type reason struct {
	text string
	err  error
}

func (r *reason) Error() string { return r.text }
func (r *reason) Unwrap() error { return r.err }

// SetError says that a [Set] has an unknown bit, or its text an unknown name. It is an EINVAL for errors.Is.
type SetError struct {
	Text string // the bits or the name
}

// Error names the bits or the name.
func (e *SetError) Error() string { return fmt.Sprintf("%q is no kind of namespace", e.Text) }

// Unwrap gives EINVAL.
func (e *SetError) Unwrap() error { return syscall.EINVAL }
