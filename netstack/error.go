//go:build linux

package netstack

import (
	"errors"
	"fmt"
	"syscall"
)

// Error says what could not be done with which device and why. It unwraps to the errno, so that errors.Is works with fs.ErrPermission, fs.ErrExist,
// errors.ErrUnsupported and the errno itself.
type Error struct {
	Op     string // what was tried: "create veth", "set mtu 9000"
	Device string // "eth0"; or ""
	Err    error  // most often a syscall.Errno
	Hint   string // what to do, where the errno alone would mislead; or ""
}

// Error gives all that is known on one line.
func (e *Error) Error() string {
	text := e.Op
	if e.Device != "" {
		text += fmt.Sprintf(" %q", e.Device)
	}
	text += ": " + e.Err.Error()
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// Unwrap gives Err.
func (e *Error) Unwrap() error { return e.Err }

// ValueError says that a value makes no sense, before anything is done. It is an EINVAL for errors.Is.
type ValueError struct {
	Field  string // "Name", "MTU"
	Value  string
	Reason string
}

// Error names field and value.
func (e *ValueError) Error() string { return fmt.Sprintf("%s %q: %s", e.Field, e.Value, e.Reason) }

// Unwrap gives EINVAL.
func (e *ValueError) Unwrap() error { return syscall.EINVAL }

// reason is a text that says more than the error that it stands for.
type reason struct {
	text string
	err  error
}

func (r *reason) Error() string { return r.text }
func (r *reason) Unwrap() error { return r.err }

// failed makes the error of a device, with a hint for what often goes wrong.
func failed(err error, op, device string) error {
	if err == nil {
		return nil
	}
	e := &Error{Op: op, Device: device, Err: err}
	switch {
	case errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES):
		e.Hint = "needs CAP_NET_ADMIN in the user namespace of the network; without it see Pasta and Slirp"
	case errors.Is(err, syscall.EOPNOTSUPP):
		e.Err = &reason{"the kernel has no such device or setting", errors.Join(errors.ErrUnsupported, err)}
	case errors.Is(err, syscall.ENFILE):
		e.Hint = "a bridge has room for 1023 devices"
	}
	return e
}
