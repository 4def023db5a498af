//go:build linux

package lsm

import (
	"errors"
	"fmt"
	"syscall"
)

// Error says what could not be done and why. It unwraps to the errno, so that errors.Is works with fs.ErrPermission,
// fs.ErrNotExist, errors.ErrUnsupported and the errno itself.
type Error struct {
	Op   string // what was tried: "open /proc/7/attr/current", "load the profile caisson"
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

// RuleError says that a rule of a Landlock rule set cannot be enforced, or that a path of it cannot be opened.
type RuleError struct {
	Rule Rule   // the rule
	Path string // the path that is concerned, or ""
	ABI  int    // the version of Landlock that it needs; 0 when that is not the reason
	Have int    // the version that the kernel has, where ABI is set; 0: none
	Err  error  // errors.ErrUnsupported, or an errno
}

// Error names the rule, and what it needs.
func (e *RuleError) Error() string {
	text := "rule \"" + e.Rule.String() + "\": "
	if e.Path != "" {
		text += printable(e.Path) + ": "
	}
	switch {
	case e.ABI > 0 && e.Have == 0:
		return text + fmt.Sprintf("needs Landlock ABI %d; the kernel has no Landlock, or it is not enabled (lsm= of its command line)", e.ABI)
	case e.ABI > 0:
		return text + fmt.Sprintf("needs Landlock ABI %d, the kernel has %d", e.ABI, e.Have)
	}
	return text + e.Err.Error()
}

// Unwrap gives Err.
func (e *RuleError) Unwrap() error { return e.Err }

// LabelError says that a command does not have the label that was asked for. It has been killed.
type LabelError struct {
	Module string // "apparmor" or "selinux"
	Want   string
	Have   string
}

// Error names both labels.
func (e *LabelError) Error() string {
	return fmt.Sprintf("the %s label is %q and not %q", e.Module, e.Have, e.Want)
}

// Unwrap gives EPERM.
func (e *LabelError) Unwrap() error { return syscall.EPERM }

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
