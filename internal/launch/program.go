//go:build linux

package launch

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/initprog"
	"github.com/caisson-dev/caisson/internal/sys"
	"github.com/caisson-dev/caisson/plan"
)

// program is a plan as numbers: what one child, or two of them, will do.
type program struct {
	way      way
	mem      *sys.Memory
	children []*child // the first, and the one that goes on in its place
	calls    [][]sys.Call
	slots    []uintptr

	scratch      *scratch
	closesRanges bool // the kernel has close_range

	name      string      // that the child gives itself
	inspected bool        // the child looks at the program before it executes it
	shared    []byte      // memory that a child with a copy of all other memory shares with us
	report    [2]*os.File // its end tells that such a child has executed the command or ended
	socket    [2]*os.File // 0: ours, 1: the child's; while it waits
	skips     []skip
	sent      *os.File // its number is that of the descriptors which the child sends
}

// skip is a call that passes over the steps up to last, which may be more calls than steps.
type skip struct{ child, call, last int }

// lowerSkips turns steps into calls.
func (p *program) lowerSkips() {
	for _, s := range p.skips {
		n, rest := 0, p.calls[s.child][s.call+1:]
		for n < len(rest) && rest[n].Step <= s.last {
			n++
		}
		p.calls[s.child][s.call].Skip = n
	}
}

const stackSize = 4 << 10

const cloneClearSighand = 0x100000000

// lower makes the program for one way to clone. It is to be freed, also after an error.
func (s *start) lower(w way) error {
	p := &program{way: w, scratch: s.scratch, mem: &s.mem, slots: s.empty(s.plan.Slots() + 1), closesRanges: haveCloseRange()}
	s.prog = p
	p.mem.Use(s.plan.Block())
	s.run.Fresh(!w.vfork)
	p.mem.Pin(&p.slots[0])
	p.add()
	if err := s.descriptors(p); err != nil {
		return err
	}
	if s.joins() && !w.vfork { // as package dumpable does it where the memory is shared
		p.call(s.stepOf(plan.StepClone), unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
	}
	if s.plan.Waits() && s.announced() {
		p.call(s.stepOf(plan.StepClone), unix.SYS_WRITE, p.socket[1].Fd(), p.mem.Zero(1), 1)
	}
	p.closeAllBut(s.stepOf(plan.StepClone), s.inherited(p))
	if cg, ok := s.plan.CgroupFile(s.run); ok && !w.clone3 {
		p.enterCgroup(s.stepOf(plan.StepClone), cg, len(p.slots))
	}
	for i, st := range s.steps {
		if st.Kind == plan.StepExec || st.Kind == plan.StepCall && st.Phase >= plan.Labels {
			s.rename(p)
			s.inspect(p)
		}
		if err := s.lowerStep(p, i, st); err != nil {
			return s.failed(i, err)
		}
		if s.opt.Fault == i+1 {
			p.breakCall(i)
		}
	}
	p.lowerSkips()
	return s.arm(p)
}

// rename gives the child a name that nobody can guess, and that execve changes: see verify. It comes after all that parts may do about names, and
// before filters.
func (s *start) rename(p *program) {
	if p.name == "" && (s.looks() || s.hidden == atOnce || s.calls(userCalls...)) {
		p.name = fmt.Sprintf("%015x", rand.Uint64()>>4)
		p.call(s.stepOf(plan.StepExec), unix.SYS_PRCTL, unix.PR_SET_NAME, p.mem.String(p.name))
	}
}

// add begins the calls of a further child.
func (p *program) add() {
	n := len(p.children)
	p.children, p.calls = append(p.children, new(child)), append(p.calls, p.scratch.lists[n][:0])
}

func (p *program) emit(step int, c sys.Call) {
	c.Step = step
	last := len(p.calls) - 1
	p.calls[last] = append(p.calls[last], c)
}

func (p *program) call(step int, trap uintptr, args ...uintptr) {
	c := sys.Call{Trap: trap}
	copy(c.Args[:], args)
	p.emit(step, c)
}

func (p *program) special(step int, k sys.Kind, trap uintptr, args ...uintptr) {
	c := sys.Call{Trap: trap, Kind: k}
	copy(c.Args[:], args)
	p.emit(step, c)
}

// breakCall makes the calls of a step fail with EBADF.
func (p *program) breakCall(step int) {
	for _, calls := range p.calls {
		for i := range calls {
			if calls[i].Step == step && calls[i].Kind != sys.CloseLoop {
				calls[i] = sys.Call{Trap: unix.SYS_CLOSE, Args: [6]uintptr{^uintptr(0)}, Step: step}
			}
		}
	}
}

func (s *start) lowerStep(p *program, i int, st plan.Step) error {
	switch st.Kind {
	case plan.StepCall:
		if s.makesTime(st) && !kernelAtLeast(6, 2) && !s.entersTime() {
			return errTime
		}
		return s.lowerCall(p, i, st)
	case plan.StepDie:
		s.lowerDie(p, i)
	case plan.StepReclone:
		p.special(i, sys.Reclone, unix.SYS_CLONE3)
		p.add()
	case plan.StepWhile:
		s.lowerWait(p, i)
	case plan.StepDup:
		s.lowerDup(p, i, st.N)
	case plan.StepClose:
		if s.plan.Dies() {
			s.lookForHost(p, i)
		}
		s.lowerDup(p, i, len(s.cmd.Files)) // the report of an init process
		p.closeAllBut(i, s.needed(p, i))
	case plan.StepExec:
		return s.lowerExec(p, i)
	}
	return nil
}

// lowerCall makes the calls of a step: most often one.
func (s *start) lowerCall(p *program, i int, st plan.Step) error {
	if !st.Op.Expands() {
		last := len(p.calls) - 1
		before := len(p.calls[last])
		s.lowerOp(p, i, st, st.Op)
		if n := p.calls[last][before].Skip; n > 0 {
			p.skips = append(p.skips, skip{last, before, i + n})
		}
		return nil
	}
	ops, err := st.Expand(s.run)
	if err != nil {
		return err
	}
	if len(ops) == 0 && s.opt.Fault == i+1 { // something to break
		p.call(i, unix.SYS_GETPID)
	}
	for k := range ops {
		s.lowerOp(p, i, st, &ops[k])
	}
	return nil
}

// lowerOp makes one call. A descriptor that the parent is to have is sent to it, and where a filter might forbid that, offered.
func (s *start) lowerOp(p *program, i int, st plan.Step, o *plan.Op) {
	var c sys.Call
	if fixed := o.Fixed(); fixed != nil {
		c = *fixed
	} else {
		c = o.Lower(p.mem, s.run)
	}
	switch {
	case st.Taken() == nil:
		p.emit(i, c)
	case st.Phase < plan.Seccomp:
		s.lowerSend(p, i, c)
	default:
		p.call(i, unix.SYS_WRITE, p.socket[1].Fd(), p.mem.Zero(1), 1)
		c.Kind = sys.Offer
		p.emit(i, c)
	}
}

// lowerDie asks for SIGKILL when the starting thread ends, and then looks whether it has ended before.
func (s *start) lowerDie(p *program, i int) {
	p.call(i, unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL))
	if s.plan.Cloned()&unix.CLONE_NEWPID == 0 && !s.joins() {
		p.special(i, sys.Parent, unix.SYS_GETPPID, uintptr(os.Getpid()))
	}
	s.lookForHost(p, i)
}

// lookForHost ends the child when the starting thread has ended: its pidfd has become readable. It is for those, too, to whom getppid(2) answers 0
// because they are in a new pid namespace. Before Linux 6.9 there are only pidfds of whole processes, which are readable when the last thread has ended: on a busy
// machine that is a while after the starting one. So the child looks a second time, when it closes what it does not need.
func (s *start) lookForHost(p *program, i int) {
	fd := make([]byte, 8)
	binary.NativeEndian.PutUint32(fd, uint32(s.host.Fd()))
	binary.NativeEndian.PutUint16(fd[4:], unix.POLLIN)
	at, _ := p.mem.Copy(fd)
	p.special(i, sys.Alive, unix.SYS_PPOLL, at, 1, p.mem.Zero(16), 0, 8)
}

// lowerWait waits for the parent, to whom it tells that the child is there. When the host ends, the child reads the
// end of the stream: of the other end there is no copy but the host's.
func (s *start) lowerWait(p *program, i int) {
	if s.steps[i-1].Kind == plan.StepWhile {
		return
	}
	fd, buf := p.socket[1].Fd(), p.mem.Zero(1)
	if !s.announced() {
		p.call(i, unix.SYS_WRITE, fd, buf, 1)
	}
	p.special(i, sys.Await, unix.SYS_READ, fd, buf, 1)
}

// announced reports whether the child tells the parent at once that it is there: nothing of what the parent may do depends on what the
// child does first. Who joins namespaces has to be in them before.
func (s *start) announced() bool {
	_, _, twice := s.plan.FirstClone()
	return !twice && s.plan.Joined() == 0 && !s.joins()
}

func (s *start) lowerDup(p *program, i, n int) {
	if n >= len(s.files) {
		return
	}
	f := s.files[n]
	switch {
	case f == nil:
		p.emit(i, sys.Call{Trap: unix.SYS_CLOSE, Args: [6]uintptr{uintptr(n)}, Tolerate: uintptr(syscall.EBADF)})
	case f.Fd() == uintptr(n):
		p.call(i, unix.SYS_FCNTL, f.Fd(), unix.F_SETFD, 0)
	default:
		p.call(i, unix.SYS_DUP3, f.Fd(), uintptr(n), 0)
	}
}

// lowerExec executes the command, or the init process that will.
func (s *start) lowerExec(p *program, i int) error {
	env := p.mem.Strings(s.cmd.Env)
	if s.helped() {
		argv := initprog.Args
		if s.detour {
			argv = initprog.ExecArgs
		}
		args, err := argv(len(s.cmd.Files), s.cmd.Candidates, s.cmd.Args)
		if err != nil {
			return err
		}
		p.call(i, unix.SYS_EXECVEAT, s.init.Fd(), p.mem.String(""), p.mem.Strings(args), env, unix.AT_EMPTY_PATH)
		return nil
	}
	args := p.mem.Strings(s.cmd.Args)
	for k, path := range s.cmd.Candidates {
		c := sys.Call{Kind: sys.Try, Trap: unix.SYS_EXECVE, Args: [6]uintptr{p.mem.String(path), args, env}}
		c.Skip = len(s.cmd.Candidates) - 1 - k
		p.emit(i, c)
	}
	return nil
}

// enterCgroup is what CLONE_INTO_CGROUP does, for a clone that has no such flag.
func (p *program) enterCgroup(step int, dir *os.File, slot int) {
	p.emit(step, sys.Call{Trap: unix.SYS_OPENAT, Save: uint16(slot), Args: [6]uintptr{dir.Fd(), p.mem.String("cgroup.procs"), unix.O_WRONLY | unix.O_CLOEXEC}})
	p.emit(step, sys.Call{Trap: unix.SYS_WRITE, Load: [6]uint16{uint16(slot)}, Args: [6]uintptr{0, p.mem.String("0"), 1}})
}

// closeAllBut closes all descriptors that are not kept, whoever in the host opened them.
func (p *program) closeAllBut(step int, keep []uintptr) {
	slices.Sort(keep)
	from := uintptr(0)
	for _, fd := range slices.Compact(keep) {
		if fd == ^uintptr(0) { // a file that has been closed meanwhile: dup3 will say so
			break
		}
		if fd > from {
			p.closeRange(step, from, fd-1)
		}
		from = fd + 1
	}
	p.closeRange(step, from, uintptr(^uint32(0)))
}

func (p *program) closeRange(step int, first, last uintptr) {
	if p.closesRanges {
		p.call(step, unix.SYS_CLOSE_RANGE, first, last, 0)
		return
	}
	p.special(step, sys.CloseLoop, 0, first, min(last, highestDescriptor())+1)
}

// haveCloseRange asks the kernel about an empty range (close_range(2), Linux 5.9; unknown to some outer filters).
func haveCloseRange() bool {
	const most = ^uint32(0)
	_, _, e := unix.RawSyscall(unix.SYS_CLOSE_RANGE, uintptr(most), uintptr(most), 0)
	return e == 0
}

// highestDescriptor is an upper bound with room for what others open meanwhile. The limit of descriptors is none: it may have
// been lowered after some were opened, and it may be a billion.
func highestDescriptor() uintptr {
	const room = 65536
	b, err := os.ReadFile("/proc/self/status")
	_, rest, found := strings.Cut(string(b), "\nFDSize:")
	if line, _, _ := strings.Cut(rest, "\n"); err == nil && found {
		if n, err := strconv.ParseUint(strings.TrimSpace(line), 10, 31); err == nil {
			return uintptr(n) + room
		}
	}
	var lim unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &lim)
	return uintptr(max(lim.Cur, room))
}

// arm fills in what the kernel is asked to make.
func (s *start) arm(p *program) error {
	states, err := p.states()
	if err != nil {
		return s.failed(s.stepOf(plan.StepClone), err)
	}
	first, second, _ := s.plan.FirstClone()
	mask, all := new(uint64), new(uint64)
	*all = ^uint64(0)
	p.mem.Pin(mask)
	p.mem.Pin(all)
	for i, c := range p.children {
		p.mem.Pin(c)
		p.mem.Pin(&p.calls[i][0])
		s.lists[i] = p.calls[i] // it may have grown
		*c = child{calls: unsafe.Pointer(&p.calls[i][0]), n: len(p.calls[i]), slots: unsafe.Pointer(&p.slots[0]), mask: mask, all: all,
			yields: s.served(), looks: looks(), status: &states[i]}
		*c.status = status{pidfd: -1, alive: 1}
	}
	one := p.children[0]
	args := s.cloneArgs(p, 0, first)
	args.exitSignal = uint64(unix.SIGCHLD)
	one.reset = !p.way.clone3
	p.request(one, args)
	if len(p.children) > 1 {
		two := p.children[1]
		args := s.cloneArgs(p, 1, second|unix.CLONE_PARENT)
		args.flags &^= cloneClearSighand | unix.CLONE_PIDFD | unix.CLONE_INTO_CGROUP
		args.flags |= unix.CLONE_CHILD_CLEARTID
		p.request(two, args)
		one.next = two
	}
	return nil
}

// looks is how often a child looks for the parent's word before it sleeps, a microsecond each. On one processor the parent
// could not say it meanwhile.
func looks() int {
	if runtime.NumCPU() == 1 {
		return 0
	}
	return 100
}

// states makes the memory in which the kernel and the children tell what they do.
func (p *program) states() ([]status, error) {
	if p.way.vfork {
		states := make([]status, len(p.children))
		p.mem.Pin(&states[0])
		return states, nil
	}
	size := len(p.children) * int(unsafe.Sizeof(status{}))
	var err error
	p.shared, err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	return unsafe.Slice((*status)(unsafe.Pointer(&p.shared[0])), len(p.children)), nil
}

func (s *start) cloneArgs(p *program, i int, flags uint64) *cloneArgs {
	c := p.children[i]
	a := &cloneArgs{flags: flags | unix.CLONE_PARENT_SETTID, parentTID: addr(&c.tid), childTID: addr(&c.alive)}
	if p.way.vfork {
		a.flags |= unix.CLONE_VM | unix.CLONE_VFORK
	}
	if haveVfork {
		a.stack, a.stackSize = uint64(p.mem.Bytes(s.stackOf(i))+15)&^15, stackSize-16
	}
	if p.way.clone3 {
		a.flags |= cloneClearSighand | unix.CLONE_PIDFD
		a.pidfd = addr(&c.pidfd)
		if cg, ok := s.plan.CgroupFile(s.run); ok {
			a.flags, a.cgroup = a.flags|unix.CLONE_INTO_CGROUP, uint64(cg.Fd())
		}
	}
	p.mem.Pin(a)
	return a
}

func addr(p *int32) uint64 { return uint64(uintptr(unsafe.Pointer(p))) }

// request makes the system call that creates c.
func (p *program) request(c *child, a *cloneArgs) {
	if p.way.clone3 {
		c.trap, c.clone = unix.SYS_CLONE3, [5]uintptr{uintptr(unsafe.Pointer(a)), unsafe.Sizeof(*a)}
		return
	}
	stack := uintptr(a.stack + a.stackSize)
	c.trap, c.clone = unix.SYS_CLONE, legacyClone(uintptr(a.flags|a.exitSignal), stack, uintptr(a.parentTID), uintptr(a.childTID))
}

// run makes the child. On the vfork path no child shares the memory any more when it returns.
func (p *program) run() (errno uintptr) {
	one := p.children[0]
	_, errno = makeChild(one)
	if p.way.vfork && len(p.children) > 1 {
		// Someone may have killed the first child while the second one goes on.
		two := p.children[1]
		for atomic.LoadInt32(&two.tid) != 0 && atomic.LoadInt32(&two.alive) != 0 {
			time.Sleep(50 * time.Microsecond)
		}
	}
	return errno
}

// last is the child that executes the command.
func (p *program) last() *child { return p.children[len(p.children)-1] }

// pids are the children that are there, in the caller's pid namespace.
func (p *program) pids() (pids []int) {
	for _, c := range p.children {
		if pid := atomic.LoadInt32(&c.tid); pid != 0 {
			pids = append(pids, int(pid))
		}
	}
	return pids
}

// closeHandles closes the pidfds that nobody has taken over.
func (p *program) closeHandles() {
	for _, c := range p.children {
		if c.pidfd >= 0 {
			unix.Close(int(c.pidfd))
		}
	}
}

// kill ends the children. It may be called only while none of them has been waited for.
func (p *program) kill() {
	for _, pid := range p.pids() {
		unix.Kill(pid, unix.SIGKILL)
	}
}

// killStopped ends the children that a signal has stopped. As kill, only while none of them has been waited for.
func (p *program) killStopped() {
	for _, pid := range p.pids() {
		var info unix.Siginfo
		_, err := ignoringEINTR(func() (int, error) {
			return 0, unix.Waitid(unix.P_PID, pid, &info, unix.WSTOPPED|unix.WNOHANG|unix.WNOWAIT, nil)
		})
		if err == nil && info.Signo != 0 {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
}

func (p *program) free() {
	p.mem.Free()
	if p.shared != nil {
		unix.Munmap(p.shared)
	}
	runtime.KeepAlive(p)
}
