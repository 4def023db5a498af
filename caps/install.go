//go:build linux

package caps

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/sys"
	"github.com/caisson-dev/caisson/plan"
)

// Install sets exactly this state for the calling process: on each of its threads, at one moment. State{} gives up everything for good. What
// it executes afterwards is subject to the rules of execve(2) (capabilities(7)).
//
// Nothing can be gained: what the caller has not got is a [*LackError]. To take something from the bounding set, and to set securebits, needs
// CAP_SETPCAP; else it needs no privilege. All of this is looked at first, and then nothing has been done. Threads that differ, which a program makes only
// on purpose, are an [*Error] with EINVAL. First kernel: 4.3.
//
// A program that is linked with cgo has threads that the Go runtime does not know: an [*Error] with errors.ErrUnsupported. Build it with
// CGO_ENABLED=0.
func (s State) Install() error {
	if s.Securebits == NotShown {
		s.Securebits = 0
	}
	have, err := Current()
	if err != nil {
		return err
	}
	if err := s.installable(have); err != nil {
		return err
	}
	if err := sameOnAll(have); err != nil {
		return err
	}
	return s.install(have, onAllThreads)
}

// installable reports what would fail on the way.
func (s State) installable(have State) error {
	if err := s.check(); err != nil {
		return err
	}
	if lacked := s.Permitted&^have.Permitted | s.Bounding&^have.Bounding; lacked != 0 {
		return &LackError{Lacked: lacked, Unknown: lacked&^upTo(lastCap()) != 0}
	}
	if cut := have.Bounding &^ s.Bounding; (cut != 0 || s.Securebits != 0) && !have.Effective.Has(Setpcap) {
		return &Error{Op: "cut the bounding set or set securebits", Err: syscall.EPERM, Hint: "needs CAP_SETPCAP"}
	}
	return nil
}

// install makes the calls of a child that becomes s, on threads that are there already.
func (s State) install(have State, call func(sys.Call) syscall.Errno) error {
	c := change{room: room{have: have, last: -1, inside: true}, want: s}
	ops := append(dropping(have.Bounding&^s.Bounding), c.sets()...)
	if s.NoNewPrivs {
		ops = append(ops, plan.Call("prctl", unix.SYS_PRCTL, plan.Number(unix.PR_SET_NO_NEW_PRIVS, "PR_SET_NO_NEW_PRIVS"), plan.Int(1), plan.Int(0), plan.Int(0), plan.Int(0)))
	}
	var mem sys.Memory
	defer mem.Free()
	for _, op := range ops {
		if e := call(op.Lower(&mem, &plan.Run{})); e != 0 {
			return &Error{Op: op.String(), Err: e, Hint: installHint(e)}
		}
	}
	return nil
}

func installHint(e syscall.Errno) string {
	switch e {
	case syscall.ENOTSUP:
		return "the program is linked with cgo; build it with CGO_ENABLED=0"
	case syscall.EPERM:
		return "securebits are locked, or forbid it"
	}
	return ""
}

func onAllThreads(c sys.Call) syscall.Errno {
	_, _, e := syscall.AllThreadsSyscall6(c.Trap, c.Args[0], c.Args[1], c.Args[2], c.Args[3], c.Args[4], c.Args[5])
	return e
}

// sameOnAll looks whether all threads have what this one has: the runtime ends the program where the kernel answers them
// differently.
func sameOnAll(have State) error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return &Error{Op: "read /proc/self/task", Err: errnoOf(err)}
	}
	have.Securebits = NotShown
	for _, t := range tasks {
		s, err := ofFile("/proc/self/task/" + t.Name() + "/status")
		if gone := errnoOf(err); gone == unix.ENOENT || gone == unix.ESRCH {
			continue
		}
		if err != nil {
			return err
		}
		if s != have {
			return invalid("set the capabilities of all threads", "thread "+t.Name()+" has others: "+s.String())
		}
	}
	return nil
}
