//go:build linux

package seccomp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// Filter is a program that is put in force: a part of a sandbox, or by [Filter.Install] on the calling process. Its filter cannot be taken away again, and
// holds for all that the command starts. A sandbox may have several; the strictest answer counts.
//
// As a part of a sandbox it refuses programs that would end, or hold up, the start itself: a [*LaunchError].
type Filter struct {
	// Program is what is installed; nil is an error. The same program serves any number of sandboxes, whose starts share its memory.
	Program *Program
	// Flags of seccomp(2); the zero value is none.
	Flags Flags
	// AllowNewPrivileges leaves no_new_privs unset: programs that are set-user-ID or have file capabilities gain rights by them,
	// as in Docker's containers. It needs CAP_SYS_ADMIN in the sandbox's user namespace until the filter is installed, and gives up
	// that a flaw in such a program stays out of reach.
	AllowNewPrivileges bool

	err error // why there is no program
}

// New compiles the policy. An error is kept: it is in the filter's Err, and in the error of every start.
func New(p Policy) Filter {
	program, err := p.Compile()
	return Filter{Program: program, err: err}
}

// Err is why the filter cannot be used, or nil.
func (f Filter) Err() error {
	if f.err == nil && f.Program == nil {
		return invalid("the filter has no program")
	}
	return f.err
}

// Apply installs the filter in the child, as the last thing before execve(2).
func (f Filter) Apply(p *plan.Plan) error {
	if err := f.Err(); err != nil {
		return err
	}
	if f.Program.Notifies() {
		return unsupported("seccomp.Filter", "some calls are answered by Notify: that needs a supervisor, see package notify")
	}
	if f.Flags&(NewListener|WaitKillable) != 0 {
		return invalid("the flags " + f.Flags.String() + " are for filters with a supervisor, see package notify")
	}
	if err := f.Prepare(p); err != nil {
		return err
	}
	p.Child(plan.Seccomp, f.Call(f.Flags))
	return nil
}

// Prepare does all of Apply but the call itself, for packages that install the program in another way, with a listener.
func (f Filter) Prepare(p *plan.Plan) error {
	if err := f.Err(); err != nil {
		return err
	}
	if f.AllowNewPrivileges {
		p.NeedAdmin()
	} else {
		p.NoNewPrivs()
	}
	if f.Flags != 0 {
		f.probe(p)
	}
	if err := f.follows(p); err != nil {
		return err
	}
	if err := f.Program.launches(); err != nil {
		return err
	}
	p.Late(func() error { return f.Program.launchesWith(p) })
	return nil
}

// probe finds out before the clone what would otherwise be a bare EINVAL.
func (f Filter) probe(p *plan.Plan) {
	p.Before(plan.Action{Name: "look for " + f.Flags.String(), Do: func(*plan.Run) error { return f.missing(f.Flags) }})
}

// Call is the call that installs the program, with the flags.
func (f Filter) Call(flags Flags) plan.Op {
	const pointer = int(unsafe.Sizeof(uintptr(0)))
	var prog [2 * pointer]byte // struct sock_fprog of linux/filter.h
	binary.NativeEndian.PutUint16(prog[:], uint16(f.Program.Len()))
	text := "{" + strconv.Itoa(f.Program.Len()) + " instructions}"
	return plan.Call("seccomp", unix.SYS_SECCOMP, plan.Number(unix.SECCOMP_SET_MODE_FILTER, "SECCOMP_SET_MODE_FILTER"),
		plan.Flags(uint64(flags), flagTable[:]),
		plan.Struct(text, prog[:], plan.Field{Offset: pointer, Arg: plan.Bytes(text, f.Program.bytes)})).
		Hint(syscall.EACCES, hintAccess).Hint(syscall.ENOSYS, hintNone).Hint(syscall.EBUSY, hintBusy)
}

const (
	hintAccess = "without no_new_privs a filter needs CAP_SYS_ADMIN"
	hintNone   = "the kernel has no filters, or an outer filter hides them"
	hintBusy   = "there is a filter with a listener already: the kernel allows one"
)

// Names of what filters claim of a plan.
const (
	closesFilters = "last system call filter"
	closesWrite   = "system call filter without write"
)

// follows looks at the filters before this one: they must let the child install it. With a listener it also writes, to
// say that a descriptor comes.
func (f Filter) follows(p *plan.Plan) error {
	if p.Has(closesFilters) {
		return invalid("a filter before this one forbids seccomp(2): it must come last")
	}
	if f.Program.Notifies() && p.Has(closesWrite) {
		return invalid("a filter before this one forbids write(2), with which the child announces its listener")
	}
	var err error
	if !f.Program.allows("seccomp") {
		err = p.Claim(closesFilters)
	}
	if !f.Program.allows("write") && !p.Has(closesWrite) {
		err = errors.Join(err, p.Claim(closesWrite))
	}
	return err
}

// missing is the error of the flags that the kernel does not know.
func (f Filter) missing(flags Flags) error {
	ok, err := flags.Supported()
	if err == nil && !ok {
		err = unsupported("seccomp", fmt.Sprintf("the kernel does not know one of %v", flags))
	}
	return err
}
