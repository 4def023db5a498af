//go:build linux

package seccomp

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Install puts the filter in force for all threads of the calling process, and for all that they start. It is for good. The kernel does it for
// all threads or for none; a thread that has a filter of its own, which the calling thread has not, is a [*Error].
//
// no_new_privs is set first, unless the filter has AllowNewPrivileges. The Go runtime needs calls of its own: mmap, munmap, madvise,
// futex, clone, rt_sigprocmask, rt_sigreturn, sigaltstack, sched_yield, nanosleep, epoll_pwait, tgkill, getpid among others.
func (f Filter) Install() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return f.install(f.Flags | AllThreads)
}

// InstallThread puts the filter in force for the calling thread alone and ties the goroutine to it for good: when the goroutine ends, the thread
// does. What other goroutines do is not filtered, and they share all memory: this is no boundary against the code of the same
// process.
func (f Filter) InstallThread() error {
	runtime.LockOSThread()
	if err := f.install(f.Flags &^ AllThreads); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	return nil
}

func (f Filter) install(flags Flags) error {
	if err := f.Err(); err != nil {
		return err
	}
	if f.Program.Notifies() || flags&(NewListener|WaitKillable) != 0 {
		return unsupported("Install", "answers by Notify need a supervisor, see package notify")
	}
	if !f.AllowNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return &Error{Op: "prctl(PR_SET_NO_NEW_PRIVS)", Err: err}
		}
	}
	prog := unix.SockFprog{Len: uint16(f.Program.Len()), Filter: (*unix.SockFilter)(unsafe.Pointer(&f.Program.bytes[0]))}
	n, err := seccomp(unix.SECCOMP_SET_MODE_FILTER, flags, &prog)
	runtime.KeepAlive(f.Program)
	return f.installed(flags, n, err)
}

// installed understands the kernel's answer. A positive result is no success: it is the thread that could not be brought in line.
func (f Filter) installed(flags Flags, n int, err error) error {
	op := "seccomp(SECCOMP_SET_MODE_FILTER, " + flags.String() + ")"
	switch {
	case err == nil && n == 0:
		return nil
	case err == nil:
		return &Error{Op: op, Err: &reason{fmt.Sprintf("thread %d has another filter", n), syscall.ESRCH}}
	case err == syscall.EINVAL:
		if lacking := f.missing(flags); lacking != nil {
			return lacking
		}
	case err == syscall.ENOSYS:
		return unsupported(op, hintNone)
	}
	hints := map[error]string{syscall.EACCES: hintAccess, syscall.ENOMEM: "all filters of a process together have 32,768 instructions at most"}
	return &Error{Op: op, Err: err, Hint: hints[err]}
}

// seccomp makes the system call.
func seccomp[T any](op uintptr, flags Flags, arg *T) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_SECCOMP, op, uintptr(flags), uintptr(unsafe.Pointer(arg)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
