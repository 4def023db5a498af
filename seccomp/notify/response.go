//go:build linux

package notify

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Response is the answer to a call. The zero value refuses it with ENOSYS, as the kernel does when nobody supervises.
type Response struct {
	kind    kind
	value   int64
	errno   syscall.Errno
	file    *os.File
	inherit bool
}

type kind uint8

const (
	kindErrno kind = iota
	kindReturn
	kindContinue
	kindDescriptor
	kindKill
)

// Errno lets the call fail with e, from 1 to 4095; any other number is ENOSYS. The call is not made.
func Errno(e syscall.Errno) Response { return Response{errno: e} }

// Return lets the call return v without being made. The C library takes -4095 to -1 for an errno.
func Return(v int64) Response { return Response{kind: kindReturn, value: v} }

// Result answers with what the supervisor got when it made the call itself: v, or the errno in err. An error without an errno
// is EPERM.
func Result(v int, err error) Response {
	var e syscall.Errno
	switch {
	case err == nil:
		return Return(int64(v))
	case errors.As(err, &e):
		return Errno(e)
	}
	return Errno(syscall.EPERM)
}

// Continue lets the kernel make the call, as if there were no filter.
//
// IT IS NOT A SECURITY DECISION where an argument is a pointer. After the answer the kernel reads the memory behind
// the pointer again, and another thread of the target, or a process that shares its memory, may have changed it
// meanwhile: whatever the handler has seen there, the call may be made with something else (seccomp_unotify(2),
// "Design goals"). The same holds for descriptors, whose numbers may stand for other files by then. Continue only what would be allowed in
// any case; what is allowed because of what was read must be done by the supervisor itself, on its own copy.
func Continue() Response { return Response{kind: kindContinue} }

// Descriptor gives the target a copy of f and makes its number the result of the call, in one step: no other thread can
// see the number before the call has returned. F is closed afterwards, also where it is not delivered. The copy is close-on-exec unless
// inherit is set. First kernel: 5.14. If the target has no room for it, the call fails with EMFILE.
func Descriptor(f *os.File, inherit bool) Response {
	return Response{kind: kindDescriptor, file: f, inherit: inherit}
}

// Kill ends the process with SIGKILL while it waits: the call is not made, and the process makes no other. It
// is what SECCOMP_RET_KILL_PROCESS does, but for the signal: who waits for the process sees SIGKILL and not SIGSYS.
func Kill() Response { return Response{kind: kindKill} }

// String gives the response in words.
func (r Response) String() string {
	switch r.kind {
	case kindReturn:
		return fmt.Sprintf("return %d", r.value)
	case kindContinue:
		return "continue"
	case kindDescriptor:
		return "descriptor"
	case kindKill:
		return "kill"
	}
	if name := unix.ErrnoName(r.number()); name != "" {
		return name
	}
	return fmt.Sprintf("errno %d", int(r.number()))
}

func (r Response) number() syscall.Errno {
	const most = 4095 // MAX_ERRNO
	if r.errno < 1 || r.errno > most {
		return syscall.ENOSYS
	}
	return r.errno
}

// answer sends the response. It is called once for each request. That nobody waits for it is no error: the target may
// end at any time.
func (r *Request) answer(a Response) {
	switch a.kind {
	case kindDescriptor:
		err := r.deliver(a)
		if a.file != nil {
			a.file.Close()
		}
		if err == nil || errors.Is(err, ErrGone) {
			return
		}
		a = Result(0, err)
	case kindKill:
		if r.kill() == nil {
			return
		}
		a = Errno(syscall.EPERM) // it is still refused
	}
	resp := response{id: r.id}
	switch a.kind {
	case kindReturn:
		resp.value = a.value
	case kindContinue:
		resp.flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
	default:
		resp.err = -int32(a.number())
	}
	r.listener.send(resp)
}

func (r *Request) deliver(a Response) error {
	if a.file == nil {
		return syscall.EBADF
	}
	_, err := r.add(a.file, addition{flags: unix.SECCOMP_ADDFD_FLAG_SEND}, a.inherit)
	return err
}

// Give gives the target a copy of f and returns its number there. The call goes on waiting. The copy is close-on-exec
// unless inherit is set. First kernel: 5.9.
func (r *Request) Give(f *os.File, inherit bool) (int, error) {
	return r.add(f, addition{}, inherit)
}

// GiveAt is Give with a number, as dup3(2): what the target had under it is closed.
func (r *Request) GiveAt(f *os.File, fd int, inherit bool) error {
	if fd < 0 {
		return fail(syscall.EBADF, "descriptor %d", fd)
	}
	_, err := r.add(f, addition{flags: unix.SECCOMP_ADDFD_FLAG_SETFD, at: uint32(fd)}, inherit)
	return err
}

func (r *Request) add(f *os.File, a addition, inherit bool) (fd int, err error) {
	a.id = r.id
	if !inherit {
		a.newFlags = unix.O_CLOEXEC
	}
	c, err := f.SyscallConn()
	if err == nil {
		e := c.Control(func(source uintptr) {
			a.source = uint32(source)
			fd, err = r.listener.d.ioctl(unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&a))
		})
		err = cmp.Or(e, err)
	}
	if err == syscall.ENOENT {
		err = ErrGone
	}
	return fd, fail(err, "give a descriptor to %d", r.PID)
}
