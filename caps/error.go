//go:build linux

package caps

import (
	"errors"
	"fmt"
	"syscall"
)

// Error says what could not be done and why. It unwraps to the errno, so that errors.Is works with fs.ErrPermission,
// fs.ErrNotExist, errors.ErrUnsupported and the errno itself.
type Error struct {
	Op   string // what was tried: "read /proc/1/status", "capset"
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

// reason is a text that says more than the error that it stands for.
type reason struct {
	text string
	err  error
}

func (r *reason) Error() string { return r.text }
func (r *reason) Unwrap() error { return r.err }

// invalid is the error of a value that makes no sense. It is an EINVAL for errors.Is.
func invalid(op, text string) error { return &Error{Op: op, Err: &reason{text, syscall.EINVAL}} }

// NameError says that a text names no capability. It is an EINVAL for errors.Is.
type NameError struct {
	Text string // the word that was not understood
}

// Error quotes the word.
func (e *NameError) Error() string { return fmt.Sprintf("%q is no capability", e.Text) }

// Unwrap gives EINVAL.
func (e *NameError) Unwrap() error { return syscall.EINVAL }

// TextError says where a text in libcap's format is wrong. It is an EINVAL for errors.Is.
type TextError struct {
	Text string // the clause that was not understood
}

// Error quotes the clause.
func (e *TextError) Error() string { return fmt.Sprintf("%q is no clause of cap_from_text(3)", e.Text) }

// Unwrap gives EINVAL.
func (e *TextError) Unwrap() error { return syscall.EINVAL }

// LackError says that capabilities were asked for by name that the caller does not have to give. It is an EPERM for errors.Is; where
// not even the kernel has them, it is errors.ErrUnsupported as well.
type LackError struct {
	Lacked  Set  // what is not there
	Unknown bool // some of them are unknown to the kernel
}

// Error names the capabilities.
func (e *LackError) Error() string {
	if e.Unknown {
		return fmt.Sprintf("the kernel does not know all of %v", e.Lacked)
	}
	return fmt.Sprintf("the caller has not got %v to give", e.Lacked)
}

// Unwrap gives EPERM.
func (e *LackError) Unwrap() error { return syscall.EPERM }

// Is makes it errors.ErrUnsupported where the kernel does not know them.
func (e *LackError) Is(target error) bool { return e.Unknown && target == errors.ErrUnsupported }

// errnoOf gives the errno in an error whose text is in Op already.
func errnoOf(err error) error {
	if e := syscall.Errno(0); errors.As(err, &e) {
		return e
	}
	return err
}
