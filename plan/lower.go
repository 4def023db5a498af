//go:build linux

package plan

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/sys"
)

// NewRun makes the state of one start of the plan. For launchers.
func (p *Plan) NewRun(ctx context.Context, inherit *Run) *Run {
	r := &Run{Context: ctx, files: make([]*os.File, len(p.opens)), answers: newAnswers(p.answers)}
	if inherit != nil {
		r.values = maps.Clone(inherit.values)
	}
	return r
}

// OpenFile performs a StepOpen. For launchers.
func (p *Plan) OpenFile(r *Run, s Step) (err error) {
	f, err := p.opens[s.N](r)
	if err == nil && f == nil {
		err = os.ErrInvalid
	}
	if err != nil {
		return err
	}
	r.files[s.N] = f
	unix.CloseOnExec(int(f.Fd()))
	return nil
}

// Next says that a child has come to its last call, and another one begins. For launchers.
func (r *Run) Next() { r.second = true }

// Renew opens what a child has spent anew, for a second one. For launchers.
func (p *Plan) Renew(r *Run, s Step) error {
	if s.Kind != StepOpen || !s.Action.spent {
		return nil
	}
	if f := r.files[s.N]; f != nil {
		r.files[s.N] = nil
		f.Close()
	}
	return p.OpenFile(r, s)
}

// CloseFiles closes what was opened for this start, and gives back the memory of answers. For launchers.
func (r *Run) CloseFiles() {
	for i, f := range r.files {
		if f != nil {
			f.Close()
			r.files[i] = nil
		}
	}
	for _, f := range r.kept {
		f.Close()
	}
	r.kept = nil
	for i := range r.answers {
		r.answers[i].free()
	}
}

// Keep closes f when the start is over; the child does not get it.
func (r *Run) Keep(f *os.File) { r.kept = append(r.kept, f) }

// Descriptors gives the numbers of the files that are open for this start. For launchers.
func (r *Run) Descriptors() (fds []uintptr) {
	for _, f := range r.files {
		if f != nil {
			fds = append(fds, f.Fd())
		}
	}
	return fds
}

// Raise gives the open files numbers from least on. For launchers.
func (r *Run) Raise(least int) error {
	for i, f := range r.files {
		if f == nil || f.Fd() >= uintptr(least) {
			continue
		}
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, least)
		if err != nil {
			return os.NewSyscallError("fcntl", err)
		}
		r.files[i] = os.NewFile(uintptr(fd), f.Name())
		f.Close()
	}
	return nil
}

// Descriptors gives the numbers of the run's files that the call uses. For launchers.
func (o *Op) Descriptors(r *Run) (fds []uintptr) {
	if !o.uses(kindFile) {
		return nil
	}
	used := map[int]bool{}
	markFiles(o.args, used)
	for n := range used {
		if f := r.files[n]; f != nil {
			fds = append(fds, f.Fd())
		}
	}
	return fds
}

// OwnCgroup reports whether the child is started in a control group of version 2 that a part has named.
func (p *Plan) OwnCgroup() bool { return p.cgroup != nil }

// CgroupFile is the directory that IntoCgroup named, and whether there is one. For launchers.
func (p *Plan) CgroupFile(r *Run) (*os.File, bool) {
	if p.cgroup == nil {
		return nil, false
	}
	return r.File(*p.cgroup), true
}

// Slots is the number of slots that the plan's steps use. For launchers.
func (p *Plan) Slots() int { return p.slots + 1 } // one for the working directory

// Dies reports whether DieWithParent was asked for.
func (p *Plan) Dies() bool { return p.die }

// Waits reports whether the child waits for actions of the parent.
func (p *Plan) Waits() bool { return len(p.while) > 0 }

// AfterSteps are the actions of After: they follow the steps that [Plan.Steps] gives. For launchers.
func (p *Plan) AfterSteps() []Step {
	s := make([]Step, len(p.after))
	for i := range p.after {
		s[i] = Step{Kind: StepAfter, Primitive: p.after[i].owner, Action: &p.after[i]}
	}
	return s
}

// Filters reports whether the child installs a filter of system calls.
func (p *Plan) Filters() bool { return len(p.ops[Seccomp]) > 0 }

// Takes reports whether the parent takes descriptors from the child.
func (p *Plan) Takes() bool { return len(p.takes) > 0 }

// Taken hands the descriptor that the step's call gave to the part that asked for it; nil where the step is none of
// those. For launchers.
func (s Step) Taken() func(*Run, *os.File) error {
	if s.Kind != StepCall || s.Op.take == 0 {
		return nil
	}
	return s.plan.takes[s.Op.take-1].do
}

// Expands reports whether the op is one of [Calls]. For launchers.
func (o *Op) Expands() bool { return o.expand != nil }

// Expand gives the calls that such a step stands for in this start. For launchers.
func (s Step) Expand(r *Run) ([]Op, error) {
	ops, err := s.Op.expand(r)
	if err != nil {
		return nil, err
	}
	ops = slices.Clone(ops)             // other starts may have been given the same
	saved := make([]bool, s.plan.slots) // what others have saved before is known to be there from here on
	for i := range saved {
		saved[i] = true
	}
	for i := range ops {
		ops[i].owner = s.Op.owner
		if ops[i].take > 0 || ops[i].expand != nil || ops[i].uses(kindFile) && s.Phase.again() { // what the child keeps open, and a further command needs, is known from the plan
			return nil, fmt.Errorf("%v: not among calls that are known at the start only: %w", ops[i], syscall.EINVAL)
		}
	}
	return ops, s.plan.checkOps(ops, saved)
}

// uses reports whether an argument is of the kind.
func (o *Op) uses(k kind) bool {
	for i := range o.args {
		if o.args[i].uses(k) {
			return true
		}
	}
	return false
}

func (a *Arg) uses(k kind) bool {
	return a.kind == k || slices.ContainsFunc(a.fields, func(f Field) bool { return f.Arg.uses(k) })
}

// Answered gives the number of the slot, counted from 1, into which the parent's answer goes, or 0. For launchers.
func (o *Op) Answered() int { return o.answer }

// AnswerOf is the number that the function of AskAt has given for the step. For launchers.
func (s Step) AnswerOf(r *Run) uintptr {
	n, _ := r.Value(answered{s.Op.answer - 1}).(uintptr)
	return n
}

// Trap gives the number of the system call. For launchers.
func (o *Op) Trap() uintptr { return o.trap }

// HintFor gives the hint for an errno, or "". For launchers.
func (s Step) HintFor(err error) string {
	if s.Op == nil {
		return ""
	}
	return s.Op.hint(Errno(err))
}

// Lower turns the call into numbers, with its memory in m. The run may be nil where the call is the same in each. For launchers.
func (o *Op) Lower(m *sys.Memory, r *Run) sys.Call {
	c := sys.Call{Trap: o.trap, Save: uint16(o.save), Tolerate: uintptr(o.tolerate), Skip: o.skip}
	for i := range o.args {
		a := &o.args[i]
		if a.kind == kindSaved {
			c.Load[i] = uint16(a.n) + 1
			continue
		}
		c.Args[i] = a.lower(m, r)
	}
	return c
}

func (a *Arg) lower(m *sys.Memory, r *Run) uintptr {
	switch a.kind {
	case kindStr:
		return m.String(a.text)
	case kindStrs:
		return m.Strings(a.strs)
	case kindBuf:
		return m.Zero(int(a.n))
	case kindFile:
		return r.File(File{n: int(a.n)}).Fd()
	case kindData:
		return a.pointer(m, r)
	case kindAnswer:
		return r.answers[a.n].address(m, r.copied)
	case kindNull:
		return 0
	}
	return uintptr(a.n)
}

func (a *Arg) pointer(m *sys.Memory, r *Run) uintptr {
	const small = 256 // one piece of memory less to hold in each start
	if len(a.fields) == 0 && (r != nil || len(a.data) > small) {
		return m.Bytes(a.data)
	}
	at, b := m.Copy(a.data)
	for _, f := range a.fields {
		v := f.Arg.lower(m, r)
		if f.size() == 4 {
			binary.NativeEndian.PutUint32(b[f.Offset:], uint32(v))
		} else {
			binary.NativeEndian.PutUint64(b[f.Offset:], uint64(v))
		}
	}
	return at
}
