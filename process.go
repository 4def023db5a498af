//go:build linux

package caisson

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/initprog"
	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/plan"
)

// Process is a running command. It is held by a pidfd (pidfd_open(2)), so a signal never reaches another process that has been given the same pid.
type Process struct {
	Pid int // in the caller's pid namespace

	plan    *plan.Plan // of the sandbox
	child   *launch.Process
	ownRoot bool
	killed  atomic.Bool

	mu     sync.RWMutex // held for writing when the descriptor is closed
	done   bool
	wait   sync.Once
	state  *os.ProcessState
	status syscall.WaitStatus // of the command, where an init process reports it
	result Result
	err    error
}

func newProcess(c *Cmd, child *launch.Process) *Process {
	return &Process{Pid: child.PID, plan: c.plan, child: child, ownRoot: ownRoot(c.plan, c.in), result: Result{ExitCode: -1}}
}

// Signal sends a signal to the command. After it has been waited for, the error is os.ErrProcessDone. As PID 1 of a new
// pid namespace the command gets only signals for which it has a handler, and SIGKILL and SIGSTOP (pid_namespaces(7)); with [Init] it is not PID 1.
func (p *Process) Signal(sig os.Signal) error {
	s, ok := sig.(syscall.Signal)
	if !ok {
		return errors.New("os: unsupported signal type")
	}
	return p.withFD(func(fd int) error { return unix.PidfdSendSignal(fd, s, nil, 0) })
}

// withFD calls f while the descriptor is open.
func (p *Process) withFD(f func(fd int) error) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.done {
		return os.ErrProcessDone
	}
	err := f(int(p.child.PIDFD.Fd()))
	if err == unix.ESRCH {
		return os.ErrProcessDone
	}
	return err
}

// WithHandle calls f with the pidfd, which is valid until f returns.
func (p *Process) WithHandle(f func(pidfd uintptr)) error {
	return p.withFD(func(fd int) error {
		f(uintptr(fd))
		return nil
	})
}

// Kill ends the command at once, and everything inside with it: with a pid namespace of the sandbox's own, the kernel kills all
// processes in it. Without one only the command itself is killed, as os.Process.Kill does.
func (p *Process) Kill() error {
	return p.withFD(func(fd int) error {
		err := unix.PidfdSendSignal(fd, syscall.SIGKILL, nil, 0)
		if err == nil {
			p.killed.Store(true)
		}
		return err
	})
}

// Wait waits for the command to end and lets go of all that was set up for it. It may be called several times, also concurrently. [Cmd.Wait]
// calls it; call one of the two.
func (p *Process) Wait() (*os.ProcessState, error) {
	p.wait.Do(p.awaitEnd)
	return p.state, p.err
}

func (p *Process) awaitEnd() {
	std, err := os.FindProcess(p.Pid)
	if err != nil {
		p.err = err
		return
	}
	if p.child.Report != nil {
		p.readReport() // to its end: the init process must not block
	}
	if p.state, p.err = std.Wait(); p.err == nil {
		p.observe()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = true
	p.err = errors.Join(p.err, p.child.Release())
}

// readReport reads how the command ended from the init process, whose own end cannot tell a signal from an exit code.
func (p *Process) readReport() {
	for {
		r, err := launch.ReadReport(p.child.Report, p.child.PIDFD)
		if err == nil && r.Kind == initprog.Ended {
			p.status = syscall.WaitStatus(r.Value)
		}
		if err != nil {
			return
		}
	}
}

// Exec gives a Cmd that executes a further command inside the running sandbox: in all its namespaces, its root and control
// group, and with the same user, limits and filters. The kernel ends it with the sandbox if that has a pid namespace. setns(2) by pidfd needs Linux 5.8.
//
// What runs in the sandbox may hold up the command while it enters (a stop signal ends it), so give it a context with a deadline where that is hostile; and it may read
// the caller's command line then (/proc/PID/cmdline), which is no place for secrets. A sandbox without a user namespace whose root has
// CAP_SYS_PTRACE, but not CAP_SYS_ADMIN, is not entered (EPERM): it could read the caller's memory. One whose root has kept both could do so too, and anything else to the host. On architectures other than amd64 and arm64
// what runs inside can get hold of the caller's binary while a command enters, and write to it once the caller has ended if it has the rights of its owner (CVE-2019-5736): do
// not enter a hostile sandbox there.
func (p *Process) Exec(name string, arg ...string) *Cmd { return newCmd(p.plan, p, name, arg) }

// ExecContext is Exec with a context, as [Sandbox.CommandContext].
func (p *Process) ExecContext(ctx context.Context, name string, arg ...string) *Cmd {
	return p.Exec(name, arg...).withContext(ctx)
}

// again is the plan of a further command.
func (p *Process) again(more ...plan.Primitive) *plan.Plan {
	return p.plan.Again(append([]plan.Primitive{plan.Func(p.join)}, more...)...)
}

// join enters all namespaces of the sandbox, by one call and by a pidfd: they are all those of one process.
func (p *Process) join(q *plan.Plan) error {
	flags := p.plan.Cloned() | p.plan.Joined()
	if flags == 0 { // there is nothing to enter, and nothing that would fail without the sandbox
		q.Before(plan.Action{Name: "look whether the sandbox runs", Do: func(*plan.Run) error { return p.withFD(running) }})
		return nil
	}
	sandbox := q.Open("pidfd of the sandbox as sandbox", func(*plan.Run) (f *os.File, err error) {
		err = p.withFD(func(fd int) error {
			fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
			f = os.NewFile(uintptr(fd), "pidfd")
			return err
		})
		return f, err
	})
	if flags&unix.CLONE_NEWUSER == 0 {
		q.Before(p.traceable())
	}
	q.Join(flags, plan.Call("setns", unix.SYS_SETNS, plan.FD(sandbox), plan.Namespaces(flags)).
		Hint(syscall.ESRCH, "the sandbox has ended").
		Hint(syscall.EINVAL, "entering by pidfd needs Linux 5.8"))
	return nil
}

// running reports os.ErrProcessDone by ESRCH when the process has ended but has not been waited for: its pidfd is readable.
func running(fd int) error {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(poll, 0); n > 0 && err == nil {
		return unix.ESRCH
	}
	return nil
}

// Result tells how and why the command ended. Before Wait its Reason is NotEnded.
func (c *Cmd) Result() Result { return c.result }

// Result tells how and why a command ended, and what it used.
type Result = plan.Result

// observe begins the result with what is known before anything is undone.
func (p *Process) observe() {
	r := &p.result
	status := p.state.Sys().(syscall.WaitStatus)
	if p.status != 0 || p.child.Report != nil && status == 0 {
		status = p.status
	}
	describe(r, status)
	if r.Signal == syscall.SIGSYS && p.plan.Filters() {
		r.Reason = plan.Filtered
	}
	if usage, ok := p.state.SysUsage().(*syscall.Rusage); ok && usage != nil {
		r.MaxRSS = int64(usage.Maxrss) << 10
	}
	r.UserTime, r.SystemTime = p.state.UserTime(), p.state.SystemTime()
	p.plan.Observed(p.child.Run, r)
}

// outcome is the result, with what only we know: who sent the signal. A part of the sandbox may know better.
func (p *Process) outcome(begin time.Time, cause error) Result {
	r := p.result
	r.Elapsed = time.Since(begin)
	if r.Reason == plan.Signaled {
		r.Reason = killReason(r.Signal, p.killed.Load(), cause)
	}
	return r
}

func describe(r *Result, status syscall.WaitStatus) {
	if status.Exited() {
		r.Reason, r.ExitCode = plan.Exited, status.ExitStatus()
		return
	}
	r.Reason, r.Signal, r.Core = plan.Signaled, status.Signal(), status.CoreDump()
}

// killReason tells our own signals from others. Cause is why the context has ended the command, or nil.
func killReason(sig syscall.Signal, ours bool, cause error) plan.Reason {
	switch {
	case errors.Is(cause, context.DeadlineExceeded):
		return plan.TimedOut
	case cause != nil:
		return plan.Canceled
	case ours && sig == syscall.SIGKILL:
		return plan.Killed
	}
	return plan.Signaled
}
