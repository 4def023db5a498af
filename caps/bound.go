//go:build linux

package caps

import (
	"fmt"

	"github.com/caisson-dev/caisson/plan"
)

// Bound is the part of a sandbox that says which capabilities its command has; all others it has lost for good, and so has
// everything that it starts (capabilities(7)). The zero value leaves none.
//
// A command of user 0 has all that are left, permitted and effective. One of another user has none of them, as with Docker:
// what is left is what it could gain at most, by a file with capabilities. [Bound.Raise] is for those that it is to have itself.
// The inheritable set is empty unless it is asked for (CVE-2022-24769).
//
// In a sandbox with a user namespace, new or joined, all capabilities are there to be left, and reach no further than
// what belongs to that namespace. Without one, the caller can leave what it has itself, and needs CAP_SETPCAP to take away the rest: an
// ordinary user gets a plan.Error with EPERM.
//
// At most one part of a sandbox says which capabilities there are.
type Bound struct {
	// Keep is left to the command as far as the caller has it: "all capabilities" are those that there are. What is cut off
	// is named in the plan.
	Keep Set

	// Need is left to the command, too. What the caller does not have is a [*LackError] when the sandbox is made.
	Need Set

	// Ambient is needed, and kept by a command of a user other than root, and by what it executes. It is in the inheritable
	// set as well: the kernel wants it so.
	Ambient Set

	// Inheritable is needed, and can be gained from a file that has it in its own inheritable set. It is empty in almost
	// every sandbox.
	Inheritable Set

	// Securebits are set, also for all that the command starts; 0 leaves the caller's, or a new user namespace's, which are 0.
	// With NoRoot, user 0 has what another user would have.
	Securebits Securebits
}

// Drop leaves all capabilities but some: Drop(All) leaves none.
func Drop(s Set) Bound { return Bound{Keep: All &^ s} }

// Keep leaves some capabilities only: Keep(DockerDefault) is what docker run leaves, Keep(All) what docker run --privileged
// does.
func Keep(s Set) Bound { return Bound{Keep: s} }

// Docker leaves what docker run does with --cap-add and --cap-drop. It begins with [DockerDefault]; All among what is added is
// everything but what is dropped, All among what is dropped nothing but what is added, and what is in both is there.
func Docker(add, drop Set) Bound {
	switch {
	case add == All && drop == All:
		return Keep(All)
	case add == All:
		return Drop(drop)
	case drop == All:
		return Drop(All).Add(add)
	}
	return Keep(DockerDefault).Drop(drop).Add(add)
}

// Add gives a Bound that leaves s, too. A capability that the caller does not have is an error, unless s is [All].
func (b Bound) Add(s Set) Bound {
	if s == All {
		b.Keep = All
		return b
	}
	b.Need |= s
	return b
}

// Drop gives a Bound that does not leave s.
func (b Bound) Drop(s Set) Bound {
	b.Keep, b.Need, b.Ambient, b.Inheritable = b.Keep&^s, b.Need&^s, b.Ambient&^s, b.Inheritable&^s
	return b
}

// Raise gives a Bound in which the command has s also when its user is not root: they are in the ambient set.
func (b Bound) Raise(s Set) Bound {
	b.Ambient |= s
	return b
}

// Apply asks for these capabilities.
func (b Bound) Apply(p *plan.Plan) error {
	if err := b.Securebits.check(); err != nil {
		return err
	}
	return apply(p, b.state)
}

// state is what the command is to have, and what of Keep it cannot have.
func (b Bound) state(r room) (want State, cut Set, err error) {
	needed := b.Need | b.Ambient | b.Inheritable
	have := r.have.Bounding
	if b.root(r) {
		have &= r.have.Permitted
	}
	if lacked := needed&^have | b.Ambient&^r.have.Permitted; lacked != 0 {
		return want, 0, &LackError{Lacked: lacked, Unknown: lacked&^upTo(r.last) != 0}
	}
	keep := b.Keep | needed
	want = State{Bounding: keep & have, Ambient: b.Ambient, Inheritable: b.Inheritable | b.Ambient, Securebits: b.Securebits}
	want.Permitted = want.Ambient
	if b.root(r) {
		want.Permitted = want.Bounding
	}
	want.Effective = want.Permitted
	return want, keep &^ have, nil
}

// root reports whether executing a program gives the command all that is in its bounding set.
func (b Bound) root(r room) bool {
	bits := b.Securebits
	if bits == 0 {
		bits = r.have.Securebits
	}
	return r.root && !bits.Has(NoRoot)
}

func (s Securebits) check() error {
	if bad := s &^ (LockExecDenyInteractive<<1 - 1); bad != 0 {
		return invalid("securebits", fmt.Sprintf("there are no securebits %#x", uint32(bad)))
	}
	return nil
}

// Apply sets exactly this state before the command is executed, as the OCI runtime specification wants it; most sandboxes
// want a [Bound]. execve(2) then gives a command of user 0 all of the bounding set, and that of another user the ambient set only. Of each
// set is cut what the caller, or the sandbox's user namespace, does not have, and the plan names it.
//
// Effective must be in Permitted, Ambient in Permitted and Inheritable, and Inheritable in Bounding: else an [*Error] with EINVAL.
func (s State) Apply(p *plan.Plan) error {
	if err := s.check(); err != nil {
		return err
	}
	if s.NoNewPrivs {
		p.NoNewPrivs()
	}
	return apply(p, s.state)
}

func (s State) check() error {
	for _, rule := range []struct {
		name     string
		part, of Set
		whole    string
	}{{"effective", s.Effective, s.Permitted, "permitted"}, {"ambient", s.Ambient, s.Permitted & s.Inheritable, "permitted and inheritable"},
		{"inheritable", s.Inheritable, s.Bounding, "bounding"}} {
		if bad := rule.part &^ rule.of; bad != 0 {
			return invalid("capability sets", fmt.Sprintf("%v: %s, but not %s", bad, rule.name, rule.whole))
		}
	}
	if s.Securebits == NotShown {
		return nil
	}
	return s.Securebits.check()
}

func (s State) state(r room) (want State, cut Set, err error) {
	want = s.within(r.have)
	if s.Securebits == NotShown {
		want.Securebits = 0
	}
	all := s.Permitted | s.Inheritable | s.Bounding
	return want, all &^ (want.Permitted | want.Inheritable | want.Bounding), nil
}

// within cuts the sets to those that somebody has.
func (s State) within(have State) State {
	s.Permitted &= have.Permitted
	s.Effective &= have.Permitted
	s.Bounding &= have.Bounding
	s.Inheritable &= have.Bounding
	s.Ambient &= s.Permitted & s.Inheritable
	return s
}
