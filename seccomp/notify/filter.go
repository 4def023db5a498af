//go:build linux

package notify

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/seccomp"
)

// Filter is the part of a sandbox that installs a filter in the command and lets a supervisor answer the calls for which the
// filter returns SECCOMP_RET_USER_NOTIF. A process can have one such filter, and not if who started it has one already (EBUSY).
//
// The filter is in force for the execve(2) by which the command is executed, too: if that is notified, the handler is
// asked. Its answer is the result of the start: Errno fails it.
//
// No_new_privs is set, so that no privilege is needed. First kernel: 5.19.
type Filter struct {
	// Program is the filter: a *[seccomp.Program], of which is checked that the command can be started under it, or [Raw], of which
	// nothing is.
	Program Program

	// Handler answers. It may be nil if the program itself notifies of nothing, which makes sense with ReportKills only.
	Handler Handler

	// ReportKills says for which call the command was killed. What the program answers with SECCOMP_RET_KILL_PROCESS or
	// SECCOMP_RET_KILL_THREAD is notified instead; the supervisor notes the call and kills the process with SIGKILL while it waits, so that it makes no other. The command's Result then
	// has the Reason plan.Filtered and the call in Syscall and Detail. Its Signal is what the kernel says: SIGKILL, not SIGSYS. When
	// another process of the sandbox was killed, Detail says so.
	//
	// It is weaker than the filter in one thing: a signal that reaches the thread before the supervisor has received the call interrupts it. The call is not made then either, but the
	// process lives on. And if the supervisor's process ends, such calls fail with ENOSYS.
	//
	// Further commands in the sandbox are killed too, but their results do not tell.
	ReportKills bool

	// Supervisor serves the sandbox together with others. Nil is a supervisor of its own for each start, which is closed when no process with
	// the filter is left.
	Supervisor *Supervisor

	// AllowNewPrivileges leaves no_new_privs unset, as in [seccomp.Filter]. Needs CAP_SYS_ADMIN, which a user namespace gives inside.
	AllowNewPrivileges bool

	// Interruptible lets signals interrupt a call that a handler is answering (it fails with EINTR or is made again), as kernels before
	// 5.19 always do. A handler may then be asked twice for the same, and cannot know whether the target has seen its answer.
	Interruptible bool
}

// Program is a filter as the kernel takes it.
type Program interface{ SockFilter() []unix.SockFilter }

// Raw is a filter that was made elsewhere.
type Raw []unix.SockFilter

// SockFilter gives a copy of the filter.
func (r Raw) SockFilter() []unix.SockFilter { return slices.Clone(r) }

// Apply implements plan.Primitive.
func (f Filter) Apply(p *plan.Plan) error {
	if f.Program == nil {
		return invalid("filter", "there is no program")
	}
	code := f.Program.SockFilter()
	if err := f.check(code); err != nil {
		return err
	}
	if err := f.prepare(p); err != nil {
		return err
	}
	shown := code
	if f.ReportKills {
		shown = reporting(code)
		p.Observe(observe)
	}
	p.Observe(func(run *plan.Run, _ *plan.Result) {
		if l, ok := run.Value(listenerKey{}).(*Listener); ok && l != nil {
			l.settle()
		}
	})
	listener := p.Slot()
	p.Take(f.install(shown).Save(listener), func(run *plan.Run, listener *os.File) error {
		l, err := f.serve(listener, f.handler(code, run, p.Has(plan.InitProg)))
		run.Set(listenerKey{}, l)
		return err
	})
	if allowsClose(shown) {
		// If we are killed now, nobody answers the child's execve(2), and it must not hold open what the answer would come by. Another filter may refuse that.
		p.Child(plan.Seccomp, plan.Call("close", unix.SYS_CLOSE, plan.Saved(listener)).Tolerate(syscall.EPERM))
	}
	return p.Claim("seccomp listener")
}

type listenerKey struct{}

func (f Filter) prepare(p *plan.Plan) error {
	if program, ok := f.Program.(*seccomp.Program); ok {
		return seccomp.Filter{Program: program, AllowNewPrivileges: f.AllowNewPrivileges}.Prepare(p)
	}
	if f.AllowNewPrivileges {
		p.NeedAdmin()
	} else {
		p.NoNewPrivs()
	}
	return nil
}

func (f Filter) check(code []unix.SockFilter) error {
	const most = 4096 // BPF_MAXINSNS
	switch {
	case len(code) == 0:
		return invalid("filter", "an empty program")
	case len(code) > most:
		return invalid("filter", fmt.Sprintf("%d instructions, of which %d are allowed", len(code), most))
	case computed(code) && (f.Handler == nil || f.ReportKills):
		return invalid("filter", "the program computes its answers: they cannot be told beforehand")
	case f.Handler == nil && notifies(code):
		return invalid("filter", "there is no handler")
	case f.Handler == nil && !f.ReportKills:
		return invalid("filter", "the program notifies of nothing")
	case f.ReportKills && f.Interruptible:
		return invalid("filter", "a call that can be interrupted is no place to be killed in")
	}
	return nil
}

// handler answers the calls of one start.
func (f Filter) handler(code []unix.SockFilter, run *plan.Run, init bool) Handler {
	if !f.ReportKills {
		return f.Handler
	}
	k := &killed{main: run.PID, init: init}
	run.Set(killedKey{}, k)
	return k.report(code, f.Handler)
}

var flagNames = []plan.Flag{{Bits: unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, Name: "SECCOMP_FILTER_FLAG_NEW_LISTENER"},
	{Bits: unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, Name: "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}}

// install is the call that installs the filter in the child.
func (f Filter) install(code []unix.SockFilter) plan.Op {
	flags := uint64(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
	needs := "the program is not valid, or the kernel is older than 5.19; see Filter.Interruptible"
	if f.Interruptible {
		needs = "the program is not valid"
	} else {
		flags |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	}
	return plan.Call("seccomp", unix.SYS_SECCOMP, plan.Number(unix.SECCOMP_SET_MODE_FILTER, "SECCOMP_SET_MODE_FILTER"),
		plan.Flags(flags, flagNames), program(code)).
		Hint(syscall.EINVAL, needs).
		Hint(syscall.EBUSY, "a filter that is in force already has a listener; there can be only one").
		Hint(syscall.EACCES, "needs CAP_SYS_ADMIN, because Filter.AllowNewPrivileges leaves no_new_privs alone")
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

// serve hands the listener to the supervisor. Nothing is undone at the end of the command: processes that it has left
// behind are supervised until the last has ended.
func (f Filter) serve(listener *os.File, h Handler) (*Listener, error) {
	if f.Supervisor != nil {
		return f.Supervisor.Serve(listener, h)
	}
	own, err := NewSupervisor(Handlers{})
	if err != nil {
		listener.Close()
		return nil, err
	}
	l, err := own.Serve(listener, h)
	if err != nil {
		own.Close()
		return nil, err
	}
	l.whenClosed(func() { own.Close() })
	return l, nil
}
