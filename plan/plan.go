//go:build linux

package plan

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/sys"
)

// Primitive is a part of a sandbox. Apply validates the value and records in p what is to be done. It performs
// nothing, and applied to two fresh plans it records the same: plantest.Check tests it.
type Primitive interface{ Apply(p *Plan) error }

// Func makes a function a Primitive.
type Func func(p *Plan) error

// Apply calls f.
func (f Func) Apply(p *Plan) error { return f(p) }

// Plan is what is done to start a sandbox. [Build] makes one; primitives fill it in; once built it does not change and
// can be started any number of times, also concurrently.
type Plan struct {
	err     error
	owner   string // the primitive that is being applied
	flags   uint64
	joined  uint64
	alone   uint64 // those of joined in which nobody is
	cgroup  *File
	ops     [phases][]Op
	early   []Op // of Sources, made while the parent acts
	before  []Action
	while   []Action
	after   []Action
	answers []int
	observe []func(*Run, *Result)
	opens   []opener
	slots   int
	claims  map[string]string
	values  map[any]any
	late    []late
	takes   []take
	die     bool
	again   bool
	nnp     bool // no_new_privs
	admin   bool // a filter needs CAP_SYS_ADMIN
	block   sys.Block
	scratch sync.Pool
}

// take is a descriptor of the child's that the parent takes.
type take struct {
	op Op
	do func(*Run, *os.File) error
}

type opener func(*Run) (*os.File, error)

type late struct {
	owner string
	f     func() error
}

// Action is something that the parent does. Undo, where there is one, is called in the reverse order when a later
// step fails, and when the sandbox has ended.
type Action struct {
	Name string // what is printed: write uid_map "0 1000 1"
	Do   func(*Run) error
	Undo func(*Run) error // nil: nothing to undo

	// Ready is of an action of While: it does, while the kernel makes the child, what Do needs and the child is not needed for. Nil: nothing.
	Ready func(*Run) error

	// Each says of an action of While or After that it concerns the process and not the sandbox: it is performed for each further
	// command in the sandbox, too.
	Each bool

	owner  string
	isOpen bool
	open   int
	spent  bool
}

// Run is the state of one start, seen by actions.
type Run struct {
	Context context.Context // the context of the start; never nil
	PID     int             // the child in the caller's pid namespace; 0 before the clone
	files   []*os.File
	kept    []*os.File // by Keep
	values  map[any]any
	answers []answer
	copied  bool
	second  bool
}

// Second reports, when calls of [Calls] are asked for, whether a first child of this start has made all calls but the last: it has found that the program is a
// script, which is executed in another way. What it has left in files of the host is there.
func (r *Run) Second() bool { return r.second }

// File gives the descriptor that stands behind f in this start. It is nil until it has been opened, and closed when
// the start has ended.
func (r *Run) File(f File) *os.File {
	if f.n < len(r.files) {
		return r.files[f.n]
	}
	return nil
}

// Set keeps a value of this start for the action's Undo or for another action. Keys are compared as those of
// context.WithValue.
func (r *Run) Set(key, value any) {
	if r.values == nil {
		r.values = map[any]any{}
	}
	r.values[key] = value
}

// Value gives what Set has kept, or nil.
func (r *Run) Value(key any) any { return r.values[key] }

// Build applies the parts in their order to a fresh plan. A failure is not lost: it is in the plan's Err, its String,
// and in the error of every start.
func Build(parts ...Primitive) *Plan {
	p := &Plan{claims: map[string]string{}}
	p.build(parts)
	return p
}

// Again is the plan of a further command in a sandbox that p has started: the parts, which enter the sandbox's
// namespaces, and then the calls of those phases that concern the process and not the sandbox: Cgroup, Users, and those
// from Limits on; and the actions of While and After that are for Each process. Calls marked [Op.Once] are left out.
func (p *Plan) Again(parts ...Primitive) *Plan {
	q := &Plan{err: p.err, claims: maps.Clone(p.claims), cgroup: p.cgroup, slots: p.slots, die: p.die, again: true,
		nnp: p.nnp, admin: p.admin, block: p.block, takes: slices.Clone(p.takes), answers: slices.Clone(p.answers)}
	q.opens = slices.Clone(p.opens)
	for ph := range p.ops {
		if Phase(ph).again() {
			q.ops[ph] = slices.DeleteFunc(slices.Clone(p.ops[ph]), func(o Op) bool { return o.once })
		}
	}
	for _, a := range p.while {
		if a.Each {
			q.while = append(q.while, a)
		}
	}
	for _, a := range p.after {
		if a.Each {
			q.after = append(q.after, a)
		}
	}
	used := q.usedFiles()
	for _, a := range p.before {
		if a.isOpen && used[a.open] {
			q.before = append(q.before, a)
		}
	}
	q.build(parts)
	return q
}

func (p *Plan) usedFiles() map[int]bool {
	used := map[int]bool{}
	if p.cgroup != nil {
		used[p.cgroup.n] = true
	}
	for ph := range p.ops {
		for _, o := range p.ops[ph] {
			markFiles(o.args, used)
		}
	}
	return used
}

func markFiles(args []Arg, used map[int]bool) {
	for _, a := range args {
		if a.kind == kindFile {
			used[int(a.n)] = true
		}
		for _, f := range a.fields {
			markFiles([]Arg{f.Arg}, used)
		}
	}
}

func (p *Plan) build(parts []Primitive) {
	for _, part := range parts {
		p.Include(part)
	}
	for len(p.late) > 0 && p.err == nil {
		l := p.late[0]
		p.late = p.late[1:]
		p.as(l.owner, l.f)
	}
	p.as("plan", p.check)
	if p.err == nil && !p.again {
		p.fix()
	}
}

// Include applies a further part, for a primitive that is made of others. The part's own name stands in the plan.
func (p *Plan) Include(part Primitive) {
	if part == nil {
		p.fail(errors.New("nil is not a primitive"))
		return
	}
	p.as(ownerName(part), func() error { return part.Apply(p) })
}

func ownerName(part Primitive) string {
	return strings.TrimPrefix(fmt.Sprintf("%T", part), "*")
}

func (p *Plan) as(owner string, f func() error) {
	before := p.owner
	p.owner = owner
	if p.err == nil {
		p.fail(f())
	}
	p.owner = before
}

func (p *Plan) fail(err error) {
	if err == nil || p.err != nil {
		return
	}
	var e *Error
	if !errors.As(err, &e) {
		err = &Error{Primitive: p.owner, Err: err}
	}
	p.err = err
}

// Err is the first error of the parts, or nil.
func (p *Plan) Err() error { return p.err }

// Clone asks for flags of clone(2): the CLONE_NEW... of new namespaces. CLONE_NEWTIME is made by unshare(2) in the
// child, whose offsets are written before the command is executed.
func (p *Plan) Clone(flags uint64) {
	if bad := flags &^ sysNamespaces; bad != 0 {
		p.fail(fmt.Errorf("clone flags %s are the launcher's own", hex(bad)))
	}
	p.flags |= flags
}

// Cloned gives the flags that Clone has been asked for so far. A decision that depends on other parts belongs into
// [Plan.Late].
func (p *Plan) Cloned() uint64 { return p.flags }

// Joined gives the CLONE_NEW... flags of the namespaces that JoinNamespace has been asked for so far.
func (p *Plan) Joined() uint64 { return p.joined }

// Join records that the calls of phase Join enter an existing namespace of the kind that flag, one CLONE_NEW..., names.
// New namespaces are then made by a second clone, inside the joined ones.
func (p *Plan) Join(flag uint64, ops ...Op) {
	p.joined, p.alone = p.joined|flag, p.alone&^flag
	p.Child(Join, ops...)
}

// JoinAlone is Join for a namespace in which nobody is, nor can come to be but through the child: it was made for this start. Nobody there
// can look at the child, or choose what it executes, while it still shares memory with the host.
func (p *Plan) JoinAlone(flag uint64, ops ...Op) {
	alone := p.alone | flag&^p.joined
	p.Join(flag, ops...)
	p.alone = alone
}

// JoinedAlone gives those of the flags of Joined whose namespaces nobody else is in.
func (p *Plan) JoinedAlone() uint64 { return p.alone }

// IntoCgroup starts the child inside the cgroup v2 directory behind f (CLONE_INTO_CGROUP, Linux 5.7).
func (p *Plan) IntoCgroup(f File) { p.cgroup = &f }

// DieWithParent kills the child with SIGKILL when the host process ends, however it ends (PR_SET_PDEATHSIG).
func (p *Plan) DieWithParent() { p.die = true }

// NoNewPrivs sets no_new_privs: nothing that the command executes gains rights by set-user-ID or file capabilities
// (prctl(2), PR_SET_NO_NEW_PRIVS). Any number of parts may ask for it.
func (p *Plan) NoNewPrivs() { p.nnp = true }

// NeedAdmin says that a call of the phases Landlock or Seccomp needs CAP_SYS_ADMIN, because its part does not ask for
// no_new_privs. What drops capabilities keeps it until phase [Last].
func (p *Plan) NeedAdmin() { p.admin = true }

// NeedsAdmin reports whether CAP_SYS_ADMIN must be there until phase Last. It is known when all parts have been
// applied: see [Plan.Late].
func (p *Plan) NeedsAdmin() bool { return p.admin && !p.nnp }

// Take appends a call of the child to phase Seccomp whose result is a descriptor that the parent is to have, as seccomp(2)
// with SECCOMP_FILTER_FLAG_NEW_LISTENER gives it. The function gets a copy of the descriptor, which is its own to
// close, before the child goes on to execve(2); it is called for each further command too. Its error ends the start.
// The child makes no system call to hand it over, since the filter may forbid any. Needs Linux 5.6 (pidfd_getfd(2)).
func (p *Plan) Take(op Op, do func(*Run, *os.File) error) { p.take(Seccomp, op, do) }

// TakeAt is Take in a phase from [Users] on and before Seccomp. The child hands the descriptor over (SCM_RIGHTS, unix(7)) and sleeps until the
// function has returned, so that the parent can look at what the child has opened before the child uses it. The call must not
// tolerate an errno.
func (p *Plan) TakeAt(ph Phase, op Op, do func(*Run, *os.File) error) {
	if ph < Users || ph >= Seccomp {
		p.fail(fmt.Errorf("no descriptor is taken in phase %v: %w", ph, syscall.EINVAL))
		return
	}
	op.sent = true
	p.take(ph, op, do)
}

// AskAt is TakeAt for a decision that the child cannot take: the function's number is saved in answer before the child goes on. The call is made, and the
// function called, unless an earlier call skips it; answer then holds -1.
func (p *Plan) AskAt(ph Phase, op Op, answer Slot, do func(*Run, *os.File) (uintptr, error)) {
	op.answer = answer.n + 1
	p.TakeAt(ph, op, func(r *Run, f *os.File) error {
		n, err := do(r, f)
		r.Set(answered{answer.n}, n)
		return err
	})
}

// answered is the key of the number that the function of AskAt has given.
type answered struct{ slot int }

func (p *Plan) take(ph Phase, op Op, do func(*Run, *os.File) error) {
	op.owner = p.owner
	op.take = len(p.takes) + 1
	p.takes = append(p.takes, take{op, do})
	p.ops[ph] = append(p.ops[ph], op)
}

// Child appends calls of the child to a phase.
func (p *Plan) Child(ph Phase, ops ...Op) {
	if int(ph) >= phases {
		p.fail(fmt.Errorf("there is no %v", ph))
		return
	}
	for _, o := range ops {
		o.owner = p.owner
		switch {
		case !o.early:
			p.ops[ph] = append(p.ops[ph], o)
		case ph != Sources || o.skip > 0:
			p.fail(fmt.Errorf("%v: only plain calls of phase sources can be early", o))
		default:
			p.early = append(p.early, o)
		}
	}
}

// Slot gives a fresh slot for the result of a call.
func (p *Plan) Slot() Slot {
	p.slots++
	return Slot{p.slots - 1}
}

// Open records that the parent opens a descriptor for each start, before the clone, and closes it when the child has
// executed the command. The name is what is printed, for example `"/srv/root" as rootfs`; the part after " as " names
// the descriptor.
func (p *Plan) Open(name string, open func(*Run) (*os.File, error)) File {
	p.opens = append(p.opens, open)
	p.before = append(p.before, Action{owner: p.owner, Name: "open " + name, isOpen: true, open: len(p.opens) - 1})
	short := name
	if i := strings.LastIndex(name, " as "); i >= 0 {
		short = name[i+len(" as "):]
	}
	return File{len(p.opens) - 1, short}
}

// Spent says that what the child does with f can be done once only, as attaching a mount. Where a start takes a second child, f is opened anew for it.
func (p *Plan) Spent(f File) {
	for i := range p.before {
		if p.before[i].isOpen && p.before[i].open == f.n {
			p.before[i].spent = true
		}
	}
}

// Before records an action of the parent before the clone.
func (p *Plan) Before(a Action) {
	a.owner = p.owner
	p.before = append(p.before, a)
}

// While records an action of the parent after the clone, while the child waits at the end of phase Join. Run.PID is set. Only plans
// with such actions pay for the handshake.
func (p *Plan) While(a Action) {
	a.owner = p.owner
	p.while = append(p.while, a)
}

// After records an action of the parent when the child has executed the command, before the start returns: it looks whether
// the command is what it should be. Run.PID is set, files are open. Its error kills the command and ends the start.
func (p *Plan) After(a Action) {
	a.owner = p.owner
	p.after = append(p.after, a)
}

// Observe records a function that adds to the result of the command what the primitive knows. It is called when the
// command has ended, before anything is undone.
func (p *Plan) Observe(f func(*Run, *Result)) { p.observe = append(p.observe, f) }

// Observed calls the functions that Observe has recorded. For launchers.
func (p *Plan) Observed(r *Run, result *Result) {
	for _, f := range p.observe {
		f(r, result)
	}
}

// Late records a decision that needs to see what the other parts have asked for. It is called when all of them have
// been applied, in the order of recording.
func (p *Plan) Late(f func() error) { p.late = append(p.late, late{p.owner, f}) }

// The names of what more than one package claims, or asks for with Has.
const (
	RootDir    = "root directory"
	User       = "user"
	Hostname   = "hostname"
	Domainname = "domain name"
	Caps       = "capabilities"
	IDMap      = "id map"
	InitProg   = "init"
	Dev        = "/dev"     // a directory of the sandbox's own
	Devpts     = "/dev/pts" // an instance of the sandbox's own, pts(4)
	Terminal   = "controlling terminal"
)

// Claim says that the primitive that is being applied is the only one to provide what. A second claim is a
// [ConflictError].
func (p *Plan) Claim(what string) error {
	if first, taken := p.claims[what]; taken {
		return &ConflictError{What: what, First: first, Second: p.owner}
	}
	p.claims[what] = p.owner
	return nil
}

// Has reports whether some primitive has claimed what so far.
func (p *Plan) Has(what string) bool {
	_, ok := p.claims[what]
	return ok
}

// Set keeps a value for the other parts of the same package that are applied to this plan: a slot that one of them
// fills and another one uses. Keys are compared as those of context.WithValue.
func (p *Plan) Set(key, value any) {
	if p.values == nil {
		p.values = map[any]any{}
	}
	p.values[key] = value
}

// Value gives what Set has kept, or nil.
func (p *Plan) Value(key any) any { return p.values[key] }

// check finds what would make the plan impossible to lower.
func (p *Plan) check() error {
	if both := p.flags & p.joined; both != 0 {
		return fmt.Errorf("%s: made anew and joined", namespaceText(both))
	}
	if p.slots > maxSlots {
		return fmt.Errorf("more than %d results are saved", maxSlots)
	}
	saved := make([]bool, p.slots)
	for ph := range p.ops {
		if Phase(ph) == Users {
			if err := p.checkOps(p.early, saved); err != nil {
				return err
			}
		}
		if err := p.checkOps(p.ops[ph], saved); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plan) checkOps(ops []Op, saved []bool) error {
	for i, o := range ops {
		if err := p.checkOp(o, ops[i+1:], saved); err != nil {
			return &Error{Primitive: o.owner, Call: o.String(), Err: err}
		}
	}
	return nil
}

const maxSlots = 1<<16 - 4 // the child counts them with 16 bits

func (p *Plan) checkOp(o Op, rest []Op, saved []bool) error {
	if len(o.args) > 6 {
		return errors.New("a system call has six arguments at most")
	}
	for _, a := range o.args {
		if err := p.checkArg(a, saved, 0); err != nil {
			return err
		}
	}
	if o.skip < 0 || o.skip > len(rest) || slices.ContainsFunc(rest[:o.skip], func(r Op) bool { return r.owner != o.owner }) {
		return errors.New("skips calls that are not the primitive's own")
	}
	if o.take > 0 && o.tolerate != 0 || slices.ContainsFunc(rest[:o.skip], func(r Op) bool { return r.take > 0 && r.answer == 0 }) {
		return errors.New("a call whose descriptor is taken is always made")
	}
	if o.expand != nil && (o.save > 0 || o.tolerate != 0 || o.take > 0) {
		return errors.New("several calls have no result")
	}
	if max(o.save, o.answer) > p.slots {
		return errors.New("saves into another plan's slot")
	}
	for _, s := range []int{o.save, o.answer} {
		if s > 0 {
			saved[s-1] = true
		}
	}
	return nil
}

func (p *Plan) checkArg(a Arg, saved []bool, depth int) error {
	switch a.kind {
	case kindSaved:
		if int(a.n) >= len(saved) || !saved[a.n] || depth > 0 {
			return fmt.Errorf("%s has not been saved before", a.text)
		}
	case kindFile:
		if int(a.n) >= len(p.opens) {
			return fmt.Errorf("%s is a file of another plan", a.text)
		}
	case kindAnswer:
		if int(a.n) >= len(p.answers) {
			return fmt.Errorf("%s is of another plan", a.text)
		}
	case kindStr:
		return noNUL(a.text)
	case kindStrs:
		for _, s := range a.strs {
			if err := noNUL(s); err != nil {
				return err
			}
		}
	case kindData:
		for _, f := range a.fields {
			if (f.size() != 4 && f.size() != 8) || f.Offset < 0 || f.Offset > len(a.data)-f.size() {
				return errors.New("a field lies outside its structure")
			}
			if err := p.checkArg(f.Arg, saved, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f Field) size() int {
	if f.Size == 0 {
		return int(unsafe.Sizeof(uintptr(0)))
	}
	return f.Size
}

func noNUL(s string) error {
	if strings.IndexByte(s, 0) >= 0 {
		return fmt.Errorf("NUL byte in %q: %w", s, syscall.EINVAL)
	}
	return nil
}

func namespaceText(flags uint64) string { return FlagText(flags, cloneFlags) }

const sysNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID |
	unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP | unix.CLONE_NEWTIME

var cloneFlags = []Flag{
	{unix.CLONE_NEWUSER, "CLONE_NEWUSER"}, {unix.CLONE_NEWNS, "CLONE_NEWNS"}, {unix.CLONE_NEWPID, "CLONE_NEWPID"},
	{unix.CLONE_NEWIPC, "CLONE_NEWIPC"}, {unix.CLONE_NEWUTS, "CLONE_NEWUTS"}, {unix.CLONE_NEWNET, "CLONE_NEWNET"},
	{unix.CLONE_NEWCGROUP, "CLONE_NEWCGROUP"}, {unix.CLONE_NEWTIME, "CLONE_NEWTIME"},
}
