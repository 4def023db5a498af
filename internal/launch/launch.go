//go:build linux

// Package launch starts a plan: it makes a child that shares the host's memory, lets it make the plan's calls without
// running any Go code of the runtime's, and returns when the child has executed its command or failed.
//
// The child is made by clone3 with CLONE_VM and CLONE_VFORK, so that a start costs the same however large the host is.
// It has a stack of its own: even if some process between host and child is killed, host and child never run on one
// stack. What cannot share memory (a time namespace that is joined; an architecture without our assembly) gets a copy.
package launch

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/dumpable"
	"github.com/caisson-dev/caisson/plan"
)

// Process is a child that has executed its command.
type Process struct {
	PID    int
	PIDFD  *os.File
	Run    *plan.Run
	Report *os.File // where an init process reports; nil without one

	release func() // lets go the thread that die-with-parent depends on
	undo    []plan.Step
}

// Options are for tests and for commands in running sandboxes; the zero value is the ordinary start.
type Options struct {
	Inherit           *plan.Run // values of the start that made the sandbox
	NoClone3, NoVfork bool      // as if an outer filter refused clone3, as if there were no assembly
	Fault             int       // step that is made to fail, counted from 1
}

// Start performs the plan and executes the command. Errors are *plan.Error; nothing is left behind then. The context
// bounds the start only.
func Start(ctx context.Context, p *plan.Plan, cmd *plan.Command, opt Options) (*Process, error) {
	if err := p.Err(); err != nil {
		return nil, err
	}
	if setID() {
		return nil, &plan.Error{Primitive: "launch", Err: syscall.EPERM, Hint: "the host program was started set-user-ID or set-group-ID"}
	}
	if !p.Dies() {
		return newStart(ctx, p, cmd, opt).perform()
	}
	return startKept(func() (*Process, error) { return newStart(ctx, p, cmd, opt).perform() })
}

// startKept starts on a thread that stays until the process is released. The kernel sends the death signal when the
// *thread* ends that made the child (prctl(2), PR_SET_PDEATHSIG), and the runtime ends threads on which a goroutine
// exits while locked to it.
func startKept(start func() (*Process, error)) (p *Process, err error) {
	started, released := make(chan struct{}), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		p, err = start()
		close(started)
		if err == nil {
			<-released
		}
	}()
	<-started
	if err == nil {
		p.release = func() { close(released) }
	}
	return p, err
}

// Release is called once, when the process has ended and been waited for: it undoes what the parent did for it.
func (p *Process) Release() error {
	if p.release != nil {
		p.release()
	}
	if p.Report != nil {
		p.Report.Close()
	}
	p.PIDFD.Close()
	return undo(p.undo, p.Run)
}

func undo(done []plan.Step, r *plan.Run) (err error) {
	for i := len(done) - 1; i >= 0; i-- {
		if u := done[i].Action.Undo; u != nil {
			err = errors.Join(err, u(r))
		}
	}
	return err
}

// start is one start of a plan.
type start struct {
	ctx  context.Context
	plan *plan.Plan
	cmd  *plan.Command
	opt  Options
	run  *plan.Run
	*scratch
	done []plan.Step // actions of the parent, to be undone
	prog *program

	files                   []*os.File // the command's descriptors
	extra                   []*os.File // of the launcher's own, closed at the end
	host                    *os.File   // pidfd of this thread, or process
	init                    *os.File   // the init program
	detour                  bool       // the init program executes the command in its own place
	reportRead, reportWrite *os.File   // from the init program
	entered                 bool       // package dumpable knows of the child
	hidden                  hiding     // whether the child must not be traced
}

func newStart(ctx context.Context, p *plan.Plan, cmd *plan.Command, opt Options) *start {
	s := &start{ctx: ctx, plan: p, cmd: cmd, opt: opt, run: p.NewRun(ctx, opt.Inherit), scratch: scratchOf(p)}
	s.steps = p.AppendSteps(s.steps[:0], cmd)
	s.hidden = s.hiding()
	return s
}

func (s *start) perform() (_ *Process, err error) {
	if s.hidden == impossible {
		return nil, &plan.Error{Primitive: "launch", Err: syscall.EPERM, Hint: "a caller with capabilities that is not root needs CAP_DAC_OVERRIDE " +
			"to make a user namespace: any process of its user could read its memory meanwhile"}
	}
	defer s.giveBack()
	defer func() {
		s.run.CloseFiles()
		for _, f := range s.extra {
			f.Close()
		}
		if err != nil {
			err = unwrapped(errors.Join(err, undo(s.done, s.run)))
		}
	}()
	if err := s.ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.before(); err != nil {
		return nil, err
	}
	return s.launch()
}

// before performs the parent's part before the clone.
func (s *start) before() error {
	for i, st := range s.steps {
		var err error
		switch {
		case st.Kind != plan.StepAction && st.Kind != plan.StepOpen:
			continue
		case s.opt.Fault == i+1:
			err = errInjected
		case st.Kind == plan.StepOpen:
			err = s.plan.OpenFile(s.run, st)
		default:
			if err = st.Action.Do(s.run); err == nil {
				s.done = append(s.done, st)
			}
		}
		if err != nil {
			return s.failed(i, err)
		}
	}
	return nil
}

// after performs the actions that look at the command. Where one fails, the caller kills it.
func (s *start) after() error {
	last := s.plan.AfterSteps()
	for k, st := range last {
		i, err := len(s.steps)+k, error(nil)
		if s.opt.Fault == i+1 {
			err = errInjected
		} else {
			err = st.Action.Do(s.run)
		}
		if err != nil {
			return &plan.Error{Primitive: st.Primitive, Call: st.String(), Step: i + 1, Steps: len(s.steps) + len(last), Err: err}
		}
		s.done = append(s.done, st)
	}
	return nil
}

var errInjected error = syscall.EBADF

// failed makes the typed error of step i.
func (s *start) failed(i int, err error) error {
	st := s.steps[i]
	e := &plan.Error{Primitive: st.Primitive, Call: st.String(), Step: i + 1, Steps: len(s.steps), Err: err}
	if e.Hint = st.HintFor(err); e.Hint == "" {
		e.Hint = s.hint(st, plan.Errno(err))
	}
	return e
}

// launch makes the child, in the first way that the kernel allows.
func (s *start) launch() (*Process, error) {
	s.foresee()
	for _, w := range s.ways() {
		p, err := s.settled(w)
		if errors.Is(err, errScript) {
			s.detour = true
			s.run.Next()
			if err = s.renew(); err == nil {
				p, err = s.settled(w)
			}
		}
		if err == nil || !errors.Is(err, errNoClone) {
			return p, err
		}
	}
	return nil, s.failed(s.stepOf(plan.StepClone), syscall.ENOSYS)
}

// settled tries anew for as long as the host changes, within reason.
func (s *start) settled(w way) (p *Process, err error) {
	p, err = s.try(w)
	for tries := 0; tries < 5 && errors.Is(err, plan.ErrChanged); tries++ {
		if err = s.renew(); err == nil {
			p, err = s.try(w)
		}
	}
	return p, err
}

// renew opens what the first child has spent.
func (s *start) renew() error {
	for i, st := range s.steps {
		if err := s.plan.Renew(s.run, st); err != nil {
			return s.failed(i, err)
		}
	}
	return nil
}

// try starts in one way. What the parent has done while the child waited is undone when the start fails.
func (s *start) try(w way) (p *Process, err error) {
	err = s.lower(w)
	defer s.prog.free() // what stays pinned would make the garbage collector end the host
	if err != nil {
		return nil, err
	}
	before := len(s.done)
	if p, err = s.clone(); err != nil {
		err = errors.Join(err, undo(s.done[before:], s.run))
		s.done = s.done[:before]
	}
	return p, unwrapped(err)
}

// unwrapped gives the only error of a join.
func unwrapped(err error) error {
	if j, ok := err.(interface{ Unwrap() []error }); ok && len(j.Unwrap()) == 1 {
		return j.Unwrap()[0]
	}
	return err
}

// errNoClone says that this way to clone does not exist here; nothing has been done.
var errNoClone = errors.New("no such clone")

// ways are tried in turn. clone3 is unknown to the filters of some container engines, which answer ENOSYS.
func (s *start) ways() (w []way) {
	vfork := haveVfork && !s.opt.NoVfork && !s.needsOwnMemory()
	for _, c := range []way{{vfork: true, clone3: true}, {vfork: true}, {clone3: true}, {}} {
		if c.vfork == vfork && !(c.clone3 && s.opt.NoClone3) {
			w = append(w, c)
		}
	}
	return w
}

// way is a way to make a child.
type way struct{ vfork, clone3 bool }

// needsOwnMemory: setns(2) into a time namespace is refused while the memory is shared. Before Linux 6.2 it is needed for a
// new one, too.
func (s *start) needsOwnMemory() bool {
	return s.plan.Joined()&unix.CLONE_NEWTIME != 0 || s.plan.Cloned()&unix.CLONE_NEWTIME != 0 && !kernelAtLeast(6, 2)
}

// errTime: before Linux 6.2 a process that has unshared its time namespace stays in the old one, and only its children are
// in the new one, unless it enters that by setns(2), as package namespaces does.
var errTime = fmt.Errorf("execve enters a new time namespace since Linux 6.2: %w", errors.ErrUnsupported)

// entersTime reports whether the plan's own calls enter the time namespace that has been made.
func (s *start) entersTime() bool {
	return slices.ContainsFunc(s.steps, func(st plan.Step) bool {
		return st.Kind == plan.StepCall && st.Phase > plan.Join && st.Op.Trap() == unix.SYS_SETNS
	})
}

// makesTime reports whether the step makes a time namespace for the command.
func (s *start) makesTime(st plan.Step) bool {
	return s.plan.Cloned()&unix.CLONE_NEWTIME != 0 && st.Primitive == "launch" && st.Op.Trap() == unix.SYS_UNSHARE
}

func (s *start) stepOf(k plan.StepKind) int {
	for i, st := range s.steps {
		if st.Kind == k {
			return i
		}
	}
	return 0
}

// clone makes the child and waits until it has executed its command.
func (s *start) clone() (*Process, error) {
	if s.hidden == atOnce || !s.plan.Waits() { // else the server does, later
		s.enter()
	}
	defer s.leave()
	served := s.serve()
	stop := s.watch()
	errno := s.prog.run()
	if errno != 0 {
		stop()
		served.end(s.prog)
		if s.unknownClone(syscall.Errno(errno)) {
			return nil, errNoClone
		}
		return nil, s.failed(s.stepOf(plan.StepClone), syscall.Errno(errno))
	}
	return s.collect(served, stop)
}

// unknownClone reports whether the kernel does not know this way to clone. Older filters answer EPERM to calls that they do not know, and clone3 of
// Linux 5.3 and 5.4 EINVAL or E2BIG to flags and fields that came later; where one of these is the truth, the next way answers it too.
func (s *start) unknownClone(e syscall.Errno) bool {
	return e == syscall.ENOSYS || s.prog.way.clone3 && (e == syscall.EPERM || e == syscall.EINVAL || e == syscall.E2BIG)
}

// enter notes that a child that shares our memory goes on to where it may change who may trace it. While it waits for the
// parent it has not come there, and its files in /proc have to be the parent's.
func (s *start) enter() {
	if s.prog.way.vfork && !s.entered && (s.hidden == atOnce || s.calls(userCalls...)) {
		dumpable.Enter(s.hidden == atOnce)
		s.entered = true
	}
}

// hiding says whether others must be kept from tracing the child while it shares our memory.
type hiding uint8

const (
	open       hiding = iota // nobody can who may not trace us
	atOnce                   // from its first moment on
	impossible               // its files in /proc would be root's, and we could not write the id maps
)

// hiding: those whom the child joins may trace it, and in a user namespace that root, or somebody with capabilities, has made any process of
// the same user on the host, since that has all capabilities there, even one without any of its own: root of another sandbox. For an
// ordinary user such a process is one that may trace us anyhow.
func (s *start) hiding() hiding {
	switch {
	case s.joins():
		return atOnce
	case s.plan.Cloned()&unix.CLONE_NEWUSER == 0:
		return open
	case os.Geteuid() == 0:
		return atOnce
	}
	switch effective, permitted := capabilities(); {
	case permitted == 0:
		return open
	case effective&(1<<unix.CAP_DAC_OVERRIDE) != 0:
		return atOnce
	}
	return impossible
}

func (s *start) leave() {
	if s.entered {
		dumpable.Leave()
		s.entered = false
	}
}

// joins reports whether the child enters a sandbox whose processes may see it. After phase Join, setns is for a namespace that
// the child has made itself (time_namespaces(7)).
func (s *start) joins() bool {
	entered := 0
	for _, st := range s.steps {
		if st.Kind == plan.StepCall && st.Phase == plan.Join && st.Op.Trap() == unix.SYS_SETNS {
			entered++
		}
	}
	return s.joinsOthers() || entered > bits.OnesCount64(s.plan.JoinedAlone())
}

// joinsOthers reports whether somebody may be in what is joined, who may look at the child, or change the program.
func (s *start) joinsOthers() bool { return s.plan.Joined() != s.plan.JoinedAlone() }

// calls reports whether the child makes one of the system calls.
func (s *start) calls(traps ...uintptr) bool {
	return slices.ContainsFunc(s.steps, func(st plan.Step) bool {
		return st.Kind == plan.StepCall && slices.Contains(traps, st.Op.Trap())
	})
}
