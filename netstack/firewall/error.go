//go:build linux

package firewall

import (
	"errors"
	"fmt"
	"syscall"
)

// Error says what could not be done and why. It unwraps to the errno, so that errors.Is works with fs.ErrPermission, errors.ErrUnsupported and the errno itself.
type Error struct {
	Op    string // what was tried: "change the tables", "lock /run/caisson/firewall/net-1/web"
	Owner string // whose rules it was about, or ""
	Err   error  // most often a syscall.Errno
	Hint  string // what to do, where the errno alone would mislead; or ""
}

// Error gives all that is known on one line.
func (e *Error) Error() string {
	text := "firewall"
	if e.Owner != "" {
		text += " of " + e.Owner
	}
	text += ": " + e.Op + ": " + e.Err.Error()
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// Unwrap gives Err.
func (e *Error) Unwrap() error { return e.Err }

// RuleError says that a value makes no sense, before anything is done. It is an EINVAL for errors.Is.
type RuleError struct {
	Field  string // of [Rules]: "Cards[0].Name"; or "id"
	Value  string
	Reason string
}

// Error names field and value.
func (e *RuleError) Error() string {
	return fmt.Sprintf("firewall: %s %q: %s", e.Field, e.Value, e.Reason)
}

// Unwrap gives EINVAL.
func (e *RuleError) Unwrap() error { return syscall.EINVAL }

// ConflictError says that somebody has already what the rules ask for. It is an EADDRINUSE for errors.Is.
type ConflictError struct {
	What    string // "tcp port 8080", "address 10.88.0.2", "id web"
	Owner   string // the id of the rules that have it; "" when it is a process
	PID     int    // the process that listens; 0 when it is unknown, or there is none
	Program string // its name (comm of proc(5)), or ""
}

// Error names what it is about and who has it.
func (e *ConflictError) Error() string {
	switch {
	case e.Owner != "":
		return fmt.Sprintf("firewall: %s is taken by the rules of %q", e.What, e.Owner)
	case e.PID != 0:
		return fmt.Sprintf("firewall: %s is taken by process %d (%s)", e.What, e.PID, e.Program)
	}
	return fmt.Sprintf("firewall: %s is taken by a process that cannot be seen", e.What)
}

// Unwrap gives EADDRINUSE.
func (e *ConflictError) Unwrap() error { return syscall.EADDRINUSE }

// SysctlError says that a parameter of the kernel forbids what the rules need, and was not or could not be changed.
type SysctlError struct {
	Name string // "net.ipv4.ip_forward"
	Have string // its value
	Want string
	Err  error // why it could not be changed; EOPNOTSUPP when [Host].Forward does not ask for it
	Hint string
}

// Error names the parameter, both values, and what to do.
func (e *SysctlError) Error() string {
	text := fmt.Sprintf("firewall: %s is %s and must be %s: %v", e.Name, e.Have, e.Want, e.Err)
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// Unwrap gives Err.
func (e *SysctlError) Unwrap() error { return e.Err }

// reason is a text that says more than the error that it stands for.
type reason struct {
	text string
	err  error
}

func (r *reason) Error() string { return r.text }
func (r *reason) Unwrap() error { return r.err }

// refused translates what the kernel said to a change of the tables.
func refused(owner string, err error) error {
	e := &Error{Op: "change the tables", Owner: owner, Err: err}
	switch {
	case errors.Is(err, syscall.EPERM):
		e.Hint = "needs CAP_NET_ADMIN in the user namespace that owns the network namespace"
	case errors.Is(err, syscall.EPROTONOSUPPORT), errors.Is(err, syscall.EAFNOSUPPORT):
		e.Err = &reason{"the kernel has no nf_tables", errors.ErrUnsupported}
	case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.EPROTO), errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOENT):
		// The kernel answers a batch for a subsystem or an expression that it has no module for in one of these ways; our own messages are the same everywhere.
		e.Err = &reason{err.Error(), errors.Join(errors.ErrUnsupported, err)}
		e.Hint = "the kernel lacks a part of nf_tables: nft_nat, nft_masq, nft_fib_inet, nft_ct, nft_numgen, nft_hash, nft_reject_inet"
	}
	return e
}

func failed(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &Error{Op: fmt.Sprintf(format, args...), Err: err}
}
