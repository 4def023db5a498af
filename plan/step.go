//go:build linux

package plan

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// StepKind tells the launcher what a step is.
type StepKind uint8

// The kinds of steps.
const (
	StepAction  StepKind = iota // the parent, before the clone
	StepOpen                    // the parent opens a file
	StepClone                   // the parent's clone
	StepCall                    // a call of the child
	StepReclone                 // the child clones itself into what it has joined
	StepWhile                   // the parent, while the child waits
	StepDup                     // the child puts descriptor N in place
	StepClose                   // the child closes what it was not given
	StepDie                     // the child asks to be killed with its parent
	StepExec                    // the child executes the command
	StepAfter                   // the parent, when the command has been executed
)

// Step is one line of a plan, in the order in which things are done.
type Step struct {
	Kind      StepKind
	Phase     Phase // of a StepCall
	Primitive string
	Op        *Op     // of a StepCall
	Action    *Action // of a StepAction, StepOpen, StepWhile or StepAfter
	N         int     // which open file, or which descriptor

	plan    *Plan
	command *Command
}

// String prints the step without its number.
func (s Step) String() string {
	switch s.Kind {
	case StepCall:
		return s.Op.String()
	case StepAction, StepOpen, StepWhile, StepAfter:
		return s.Action.Name
	}
	return s.launcherText()
}

func (s Step) launcherText() string {
	switch s.Kind {
	case StepClone:
		return s.plan.cloneText()
	case StepReclone:
		_, second, _ := s.plan.FirstClone()
		return "clone3(" + join(second, "CLONE_PARENT|CLONE_VFORK|CLONE_VM") + ")"
	case StepDup:
		return fmt.Sprintf("dup3(<%s>, %d)", descriptorName(s.N), s.N)
	case StepClose:
		return fmt.Sprintf("close_range(%d, ~0U)", s.N)
	case StepDie:
		return "prctl(PR_SET_PDEATHSIG, SIGKILL)"
	}
	return s.command.text()
}

func (s Step) actor() string {
	switch s.Kind {
	case StepAction, StepOpen, StepClone:
		return "parent"
	case StepWhile:
		return "waited"
	case StepAfter:
		return "after"
	}
	return "child"
}

const launcher = "launch"

// Steps flattens the plan into the order in which it is performed. With a nil command it ends with a place holder.
func (p *Plan) Steps(c *Command) []Step { return p.AppendSteps(nil, c) }

func (b *steps) all() {
	p, c := b.p, b.c
	for i := range p.before {
		b.before(&p.before[i])
	}
	b.clone()
	b.phases(Cgroup, Join)
	b.reclone()
	b.early()
	for i := range p.while {
		b.s = append(b.s, Step{Kind: StepWhile, Primitive: p.while[i].owner, Action: &p.while[i]})
	}
	b.unshareTime()
	b.phases(Users, Limits)
	b.limits()
	b.files(c)
	b.phases(Bounds, Capabilities)
	b.directory(c)
	if p.die { // a change of credentials has cleared it
		b.launcher(StepDie, 0)
	}
	if p.nnp {
		b.own(Labels, Call("prctl", unix.SYS_PRCTL, Number(unix.PR_SET_NO_NEW_PRIVS, "PR_SET_NO_NEW_PRIVS"), Int(1), Int(0), Int(0), Int(0)))
	}
	b.phases(Labels, Last)
	b.launcher(StepExec, 0)
}

func (p *Plan) calls() (n int) {
	n = len(p.early)
	for ph := range p.ops {
		n += len(p.ops[ph])
	}
	return n
}

type steps struct {
	p *Plan
	c *Command
	s []Step
}

func (b *steps) launcher(k StepKind, n int) {
	b.s = append(b.s, Step{Kind: k, Primitive: launcher, N: n, plan: b.p, command: b.c})
}

// own adds a call of the launcher's.
func (b *steps) own(ph Phase, o Op) {
	o.owner = launcher
	b.call(ph, &o)
}

func (b *steps) call(ph Phase, o *Op) {
	b.s = append(b.s, Step{Kind: StepCall, Phase: ph, Primitive: o.owner, Op: o, plan: b.p})
}

func (b *steps) before(a *Action) {
	s := Step{Kind: StepAction, Primitive: a.owner, Action: a}
	if a.isOpen {
		s.Kind, s.N = StepOpen, a.open
	}
	b.s = append(b.s, s)
}

func (b *steps) phases(from, to Phase) {
	for ph := from; ph <= to; ph++ {
		for i := range b.p.ops[ph] {
			b.call(ph, &b.p.ops[ph][i])
		}
	}
}

// early are the calls that the child makes while the parent acts.
func (b *steps) early() {
	for i := range b.p.early {
		b.call(Sources, &b.p.early[i])
	}
}

// FirstClone gives the CLONE_NEW... flags of the first clone and, where the plan joins namespaces, those of the second.
// A new time namespace is made by neither: the kernel does not let it share memory.
func (p *Plan) FirstClone() (first, second uint64, twice bool) {
	fresh := p.flags &^ unix.CLONE_NEWTIME
	if p.joined == 0 {
		return fresh, 0, false
	}
	return 0, fresh, fresh != 0 || p.joined&unix.CLONE_NEWPID != 0
}

func (p *Plan) cloneText() string {
	first, _, _ := p.FirstClone()
	text := "clone3(" + join(first, "CLONE_CLEAR_SIGHAND|CLONE_PIDFD|CLONE_VFORK|CLONE_VM")
	if p.cgroup != nil {
		text += "|CLONE_INTO_CGROUP, <" + p.cgroup.name + ">"
	}
	return text + ")"
}

func (b *steps) clone() {
	b.launcher(StepClone, 0)
	if b.p.die {
		b.launcher(StepDie, 0)
	}
}

func join(flags uint64, more string) string {
	if flags == 0 {
		return more
	}
	return namespaceText(flags) + "|" + more
}

func (b *steps) reclone() {
	if _, _, twice := b.p.FirstClone(); !twice {
		return
	}
	b.launcher(StepReclone, 0)
	if b.p.die {
		b.launcher(StepDie, 0)
	}
}

func (b *steps) unshareTime() {
	if b.p.flags&unix.CLONE_NEWTIME != 0 {
		b.own(Users, Call("unshare", unix.SYS_UNSHARE, Namespaces(unix.CLONE_NEWTIME)).
			Hint(syscall.EINVAL, "time namespaces need Linux 5.6"))
	}
}

func (b *steps) limits() {
	if b.p.Has("rlimit NOFILE") {
		return
	}
	if o, ok := nofileOp(); ok {
		b.own(Limits, o)
	}
}

var descriptorNames = [...]string{"stdin", "stdout", "stderr"}

// DescriptorName is how descriptor n of the command is printed.
func descriptorName(n int) string {
	if n < len(descriptorNames) {
		return descriptorNames[n]
	}
	return "file " + strconv.Itoa(n)
}

func (b *steps) files(c *Command) {
	n := 3
	if c != nil {
		n = len(c.Files)
	}
	for i := range n {
		b.launcher(StepDup, i)
	}
	b.phases(Files, Files)
	b.launcher(StepClose, n)
}

func (b *steps) directory(c *Command) {
	if c != nil && c.Dir != "" {
		for _, o := range c.dir(Slot{b.p.slots}) {
			b.own(Directory, o)
		}
	}
	b.phases(Directory, Directory)
}

func (c *Command) text() string {
	if c == nil {
		return "execve(<command>)"
	}
	text := "execve(" + quote(c.Candidates[0])
	if n := len(c.Candidates); n > 1 {
		text += " or " + quote(c.Candidates[n-1])
	}
	text += ", " + vector(c.Args) + ")"
	if c.Init {
		return "execveat(<init>), and then in its child " + text
	}
	return text
}

// String prints the plan, one step a line, before anything has been done. Equal plans give equal text. A plan that could not be built
// prints its error.
func (p *Plan) String() string { return p.Text(nil) }

// Text prints the plan together with the command.
func (p *Plan) Text(c *Command) string {
	if p.err != nil {
		return "error: " + p.err.Error() + "\n"
	}
	all := append(p.Steps(c), p.AfterSteps()...)
	width := 0
	for _, s := range all {
		width = max(width, min(len(s.String()), 100))
	}
	var b strings.Builder
	for i, s := range all {
		line := fmt.Sprintf("%2d %-6s  %-*s", i+1, s.actor(), width, s.String())
		if s.Primitive != launcher {
			line += "  # " + s.Primitive
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}
