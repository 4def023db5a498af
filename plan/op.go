//go:build linux

package plan

import (
	"strings"
	"syscall"

	"github.com/caisson-dev/caisson/internal/sys"
)

// Op is one system call of the child. It is a value: the methods give a changed copy.
type Op struct {
	name     string
	trap     uintptr
	args     []Arg
	save     int // slot + 1
	tolerate syscall.Errno
	skip     int
	hints    []hint
	once     bool
	early    bool
	take     int // which of the plan's takes + 1
	sent     bool
	answer   int // slot of the parent's answer + 1
	owner    string
	expand   func(*Run) ([]Op, error)
	fixed    *sys.Call // the same in each start; nil where it is not
}

type hint struct {
	errno syscall.Errno
	text  string
}

// Call is the system call number trap (unix.SYS_...) with up to six arguments. The name is what is printed.
func Call(name string, trap uintptr, args ...Arg) Op { return Op{name: name, trap: trap, args: args} }

// Calls stands for calls that are known only when a start begins, since they depend on what the host is like then: the function gives them, any
// number, after the actions of Before and before the clone. They are one step of the plan, printed as text. They may use what has been saved before, files in the phases
// that concern the sandbox and not the process ([Plan.Again]), and save into slots of the plan, but the op itself saves, tolerates and skips nothing.
func Calls(text string, f func(*Run) ([]Op, error)) Op { return Op{name: text, expand: f} }

// Save keeps the call's result in s for later calls. Where the errno was tolerated, s holds -1.
func (o Op) Save(s Slot) Op {
	o.save = s.n + 1
	return o
}

// Tolerate makes the errno no failure of the plan. A call tolerates one errno; the last one named counts.
func (o Op) Tolerate(e syscall.Errno) Op {
	o.tolerate = e
	return o
}

// Skip passes over the n following calls of the same phase and primitive when the tolerated errno was met.
func (o Op) Skip(n int) Op {
	o.skip = n
	return o
}

// Once keeps the call out of [Plan.Again]: it sets up the sandbox, and a further command finds that done.
func (o Op) Once() Op {
	o.once = true
	return o
}

// Early lets a call of phase Sources be made before phase Users, while the parent acts: for what needs neither the ids
// that the child will have nor rights over files of others. It may use what other early calls have saved, and skips nothing.
func (o Op) Early() Op {
	o.early = true
	return o
}

// Hint is what an [Error] adds when the call fails with the errno and the errno alone would mislead.
func (o Op) Hint(e syscall.Errno, text string) Op {
	o.hints = append(o.hints[:len(o.hints):len(o.hints)], hint{e, text})
	return o
}

// String prints the call as strace does: with the slot into which the result goes, what is
// tolerated, and whether the parent gets the result.
func (o Op) String() string {
	if o.expand != nil {
		return o.name
	}
	var b strings.Builder
	if o.save > 0 {
		b.WriteString(Saved(Slot{o.save - 1}).text + " = ")
	}
	b.WriteString(o.name + "(")
	for i, a := range o.args {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(a.String())
	}
	b.WriteString(")")
	if o.sent {
		b.WriteString(" to the parent")
	}
	if o.answer > 0 {
		b.WriteString(", who says " + Saved(Slot{o.answer - 1}).text)
	}
	if o.tolerate != 0 {
		b.WriteString(" or " + errnoName(o.tolerate))
	}
	if o.skip > 0 {
		b.WriteString(", then skip " + Int(o.skip).text)
	}
	return b.String()
}

func (o Op) hint(e syscall.Errno) string {
	for _, h := range o.hints {
		if h.errno == e {
			return h.text
		}
	}
	return ""
}
