//go:build linux

package launch

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/initprog"
	"github.com/caisson-dev/caisson/plan"
)

// server performs the parent's actions while the child waits, and takes descriptors from it. The starting thread sleeps
// meanwhile.
type server struct {
	s    *start
	done chan struct{}
	over atomic.Bool // the child has executed its command or ended
	err  error
	word *message // read, and not yet acted on
}

// served reports whether the plan needs a server.
func (s *start) served() bool { return s.plan.Waits() || s.plan.Takes() }

func (s *start) serve() *server {
	v := &server{s: s, done: make(chan struct{})}
	if !s.served() {
		close(v.done)
		return v
	}
	go v.run(s.prog)
	return v
}

func (v *server) run(p *program) {
	defer close(v.done)
	if v.s.plan.Waits() && !v.act(p) {
		return
	}
	for i, st := range v.s.steps {
		if take := st.Taken(); take != nil && !v.taken(p, i, take) {
			return
		}
	}
}

// heard waits for the child's word; false: the child has ended.
func (v *server) heard(p *program) bool {
	fd, b := int(p.socket[0].Fd()), make([]byte, 1)
	n, err := ignoringEINTR(func() (int, error) { return unix.Read(fd, b) })
	return n == 1 && err == nil
}

// act performs the actions while the child waits, and lets it go on; false: it does not.
func (v *server) act(p *program) bool {
	v.err = v.ready()
	if !v.heard(p) {
		return false
	}
	v.s.run.PID = int(atomic.LoadInt32(&p.last().tid))
	for i, st := range v.s.steps {
		if st.Kind != plan.StepWhile {
			continue
		}
		if v.err == nil {
			v.err = v.perform(i, st)
		}
		if v.err != nil {
			unix.Kill(v.s.run.PID, unix.SIGKILL)
			return false
		}
	}
	v.s.enter()
	ignoringEINTR(func() (int, error) { return unix.Write(int(p.socket[0].Fd()), make([]byte, 1)) })
	return true
}

// ready does what needs no child, while the kernel makes it.
func (v *server) ready() error {
	for i, st := range v.s.steps {
		if st.Kind != plan.StepWhile || st.Action.Ready == nil {
			continue
		}
		if err := st.Action.Ready(v.s.run); err != nil {
			return v.s.failed(i, err)
		}
	}
	return nil
}

func (v *server) perform(i int, st plan.Step) error {
	if v.s.opt.Fault == i+1 {
		return v.s.failed(i, errInjected)
	}
	if err := st.Action.Do(v.s.run); err != nil {
		return v.s.failed(i, err)
	}
	v.s.done = append(v.s.done, st)
	return nil
}

// end waits for the server. The child has executed its command or ended.
func (v *server) end(p *program) error {
	v.over.Store(true)
	if p.socket[1] != nil {
		p.socket[1].Close()
	}
	<-v.done
	return v.err
}

// watch kills the children when the context ends, and one that is on its way into a sandbox when somebody has stopped it: whoever may send
// signals inside could hold it there, and with it the dumpable flag, and so other starts of an ordinary user's. The function that it gives must
// be called before any of them is waited for: a pid that has been waited for may be somebody else's.
func (s *start) watch() (stop func()) {
	var w watcher
	if s.ctx.Done() != nil {
		w.when(func(kill func()) func() bool { return context.AfterFunc(s.ctx, kill) }, time.Millisecond, s.prog.kill)
	}
	if s.joins() {
		w.when(func(look func()) func() bool { return time.AfterFunc(stopGrace, look).Stop }, stopGrace, s.prog.killStopped)
	}
	return w.stop
}

// stopGrace is how long a child may be stopped on its way: longer than a start takes, so that most are never looked at.
const stopGrace = 20 * time.Millisecond

// watcher does something to the children again and again, until it is stopped.
type watcher struct {
	mu     sync.Mutex
	over   bool
	undone []func() bool
}

// when registers f, to be done each time that the pause is over, from the moment on at which begin calls what it is given.
func (w *watcher) when(begin func(func()) func() bool, pause time.Duration, f func()) {
	w.undone = append(w.undone, begin(func() {
		for w.unlessOver(f) {
			time.Sleep(pause)
		}
	}))
}

func (w *watcher) unlessOver(f func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		f()
	}
	return !w.over
}

func (w *watcher) stop() {
	w.mu.Lock()
	w.over = true
	w.mu.Unlock()
	for _, f := range w.undone {
		f()
	}
}

// collect finds out what became of the child, and takes it over or buries it.
func (s *start) collect(v *server, stop func()) (p *Process, err error) {
	defer s.prog.closeHandles()
	if !s.prog.way.vfork {
		s.awaitReport()
	}
	err = v.end(s.prog)
	if own := s.callFailed(); own != nil {
		err = own // and whatever the parent was about to do for the child could not be done
	} else if err == nil {
		err = s.childError()
	}
	if err == nil {
		p, err = s.takeOver()
	}
	stop() // from here on pids are given back
	if err == nil {
		for _, pid := range s.prog.pids()[:len(s.prog.children)-1] {
			reap(pid)
		}
		return p, nil
	}
	s.prog.kill()
	for _, pid := range s.prog.pids() {
		reap(pid)
	}
	if s.ctx.Err() != nil {
		err = s.ctx.Err()
	}
	return nil, err
}

// awaitReport waits until a child with memory of its own has executed the command or ended: execve closes its end.
func (s *start) awaitReport() {
	s.prog.report[1].Close()
	io.Copy(io.Discard, s.prog.report[0])
}

// callFailed is the error of the call that has failed in a child, or nil.
func (s *start) callFailed() error {
	for i, c := range s.prog.children {
		if c.failed > 0 {
			return s.callError(s.prog.calls[i][c.failed-1].Step, c.errno)
		}
	}
	return nil
}

// childError says why a child in which no call has failed has not executed the command, or nil.
func (s *start) childError() error {
	n := len(s.prog.children) - 1
	c := s.prog.children[n]
	if calls := s.prog.calls[n]; c.tid == 0 || s.steps[calls[c.at].Step].Kind != plan.StepExec {
		return s.failed(s.reached(), errKilled)
	}
	return nil
}

func (s *start) callError(step int, errno int32) error {
	if errno == scriptErrno {
		return errScript
	}
	return s.failed(step, syscall.Errno(errno))
}

// errKilled: nobody but the context, the kernel's memory limit or an administrator sends SIGKILL to a child that is not
// yet the command.
var errKilled = fmt.Errorf("the child was killed before it could execute the command: %w", syscall.ECANCELED)

// reached is the step that the child was at.
func (s *start) reached() int {
	for i := len(s.prog.children) - 1; i >= 0; i-- {
		if c := s.prog.children[i]; c.tid != 0 {
			return s.prog.calls[i][c.at].Step
		}
	}
	return s.stepOf(plan.StepClone)
}

// takeOver makes the Process of a child that has executed the command, or the init process that starts it.
func (s *start) takeOver() (*Process, error) {
	c := s.prog.last()
	p := &Process{PID: int(c.tid), Run: s.run}
	s.run.PID = p.PID
	fd := int(c.pidfd)
	c.pidfd = -1
	if fd < 0 {
		var err error
		if fd, err = unix.PidfdOpen(p.PID, 0); err != nil {
			return nil, s.failed(s.stepOf(plan.StepClone), err)
		}
	}
	p.PIDFD = os.NewFile(uintptr(fd), "pidfd")
	err := s.executed(p)
	if err == nil {
		err = s.after()
	}
	if err != nil {
		if p.Report != nil {
			p.Report.Close()
		}
		p.PIDFD.Close()
		return nil, err
	}
	p.undo = s.done
	if s.prog.inspected && !slices.Equal(s.plain, s.cmd.Candidates) {
		s.plain = slices.Clone(s.cmd.Candidates)
	}
	return p, nil
}

// executed finds out what the child has executed.
func (s *start) executed(p *Process) error {
	switch {
	case s.cmd.Init:
		return s.awaitInit(p)
	case s.detour:
		return s.awaitDetour(p)
	}
	return s.verify(p.PID)
}

// awaitInit reads from the init process whether the command was executed.
func (s *start) awaitInit(p *Process) error {
	s.closeReport()
	step := s.stepOf(plan.StepExec)
	switch r, err := s.record(p); {
	case err != nil:
		return s.failed(step, fmt.Errorf("init: %w", err))
	case r.Kind == initprog.Failed:
		return s.failed(step, syscall.Errno(r.Value))
	}
	fd, err := unix.FcntlInt(s.reportRead.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return s.failed(step, err)
	}
	p.Report = os.NewFile(uintptr(fd), "report")
	return nil
}

func reap(pid int) {
	var ws unix.WaitStatus
	ignoringEINTR(func() (int, error) { return unix.Wait4(pid, &ws, 0, nil) })
}

func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		if n, err := f(); err != unix.EINTR {
			return n, err
		}
	}
}
