//go:build linux

package seccomp

import (
	"cmp"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Action is what the kernel does with a call (seccomp(2)). The zero value is none: where an Action is a field, the field says what
// it means.
type Action uint64

// given marks an action that is not the zero value; the lower half is the value that a filter returns.
const given Action = 1 << 32

// The actions. [Errno], [Trap] and [Trace] make the others.
const (
	KillThread  = given | unix.SECCOMP_RET_KILL_THREAD  // end the thread with SIGSYS
	KillProcess = given | unix.SECCOMP_RET_KILL_PROCESS // end the process with SIGSYS (Linux 4.14)
	Notify      = given | unix.SECCOMP_RET_USER_NOTIF   // ask a supervisor: package notify (Linux 5.0)
	Log         = given | unix.SECCOMP_RET_LOG          // allow and write to the audit log (Linux 4.14)
	Allow       = given | unix.SECCOMP_RET_ALLOW        // let it pass
)

const dataMask = unix.SECCOMP_RET_DATA

// MaxErrno is the largest errno that a filter can give; the kernel cuts down what is larger (MAX_ERRNO).
const MaxErrno = 4095

// Errno makes the call fail with the errno, without being performed. Errno(0) makes it do nothing and return 0.
func Errno(e syscall.Errno) Action { return given | unix.SECCOMP_RET_ERRNO | Action(e)&dataMask }

// Trap sends the thread SIGSYS, which it can handle; the signal's si_errno is data.
func Trap(data uint16) Action { return given | unix.SECCOMP_RET_TRAP | Action(data) }

// Trace stops for a ptrace(2) tracer, which can read data by PTRACE_GETEVENTMSG. Without a tracer the call fails with ENOSYS.
func Trace(data uint16) Action { return given | unix.SECCOMP_RET_TRACE | Action(data) }

// Return gives the value that a filter returns to the kernel: SECCOMP_RET_... and data.
func (a Action) Return() uint32 { return uint32(a) }

// ActionOf is the action behind a value that a filter returned to the kernel.
func ActionOf(value uint32) Action { return given | Action(value) }

// Data is the errno of [Errno], and the data of [Trap] and [Trace].
func (a Action) Data() uint16 { return uint16(a & dataMask) }

func (a Action) kind() uint32 { return uint32(a) & unix.SECCOMP_RET_ACTION_FULL }

// Allows reports whether the call is performed without asking anybody: Allow and Log.
func (a Action) Allows() bool { return a != 0 && (a.kind() == Allow.kind() || a.kind() == Log.kind()) }

// Errno is the errno with which the call fails, where the action is [Errno].
func (a Action) Errno() (syscall.Errno, bool) {
	return syscall.Errno(a.Data()), a != 0 && a.kind() == unix.SECCOMP_RET_ERRNO
}

func (a Action) or(other Action) Action { return cmp.Or(a, other) }

// stricter reports whether the kernel prefers a to b where several filters disagree (seccomp(2)).
func (a Action) stricter(b Action) bool { return int32(a.kind()) < int32(b.kind()) }

var actionNames = [...]struct {
	action Action
	name   string
}{
	{KillThread, "kill thread"}, {KillProcess, "kill process"}, {Notify, "notify"}, {Log, "log"}, {Allow, "allow"},
	{Errno(0), "errno"}, {Trap(0), "trap"}, {Trace(0), "trace"},
}

func (a Action) name() string {
	for _, n := range actionNames {
		if n.action.kind() == a.kind() {
			return n.name
		}
	}
	return ""
}

// String gives the action in words: "allow", "errno EPERM", "trap 3".
func (a Action) String() string {
	name := a.name()
	switch {
	case a == 0:
		return "none"
	case name == "":
		return fmt.Sprintf("%#x", a.Return())
	}
	if e, ok := a.Errno(); ok {
		return name + " " + errnoName(e)
	}
	if d := a.Data(); d != 0 {
		return fmt.Sprintf("%s %d", name, d)
	}
	return name
}

func errnoName(e syscall.Errno) string {
	if n := unix.ErrnoName(e); n != "" {
		return n
	}
	return fmt.Sprint(uint(e))
}

// ParseAction reads what [Action.String] gives, in any case. The error is a [*NameError].
func ParseAction(text string) (Action, error) {
	words := strings.Fields(strings.ToLower(text))
	for _, a := range []Action{KillThread, KillProcess, Notify, Log, Allow} {
		if strings.Join(words, " ") == a.name() {
			return a, nil
		}
	}
	if len(words) == 0 || len(words) > 2 {
		return 0, &NameError{Kind: "action", Name: text}
	}
	word := strings.Join(words[1:], "")
	switch n, ok := number(word); {
	case words[0] == "errno" && ok && n <= MaxErrno:
		return Errno(syscall.Errno(n)), nil
	case words[0] == "errno" && len(words) == 2:
		if e, ok := errnoByName(word); ok {
			return Errno(e), nil
		}
	case (ok || word == "") && words[0] == "trap":
		return Trap(n), nil
	case (ok || word == "") && words[0] == "trace":
		return Trace(n), nil
	}
	return 0, &NameError{Kind: "action", Name: text}
}

func number(word string) (n uint16, ok bool) {
	_, err := fmt.Sscanf(word+"\n", "%d\n", &n)
	return n, err == nil && fmt.Sprint(n) == word
}

func errnoByName(name string) (syscall.Errno, bool) {
	for e := syscall.Errno(1); e < 200; e++ {
		if strings.EqualFold(unix.ErrnoName(e), name) {
			return e, true
		}
	}
	return 0, false
}
