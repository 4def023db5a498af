//go:build linux

// Package notify lets a supervisor answer system calls of a command (seccomp_unotify(2)).
//
// A filter can say of a call that somebody else decides: seccomp.Notify, SECCOMP_RET_USER_NOTIF. The thread that made the call then
// waits, and a [Handler] in this process is asked. It sees which call it is and its arguments, can read what the arguments point at, and answers:
//
//	Errno(e)         the call fails
//	Return(v)        the call returns v; nothing was done, or the handler has done it
//	Descriptor(f)    the call returns the number of a descriptor that the target is given
//	Kill()           the process ends before it returns from the call
//	Continue()       the kernel makes the call
//
// # Continue is no security decision
//
// After Continue the kernel reads the arguments' memory again, and the target can have changed it since the handler read it. A handler that looks at
// a path and answers Continue decides about nothing. What depends on memory must be done by the handler: it opens, connects or makes a directory itself, with the copy
// that it has looked at, and answers with the result. [Request.Path], [Request.File] and [SockAddr.Connect] are made for that. The handler
// acts with the rights of its own process, which are most often more than the target's: whatever the target's own rights should have
// forbidden is for the handler to forbid. What only differs because the supervisor does it is refused to all targets ([ErrRefused]): files on procfs, where
// /proc/self is the supervisor, fifos and devices ([Path.Open]), and sockets whose peers see who has connected them ([SockAddr.Connect]).
//
// # Signals
//
// A signal interrupts a notified call as long as the supervisor has not received it, some microseconds. The call is then not made. If the signal has a handler without SA_RESTART, the
// call fails with EINTR, whatever call it is: a program does not expect that of close(2), say, and loses a descriptor. Ask about calls that may fail.
//
// # A supervisor
//
// [Filter] is the part of a sandbox that installs the filter and has its listener served. Where there are many sandboxes, one [Supervisor] serves
// all: idle ones cost a descriptor each, and no goroutine. Calls that follow each other, of one sandbox, are answered in about 1.25 times the time that a program in C
// needs to receive and answer them; the first of them, and those of several sandboxes at a time, in about twice that time; the first after a pause takes some ten microseconds more.
//
// When the supervisor's process ends, notified calls fail with ENOSYS: nothing is allowed for lack of a supervisor. That takes that nobody else holds the
// listener. The command does while it is being started, and if the supervisor is killed just then and execve(2) itself is asked about, it would wait for its own answer. So it
// closes its copy before, if the filter allows close(2), whatever its arguments. Where the filter does not, let the command end with its parent: caisson.DieWithParent.
//
// # Needs
//
// Linux 5.19 ([Filter.Interruptible]: 5.14), no privilege. What the handler reads of the target needs the right to trace it, which the caller has over what it
// has started as itself, or in a user namespace that it has made. A command that is executed in a running sandbox by an ordinary user, in a user namespace, cannot be
// supervised: the start fails with EPERM, because the host hides its memory from the sandbox while the command enters.
package notify
