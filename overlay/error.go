//go:build linux

package overlay

import (
	"errors"
	"fmt"
	"strconv"
	"syscall"
)

// Error says what could not be done, with which directory, and why. It unwraps to the errno, so that errors.Is works with
// fs.ErrPermission, fs.ErrNotExist, errors.ErrUnsupported and the errno itself.
type Error struct {
	Op   string // what was tried: "mount", "lock"
	Path string // the layer or directory; or ""
	Err  error  // most often a syscall.Errno
	Hint string // what to do, where the errno alone would mislead; or ""
}

// Error gives all that is known on one line.
func (e *Error) Error() string {
	text := "overlay: " + e.Op
	if e.Path != "" {
		text += " " + strconv.Quote(e.Path)
	}
	text += ": " + e.Err.Error()
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// Unwrap gives Err.
func (e *Error) Unwrap() error { return e.Err }

// invalid is the error of a stack that makes no sense. It is an EINVAL for errors.Is.
func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, syscall.EINVAL)...)
}

func hintFor(err error, e syscall.Errno, hint string) string {
	if errors.Is(err, e) {
		return hint
	}
	return ""
}
