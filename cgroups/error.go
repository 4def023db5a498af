//go:build linux

package cgroups

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// Error says what could not be done to which group and why. It unwraps to the errno, so that errors.Is works with
// fs.ErrPermission, fs.ErrNotExist, errors.ErrUnsupported and the errno itself.
type Error struct {
	Op         string // what was tried: "write", "mkdir", "kill"
	Group      string // the group's directory
	Controller string // "memory"; "" where none is concerned
	File       string // "memory.max"; "" where none is concerned
	Value      string // what was to be written, the unit that systemd was asked for, or ""
	Err        error  // most often a syscall.Errno
	Hint       string // what to do, where the errno alone would mislead; or ""
}

// Error gives all that is known on one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Value != "" {
		fmt.Fprintf(&b, " %q", e.Value)
	}
	for _, part := range [][2]string{{" ", e.File}, {" controller ", e.Controller}, {" in ", e.Group}} {
		if part[1] != "" && !(part[0] == " controller " && e.File != "") {
			b.WriteString(part[0] + part[1])
		}
	}
	b.WriteString(": " + e.Err.Error())
	if e.Hint != "" {
		b.WriteString(" (" + e.Hint + ")")
	}
	return b.String()
}

// Unwrap gives Err.
func (e *Error) Unwrap() error { return e.Err }

// LimitError says that a value makes no sense, before anything is done. It is an EINVAL for errors.Is.
type LimitError struct {
	Field  string // of [Limits]: "CPUs"; or what was parsed: "bytes"
	Value  string
	Reason string
}

// Error names field and value.
func (e *LimitError) Error() string { return fmt.Sprintf("%s %q: %s", e.Field, e.Value, e.Reason) }

// Unwrap gives EINVAL.
func (e *LimitError) Unwrap() error { return syscall.EINVAL }

// NameError says that a name or path cannot be that of a group. It is an EINVAL for errors.Is.
type NameError struct {
	Name   string
	Reason string
}

// Error gives the name and what is wrong with it.
func (e *NameError) Error() string { return fmt.Sprintf("group name %q: %s", e.Name, e.Reason) }

// Unwrap gives EINVAL.
func (e *NameError) Unwrap() error { return syscall.EINVAL }

// reason is a text that says more than the error that it stands for.
type reason struct {
	text string
	err  error
}

func (r *reason) Error() string { return r.text }
func (r *reason) Unwrap() error { return r.err }

// inexpressible is the error of a limit that this version of control groups does not have.
func inexpressible(field, controller string, v2 bool) error {
	version := "version 1"
	if v2 {
		version = "version 2"
	}
	return &Error{Op: "set " + field, Controller: controller,
		Err: &reason{"control groups " + version + " have no such limit", errors.ErrUnsupported}}
}

// missing is the error of a controller that is not there.
func missing(op, field, controller, group, text string) error {
	if field != "" {
		op += " " + field
	}
	return &Error{Op: op, Controller: controller, Group: group, Err: &reason{text, errors.ErrUnsupported}}
}
