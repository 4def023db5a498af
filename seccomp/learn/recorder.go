//go:build linux

package learn

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/seccomp"
	"github.com/caisson-dev/caisson/seccomp/notify"
)

// Recorder notes system calls. The zero value is ready for use, by any number of sandboxes at a time. It must not be copied.
type Recorder struct {
	// Arguments notes also the values of the argument that says what a call does, for calls that are many in one, as socket(2) and ioctl(2):
	// see [Multiplexed]. The policy then allows these values only.
	//
	// Clone3(2) hides its flags in memory, where no filter sees them: it is answered with ENOSYS, so that programs fall back to clone(2), while learning
	// and in the policy.
	Arguments bool

	mu   sync.Mutex
	seen map[key]*seen
}

type key struct {
	token uint32
	nr    int
}

// seen is one call of one architecture.
type seen struct {
	arch   seccomp.Arch
	name   string
	arg    argument
	narrow bool // values are noted
	values map[uint64]bool
}

// Note notes a call. The architecture must be known to package seccomp: else it is an error with errors.ErrUnsupported.
func (r *Recorder) Note(arch seccomp.Arch, nr int, args [6]uint64) error {
	if arch == 0 {
		return fmt.Errorf("call %d of an unknown architecture: %w", nr, errors.ErrUnsupported)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k := key{arch.Token(), nr}
	s := r.seen[k]
	if s == nil {
		if r.seen == nil {
			r.seen = map[key]*seen{}
		}
		s = newSeen(arch, nr, r.Arguments)
		r.seen[k] = s
	}
	if s.narrow {
		s.values[s.arg.of(arch, args)] = true
		s.narrow = len(s.values) <= mostValues
	}
	return nil
}

// mostValues of an argument are told apart; a call that has more is allowed with all.
const mostValues = 64

func newSeen(arch seccomp.Arch, nr int, arguments bool) *seen {
	s := &seen{arch: arch, values: map[uint64]bool{}}
	s.name, _ = arch.Name(nr)
	s.arg, s.narrow = multiplexed[s.name]
	s.narrow = s.narrow && arguments
	return s
}

// Handle is the notify.Handler: it notes the call and lets the kernel make it.
func (r *Recorder) Handle(_ context.Context, q *notify.Request) notify.Response {
	if r.Note(q.Arch, q.NR, q.Args) != nil {
		return notify.Errno(syscall.ENOSYS) // no policy could allow it
	}
	if r.Arguments && q.Name() == "clone3" {
		return notify.Errno(syscall.ENOSYS)
	}
	return notify.Continue()
}

// Profile gives what was noted so far.
func (r *Recorder) Profile() Profile {
	r.mu.Lock()
	defer r.mu.Unlock()
	var p Profile
	for k, s := range r.seen {
		c := Call{Arch: s.arch, Name: s.name, Number: k.nr}
		if s.narrow {
			for v := range s.values {
				c.Values = append(c.Values, v)
			}
		}
		if r.Arguments && s.name == "clone3" {
			c.Hidden = true
		}
		p = append(p, c)
	}
	return Merge(p)
}

// Calls is the part of a sandbox whose calls are noted. It takes the place of a filter. Needs Linux 5.19.
type Calls struct {
	Into *Recorder // must not be nil

	// Supervisor serves the sandbox together with others; nil is one of its own.
	Supervisor *notify.Supervisor

	// AllowNewPrivileges leaves no_new_privs unset, as in seccomp.Filter.
	AllowNewPrivileges bool
}

// Apply implements plan.Primitive.
func (c Calls) Apply(p *plan.Plan) error {
	if c.Into == nil {
		return fmt.Errorf("there is no Recorder: %w", syscall.EINVAL)
	}
	program, err := everything()
	if err != nil {
		return err
	}
	return notify.Filter{Program: program, Handler: c.Into.Handle, Supervisor: c.Supervisor, AllowNewPrivileges: c.AllowNewPrivileges}.Apply(p)
}

// everything asks about all calls but those that are in each policy anyway.
func everything() (*seccomp.Program, error) {
	return seccomp.Policy{Default: seccomp.Notify, Newer: seccomp.Notify, OtherArch: seccomp.Notify,
		Rules: []seccomp.Rule{{Names: always, Action: seccomp.Allow}}}.Compile()
}
