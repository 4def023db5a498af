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
)

// Step is one line of a plan, in the order in which things are done.
type Step struct {
	Kind      StepKind
	Phase     Phase // of a StepCall
	Primitive string
	Op        Op
	Action    Action
	N         int // which open file, or which descriptor
	text      string
}

// String prints the step without its number.
func (s Step) String() string {
	switch s.Kind {
	case StepCall:
		return s.Op.String()
	case StepAction, StepOpen, StepWhile:
		return s.Action.Name
	}
	return s.text
}

func (s Step) actor() string {
	switch s.Kind {
	case StepAction, StepOpen, StepClone:
		return "parent"
	case StepWhile:
		return "waited"
	}
	return "child"
}

const launcher = "launch"

// Steps flattens the plan into the order in which it is performed. With a nil command it ends with a place holder.
func (p *Plan) Steps(c *Command) []Step {
	b := steps{p: p}
	b.s = make([]Step, 0, len(p.before)+len(p.while)+16+p.calls())
	for _, a := range p.before {
		b.before(a)
	}
	b.clone()
	b.phases(Cgroup, Join)
	b.reclone()
	for _, a := range p.while {
		b.s = append(b.s, Step{Kind: StepWhile, Primitive: a.owner, Action: a})
	}
	b.unshareTime()
	b.phases(Users, Limits)
	b.limits()
	b.files(c)
	b.phases(Credentials, Credentials)
	b.directory(c)
	if p.die { // a change of credentials has cleared it
		b.launcher(StepDie, "prctl(PR_SET_PDEATHSIG, SIGKILL)")
	}
	b.phases(Labels, Seccomp)
	b.launcher(StepExec, c.text())
	return b.s
}

func (p *Plan) calls() (n int) {
	for ph := range p.ops {
		n += len(p.ops[ph])
	}
	return n
}

type steps struct {
	p *Plan
	s []Step
}

func (b *steps) launcher(k StepKind, text string) {
	b.s = append(b.s, Step{Kind: k, Primitive: launcher, text: text})
}

func (b *steps) call(ph Phase, o Op) {
	if o.owner == "" {
		o.owner = launcher
	}
	b.s = append(b.s, Step{Kind: StepCall, Phase: ph, Primitive: o.owner, Op: o})
}

func (b *steps) before(a Action) {
	s := Step{Kind: StepAction, Primitive: a.owner, Action: a}
	if a.isOpen {
		s.Kind, s.N = StepOpen, a.open
	}
	b.s = append(b.s, s)
}

func (b *steps) phases(from, to Phase) {
	for ph := from; ph <= to; ph++ {
		for _, o := range b.p.ops[ph] {
			b.call(ph, o)
		}
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

func (b *steps) clone() {
	first, _, _ := b.p.FirstClone()
	text := "clone3(" + join(first, "CLONE_CLEAR_SIGHAND|CLONE_PIDFD|CLONE_VFORK|CLONE_VM")
	if b.p.cgroup != nil {
		text += "|CLONE_INTO_CGROUP, <" + b.p.cgroup.name + ">"
	}
	b.launcher(StepClone, text+")")
	if b.p.die {
		b.launcher(StepDie, "prctl(PR_SET_PDEATHSIG, SIGKILL)")
	}
}

func join(flags uint64, more string) string {
	if flags == 0 {
		return more
	}
	return namespaceText(flags) + "|" + more
}

func (b *steps) reclone() {
	_, second, twice := b.p.FirstClone()
	if !twice {
		return
	}
	b.launcher(StepReclone, "clone3("+join(second, "CLONE_PARENT|CLONE_VFORK|CLONE_VM")+")")
	if b.p.die {
		b.launcher(StepDie, "prctl(PR_SET_PDEATHSIG, SIGKILL)")
	}
}

func (b *steps) unshareTime() {
	if b.p.flags&unix.CLONE_NEWTIME != 0 {
		b.call(Users, Call("unshare", unix.SYS_UNSHARE, Namespaces(unix.CLONE_NEWTIME)).
			Hint(syscall.EINVAL, "time namespaces need Linux 5.6"))
	}
}

func (b *steps) limits() {
	if b.p.Has("rlimit NOFILE") {
		return
	}
	if o, ok := nofileOp(); ok {
		b.call(Limits, o)
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
		b.s = append(b.s, Step{Kind: StepDup, N: i, Primitive: launcher, text: fmt.Sprintf("dup3(<%s>, %d)", descriptorName(i), i)})
	}
	b.phases(Files, Files)
	b.launcher(StepClose, fmt.Sprintf("close_range(%d, ~0U)", n))
}

func (b *steps) directory(c *Command) {
	if c != nil && c.Dir != "" {
		for _, o := range c.dir(Slot{b.p.slots}) {
			b.call(Directory, o)
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
	all := p.Steps(c)
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
