//go:build linux

package caps

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// room is what a start can give to a command.
type room struct {
	have    State
	last    int  // the highest capability of the kernel
	root    bool // the command is user 0
	inside  bool // a user namespace of the sandbox's
	hides   bool // others can have as much as the child will be left with
	changes bool // the user may change on the way to the command
}

// caller is who starts the sandbox.
type caller struct {
	State
	last int
	root bool
}

func currentCaller() (caller, error) {
	s, err := Current()
	return caller{State: s, last: lastCap(), root: os.Geteuid() == 0}, err
}

// wish gives the state that a part wants, and what it has cut.
type wish func(room) (want State, cut Set, err error)

func apply(p *plan.Plan, w wish) error {
	c, err := currentCaller()
	if err != nil {
		return err
	}
	return c.apply(p, w)
}

// apply records w. It waits until all other parts are there: they decide about the user, user namespaces and filters.
func (c caller) apply(p *plan.Plan, w wish) error {
	if err := p.Claim(plan.Caps); err != nil {
		return err
	}
	p.Final(func() error {
		r := c.room(p)
		want, cut, err := w(r)
		if err != nil {
			return err
		}
		c.checkBounding(p, r, cut)
		change{room: r, want: want, admin: p.NeedsAdmin()}.record(p)
		return nil
	})
	return nil
}

// room is what the child will have. Whoever makes or joins a user namespace has all capabilities there, no securebits and
// nothing inheritable (user_namespaces(7)).
func (c caller) room(p *plan.Plan) room {
	r := room{have: c.State, last: c.last, root: c.root, hides: true}
	id, known := p.UID()
	if (p.Cloned()|p.Joined())&unix.CLONE_NEWUSER != 0 {
		all := upTo(c.last)
		r.inside, r.hides = true, c.root || c.Permitted != 0
		r.root, r.have = true, State{Permitted: all, Effective: all, Bounding: all}
	}
	if known {
		r.root, r.changes = id == 0, true
	}
	return r
}

// checkBounding looks once more before each start where the plan depends on what the caller has not got: threads can differ,
// and the one that starts may have what the one that made the plan had not.
func (c caller) checkBounding(p *plan.Plan, r room, cut Set) {
	cut &= upTo(r.last)
	if r.inside || cut == 0 && r.have.Effective.Has(Setpcap) {
		return
	}
	name := "look at the caller's capabilities"
	if cut != 0 {
		name += fmt.Sprintf(": the command goes without %v, which they lack", cut)
	}
	p.Before(plan.Action{Name: name, Do: func(*plan.Run) error {
		now, err := Current()
		if more := now.Bounding &^ c.Bounding; err == nil && more != 0 {
			err = &Error{Op: "look at the bounding set", Err: syscall.EPERM, Hint: "this thread has more than that which made the sandbox: " + more.String()}
		}
		return err
	}})
}

// change is the way of the child to the state that it is to have.
type change struct {
	room
	want  State
	admin bool // CAP_SYS_ADMIN stays until the filters are in force
}

func (c change) record(p *plan.Plan) {
	p.Child(plan.Bounds, c.bounds()...)
	if c.want.Inheritable != 0 && c.changes {
		p.Child(plan.Bounds, c.inherit())
	}
	if c.keeps() {
		p.Child(plan.Bounds, plan.Call("prctl", unix.SYS_PRCTL, plan.Number(unix.PR_SET_KEEPCAPS, "PR_SET_KEEPCAPS"), plan.Int(1),
			plan.Int(0), plan.Int(0), plan.Int(0)).Hint(syscall.EPERM, "SECBIT_KEEP_CAPS is locked"))
	}
	if c.hides {
		p.Child(plan.Capabilities, hide())
	}
	p.Child(plan.Capabilities, c.sets()...)
	if c.extra() != c.forBits() {
		p.Child(plan.Last, capset(c.want))
	}
}

// inherit sets the inheritable set before the change of the user: who is left with an empty permitted set can add nothing to it.
func (c change) inherit() plan.Op {
	now := c.have
	now.Inheritable = c.want.Inheritable
	return capset(now)
}

// keeps reports whether the permitted set must outlive a change of the user.
func (c change) keeps() bool {
	return c.changes && !c.root && c.want.Permitted|c.extra() != 0 && !c.have.Securebits.Has(NoSetuidFixup)
}

// hide keeps others from tracing the child. Until it executes the command it shares the memory of the host, and with
// capset(2) it becomes the equal of any root that has no more capabilities, as that of another sandbox, which could then
// trace it: unlike setresuid(2), capset does not make it undumpable. The launcher puts the host's flag back. In a user namespace of its own it has no
// equals outside but the user who has made it, and where that is root, any root of the host, with capabilities or without (user_namespaces(7)).
func hide() plan.Op {
	return plan.Call("prctl", unix.SYS_PRCTL, plan.Number(unix.PR_SET_DUMPABLE, "PR_SET_DUMPABLE"), plan.Int(0), plan.Int(0), plan.Int(0), plan.Int(0))
}

// bounds cuts the bounding set. Who may cut it cuts all that is not wanted, present or not: that is right for any thread.
func (c change) bounds() []plan.Op {
	drop := upTo(c.last) &^ c.want.Bounding
	if !c.have.Effective.Has(Setpcap) {
		drop &= c.have.Bounding
	}
	return dropping(drop)
}

func dropping(s Set) (ops []plan.Op) {
	for b := range s.Each() {
		ops = append(ops, plan.Call("prctl", unix.SYS_PRCTL, plan.Number(unix.PR_CAPBSET_DROP, "PR_CAPBSET_DROP"), b.arg(), plan.Int(0), plan.Int(0), plan.Int(0)).
			Hint(syscall.EPERM, "needs CAP_SETPCAP, or namespaces.User"))
	}
	return ops
}

// sets gives up what is not wanted. What is needed on the way is given up last.
func (c change) sets() []plan.Op {
	with := c.want
	with.Permitted, with.Effective = with.Permitted|c.extra(), with.Effective|c.extra()
	ops := append([]plan.Op{capset(with)}, c.ambient()...)
	if c.want.Securebits == 0 {
		return ops
	}
	ops = append(ops, plan.Call("prctl", unix.SYS_PRCTL, plan.Number(unix.PR_SET_SECUREBITS, "PR_SET_SECUREBITS"),
		plan.Flags(uint64(c.want.Securebits), securebitFlags), plan.Int(0), plan.Int(0), plan.Int(0)).
		Hint(syscall.EPERM, "needs CAP_SETPCAP, or some bits are locked"))
	if c.forBits() != 0 {
		with.Permitted, with.Effective = with.Permitted&^c.forBits(), with.Effective&^c.forBits()
		ops = append(ops, capset(with))
	}
	return ops
}

// forBits is what setting the securebits needs and the command does not have.
func (c change) forBits() Set {
	if c.want.Securebits == 0 {
		return 0
	}
	return Setpcap &^ c.want.Effective
}

// extra is what the child needs on its way and the command does not have.
func (c change) extra() Set {
	if !c.admin {
		return c.forBits()
	}
	return c.forBits() | SysAdmin&^c.want.Effective
}

// ambient clears the ambient set, which the kernel has already cut to what is permitted and inheritable, and fills it.
func (c change) ambient() []plan.Op {
	op := func(what uint64, name string, n plan.Arg) plan.Op {
		return plan.Call("prctl", unix.SYS_PRCTL, plan.Number(unix.PR_CAP_AMBIENT, "PR_CAP_AMBIENT"), plan.Number(what, name), n, plan.Int(0), plan.Int(0))
	}
	ops := []plan.Op{op(unix.PR_CAP_AMBIENT_CLEAR_ALL, "PR_CAP_AMBIENT_CLEAR_ALL", plan.Int(0))}
	for a := range c.want.Ambient.Each() {
		ops = append(ops, op(unix.PR_CAP_AMBIENT_RAISE, "PR_CAP_AMBIENT_RAISE", a.arg()).
			Hint(syscall.EPERM, "SECBIT_NO_CAP_AMBIENT_RAISE is set"))
	}
	return ops
}

// capset sets the three sets of capset(2), printed as cap_to_text(3) does.
func capset(s State) plan.Op {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	return plan.Call("capset", unix.SYS_CAPSET, plan.Bytes("{_LINUX_CAPABILITY_VERSION_3, 0}", headerBytes(header)), plan.Bytes("{"+s.Text()+"}", s.capsets())).
		Hint(syscall.EPERM, "the caller lacks some of them")
}

// arg is the only capability in s as an argument.
func (s Set) arg() plan.Arg {
	return plan.Number(uint64(s.number()), s.word("CAP_", strings.ToUpper))
}
