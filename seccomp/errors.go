//go:build linux

package seccomp

import (
	"errors"
	"fmt"
	"syscall"
)

// NameError says that a name is unknown: of a system call, a group, an architecture, an action. It is an EINVAL for errors.Is.
type NameError struct {
	Kind string // "system call", "group", "architecture", "action", "capability"
	Name string
}

// Error names it.
func (e *NameError) Error() string { return fmt.Sprintf("%q is no %s", e.Name, e.Kind) }

// Unwrap gives EINVAL.
func (e *NameError) Unwrap() error { return syscall.EINVAL }

// RuleError says which rule of a policy is wrong.
type RuleError struct {
	Rule int // counted from 0
	Err  error
}

// Error gives the rule's number, counted from 0, and what is wrong with it.
func (e *RuleError) Error() string { return fmt.Sprintf("rule %d: %v", e.Rule, e.Err) }

// Unwrap gives Err.
func (e *RuleError) Unwrap() error { return e.Err }

// ConditionError says that a condition can have no meaning. It is an EINVAL for errors.Is.
type ConditionError struct {
	Call      string // "" where no call could have such a condition
	Condition Condition
	Text      string // why
}

// Error names call and condition.
func (e *ConditionError) Error() string {
	if e.Call == "" {
		return fmt.Sprintf("%v: %s", e.Condition, e.Text)
	}
	return fmt.Sprintf("%s, %v: %s", e.Call, e.Condition, e.Text)
}

// Unwrap gives EINVAL.
func (e *ConditionError) Unwrap() error { return syscall.EINVAL }

// ContradictionError says that two rules of a policy answer the same call in two ways. It is an EINVAL for errors.Is.
type ContradictionError struct {
	Call                      string
	Arch                      Arch
	First, Second             int // the rules, counted from 0, in their order
	FirstAction, SecondAction Action
}

// Error names call and both rules.
func (e *ContradictionError) Error() string {
	return fmt.Sprintf("rules %d and %d contradict each other: %s on %v is answered by %v, and then again by %v",
		e.First, e.Second, e.Call, e.Arch, e.FirstAction, e.SecondAction)
}

// Unwrap gives EINVAL.
func (e *ContradictionError) Unwrap() error { return syscall.EINVAL }

// SizeError says that a program is longer than the kernel takes. It is an E2BIG for errors.Is.
type SizeError struct {
	Instructions int // how many there are
	Limit        int // 4096 (BPF_MAXINSNS)
}

// Error gives both numbers.
func (e *SizeError) Error() string {
	return fmt.Sprintf("the program has %d instructions, and the kernel takes %d", e.Instructions, e.Limit)
}

// Unwrap gives E2BIG.
func (e *SizeError) Unwrap() error { return syscall.E2BIG }

// LaunchError says that the filter would end or hold up the very process that it is for, between the installation of the filter and execve(2).
// It is an EINVAL for errors.Is.
type LaunchError struct {
	Call   string // that the process has to make: "execve"
	Answer Action // of the filter
	Why    string // what the call is for
}

// Error names call and answer.
func (e *LaunchError) Error() string {
	return fmt.Sprintf("the filter answers %s with %v: %s", e.Call, e.Answer, e.Why)
}

// Unwrap gives EINVAL.
func (e *LaunchError) Unwrap() error { return syscall.EINVAL }

// Error says what could not be done and why. It unwraps to the errno; what the kernel lacks is errors.ErrUnsupported for errors.Is.
type Error struct {
	Op   string // what was tried: "seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC)"
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

func unsupported(op, text string) error {
	return &Error{Op: op, Err: &reason{text, errors.ErrUnsupported}}
}

func invalid(text string) error { return &reason{text, syscall.EINVAL} }
