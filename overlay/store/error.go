//go:build linux

package store

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/opencontainers/go-digest"
)

// Error says what could not be done with what. It unwraps to the errno, a [*layer.Error], or one of the types below.
type Error struct {
	Op   string // "add", "import", "lease"
	What string // the layer, image or path; or ""
	Err  error
}

// Error gives all that is known on one line.
func (e *Error) Error() string {
	if e.What == "" {
		return e.Op + ": " + e.Err.Error()
	}
	return fmt.Sprintf("%s %.200q: %s", e.Op, e.What, e.Err)
}

// Unwrap gives Err.
func (e *Error) Unwrap() error { return e.Err }

func fail(op, what string, err error) error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	return &Error{op, what, err}
}

// MissingError says that a layer, image or blob is not there. It is fs.ErrNotExist for errors.Is.
type MissingError struct{ What string }

// Error names it.
func (e *MissingError) Error() string { return fmt.Sprintf("%.200q is missing", e.What) }

// Unwrap gives ENOENT.
func (e *MissingError) Unwrap() error { return syscall.ENOENT }

// InUseError says who needs a layer that was to be deleted. It is EBUSY for errors.Is.
type InUseError struct {
	DiffID digest.Digest
	By     string // "a lease", or the image
}

// Error names both.
func (e *InUseError) Error() string { return fmt.Sprintf("layer %s is used by %.200s", e.DiffID, e.By) }

// Unwrap gives EBUSY.
func (e *InUseError) Unwrap() error { return syscall.EBUSY }

// MismatchError says that data are not what their digest or size says. Nothing of them has been kept. It is EBADMSG for errors.Is.
type MismatchError struct {
	What      string // "layer", "blob", "size", "tree"
	Want, Got string
}

// Error gives both.
func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s is %.100q, and should be %.100q", e.What, e.Got, e.Want)
}

// Unwrap gives EBADMSG.
func (e *MismatchError) Unwrap() error { return syscall.EBADMSG }

// FormatError says what cannot be read about an image. It is EINVAL for errors.Is.
type FormatError struct{ Text string }

// Error gives the text.
func (e *FormatError) Error() string { return e.Text }

// Unwrap gives EINVAL.
func (e *FormatError) Unwrap() error { return syscall.EINVAL }

func malformed(format string, args ...any) error { return &FormatError{fmt.Sprintf(format, args...)} }
