//go:build linux

package seccomp

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// Flags change how a filter is installed or works (seccomp(2)). The zero value is none.
type Flags uint32

// The flags.
const (
	// AllThreads installs the filter for all threads of the process, or not at all (SECCOMP_FILTER_FLAG_TSYNC, Linux 3.17).
	AllThreads Flags = unix.SECCOMP_FILTER_FLAG_TSYNC
	// LogRefused writes all answers but Allow to the audit log (SECCOMP_FILTER_FLAG_LOG, Linux 4.14).
	LogRefused Flags = unix.SECCOMP_FILTER_FLAG_LOG
	// SpecAllow leaves off the mitigation of speculative store bypass, which a filter otherwise brings with it on kernels before
	// 5.16 (SECCOMP_FILTER_FLAG_SPEC_ALLOW, Linux 4.17): faster, and open to Spectre variant 4.
	SpecAllow Flags = unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	// NewListener makes the descriptor on which a supervisor hears of calls that are answered by Notify
	// (SECCOMP_FILTER_FLAG_NEW_LISTENER, Linux 5.0).
	NewListener Flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	// WaitKillable lets only a fatal signal interrupt a call that its supervisor has begun to answer; it needs NewListener
	// (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, Linux 5.19).
	WaitKillable Flags = unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV

	// threadErrno makes the failure of AllThreads an errno, which is needed together with NewListener: both want the result.
	threadErrno Flags = unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
)

var flagTable = [...]plan.Flag{
	{Bits: uint64(AllThreads), Name: "SECCOMP_FILTER_FLAG_TSYNC"}, {Bits: uint64(LogRefused), Name: "SECCOMP_FILTER_FLAG_LOG"},
	{Bits: uint64(SpecAllow), Name: "SECCOMP_FILTER_FLAG_SPEC_ALLOW"}, {Bits: uint64(NewListener), Name: "SECCOMP_FILTER_FLAG_NEW_LISTENER"},
	{Bits: uint64(threadErrno), Name: "SECCOMP_FILTER_FLAG_TSYNC_ESRCH"}, {Bits: uint64(WaitKillable), Name: "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"},
}

// String gives the kernel's names: "SECCOMP_FILTER_FLAG_LOG"; no flag is "0".
func (f Flags) String() string { return plan.FlagText(uint64(f), flagTable[:]) }

// ParseFlags reads the kernel's names, with commas or bars between them, as OCI profiles have them. The error is a [*NameError].
func ParseFlags(text string) (f Flags, err error) {
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune(",| ", r) }) {
		bit := Flags(0)
		for _, t := range flagTable {
			if t.Name == word {
				bit = Flags(t.Bits)
			}
		}
		if bit == 0 {
			return 0, &NameError{Kind: "flag of a filter", Name: word}
		}
		f |= bit
	}
	return f, nil
}

// Supported reports whether this kernel knows all of the flags. It asks the kernel and changes nothing. The error wraps
// errors.ErrUnsupported where there are no filters at all.
func (f Flags) Supported() (bool, error) {
	// A null program is found only after the flags have been looked at.
	_, err := seccomp[byte](unix.SECCOMP_SET_MODE_FILTER, f, nil)
	if err == syscall.EFAULT {
		return true, nil
	}
	return false, probeError("flags "+f.String(), err)
}

// Supported reports whether this kernel knows the action (SECCOMP_GET_ACTION_AVAIL, Linux 4.14). It asks the kernel and changes nothing.
func (a Action) Supported() (bool, error) {
	value := a.kind()
	_, err := seccomp(unix.SECCOMP_GET_ACTION_AVAIL, 0, &value)
	if err == nil {
		return true, nil
	}
	if err == syscall.EOPNOTSUPP {
		return false, nil
	}
	return false, probeError("action "+a.String(), err)
}

// probeError: EINVAL is the kernel's no.
func probeError(what string, err error) error {
	switch err {
	case syscall.EINVAL:
		return nil
	case syscall.ENOSYS:
		return unsupported("ask for "+what, "the kernel has no filters, or an outer filter hides them")
	}
	return &Error{Op: "ask for " + what, Err: err}
}
