//go:build linux

package notify

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// Filter is the part of a sandbox that installs a filter in the command and lets a supervisor answer the calls for which the
// filter returns SECCOMP_RET_USER_NOTIF. A process can have one such filter, and not if who started it has one already (EBUSY).
//
// The filter is in force for the execve(2) by which the command is executed, too: if that is notified, the handler is
// asked. Its answer is the result of the start: Errno fails it.
//
// No_new_privs is set, so that no privilege is needed. First kernel: 5.19.
type Filter struct {
	// Program is the filter (seccomp(2)).
	Program []unix.SockFilter

	// Handler answers. It may be nil if the program notifies of nothing, which makes sense with ReportKills only.
	Handler Handler

	// Supervisor serves the sandbox together with others. Nil is a supervisor of its own for each start, which is closed when no process with
	// the filter is left.
	Supervisor *Supervisor

	// NewPrivs leaves no_new_privs alone: set-user-ID programs work. Needs CAP_SYS_ADMIN, which a user namespace gives inside.
	NewPrivs bool

	// Interruptible lets signals interrupt a call that a handler is answering (it fails with EINTR or is made again), as kernels before
	// 5.19 always do. A handler may then be asked twice for the same, and cannot know whether the target has seen its answer.
	Interruptible bool
}

// Apply implements plan.Primitive.
func (f Filter) Apply(p *plan.Plan) error {
	if err := f.check(); err != nil {
		return err
	}
	if f.NewPrivs {
		p.NeedAdmin()
	} else {
		p.NoNewPrivs()
	}
	p.Take(f.install(), f.take)
	return p.Claim("seccomp listener")
}

func (f Filter) check() error {
	const most = 4096 // BPF_MAXINSNS
	switch {
	case len(f.Program) == 0:
		return invalid("filter", "an empty program")
	case len(f.Program) > most:
		return invalid("filter", fmt.Sprintf("%d instructions, of which %d are allowed", len(f.Program), most))
	case f.Handler == nil:
		return invalid("filter", "there is no handler")
	}
	return nil
}

var flagNames = []plan.Flag{{Bits: unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, Name: "SECCOMP_FILTER_FLAG_NEW_LISTENER"},
	{Bits: unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, Name: "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}}

// install is the call that installs the filter in the child.
func (f Filter) install() plan.Op {
	flags := uint64(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
	needs := "the program is not valid, or the kernel is older than 5.19; see Filter.Interruptible"
	if f.Interruptible {
		needs = "the program is not valid"
	} else {
		flags |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	}
	return plan.Call("seccomp", unix.SYS_SECCOMP, plan.Number(unix.SECCOMP_SET_MODE_FILTER, "SECCOMP_SET_MODE_FILTER"),
		plan.Flags(flags, flagNames), program(f.Program)).
		Hint(syscall.EINVAL, needs).
		Hint(syscall.EBUSY, "a filter that is in force already has a listener; there can be only one").
		Hint(syscall.EACCES, "needs CAP_SYS_ADMIN, because Filter.NewPrivs leaves no_new_privs alone")
}

// program is struct sock_fprog.
func program(p []unix.SockFilter) plan.Arg {
	code := make([]byte, 0, 8*len(p))
	for _, i := range p {
		code = binary.NativeEndian.AppendUint16(code, i.Code)
		code = append(code, i.Jt, i.Jf)
		code = binary.NativeEndian.AppendUint32(code, i.K)
	}
	b := make([]byte, unsafe.Sizeof(unix.SockFprog{}))
	binary.NativeEndian.PutUint16(b, uint16(len(p)))
	return plan.Struct(fmt.Sprintf("{%d instructions}", len(p)), b,
		plan.Field{Offset: int(unsafe.Offsetof(unix.SockFprog{}.Filter)), Arg: plan.Bytes("", code)})
}

// take hands the listener to the supervisor. Nothing is undone at the end of the command: processes that it has left
// behind are supervised until the last has ended.
func (f Filter) take(run *plan.Run, listener *os.File) error {
	if f.Supervisor != nil {
		_, err := f.Supervisor.Serve(listener, f.Handler)
		return err
	}
	own, err := NewSupervisor(Handlers{})
	if err != nil {
		listener.Close()
		return err
	}
	l, err := own.Serve(listener, f.Handler)
	if err != nil {
		own.Close()
		return err
	}
	l.whenClosed(func() { own.Close() })
	return nil
}
