//go:build linux

package caisson

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/sys"
	"github.com/caisson-dev/caisson/plan"
)

// User is the user and the groups of the command (credentials(7)). In a sandbox with a user namespace they are ids
// inside. The zero value is root. Needs CAP_SETUID and CAP_SETGID, which a user namespace gives inside.
type User struct {
	UID, GID    uint32
	Groups      []uint32 // supplementary groups; nil is none
	NoSetGroups bool     // leave the supplementary groups alone, where setgroups(2) is denied (user_namespaces(7))
}

// Apply implements plan.Primitive.
func (u User) Apply(p *plan.Plan) error {
	const none = math.MaxUint32 // (uid_t)-1: setresuid(2) takes it for "leave alone"
	if u.UID == none || u.GID == none || slices.Contains(u.Groups, none) {
		return fmt.Errorf("%d is not an id: %w", uint32(none), syscall.EINVAL)
	}
	if u.NoSetGroups && len(u.Groups) > 0 {
		return fmt.Errorf("groups together with NoSetGroups: %w", syscall.EINVAL)
	}
	if !u.NoSetGroups {
		p.Child(plan.Credentials, u.setgroups())
	}
	p.Child(plan.Credentials,
		plan.Call("setresgid", sys.Setresgid, id(u.GID), id(u.GID), id(u.GID)).Hint(syscall.EINVAL, unmapped),
		plan.Call("setresuid", sys.Setresuid, id(u.UID), id(u.UID), id(u.UID)).Hint(syscall.EINVAL, unmapped).
			Hint(syscall.EAGAIN, "RLIMIT_NPROC of the user is reached"))
	return p.Claim(plan.User)
}

const unmapped = "the id has no place in the user namespace's id map"

// id is a number of 32 bits without a sign, also where an int has no more than 32 bits.
func id(n uint32) plan.Arg { return plan.Number(uint64(n), strconv.FormatUint(uint64(n), 10)) }

func (u User) setgroups() plan.Op {
	list, text := plan.Null(), make([]string, len(u.Groups))
	if len(u.Groups) > 0 {
		b := make([]byte, 0, 4*len(u.Groups))
		for i, g := range u.Groups {
			b, text[i] = binary.NativeEndian.AppendUint32(b, g), strconv.FormatUint(uint64(g), 10)
		}
		list = plan.Bytes("["+strings.Join(text, ", ")+"]", b)
	}
	return plan.Call("setgroups", sys.Setgroups, plan.Int(len(u.Groups)), list).
		Hint(syscall.EPERM, "the user namespace denies setgroups, or CAP_SETGID is missing; User.NoSetGroups leaves the groups alone").
		Hint(syscall.EINVAL, unmapped)
}

// Umask is the file mode creation mask of the command, 0 to 0777 (umask(2)).
type Umask uint32

// Apply implements plan.Primitive.
func (u Umask) Apply(p *plan.Plan) error {
	if u > 0o777 {
		return fmt.Errorf("umask 0%o: %w", uint32(u), syscall.EINVAL)
	}
	p.Child(plan.Directory, plan.Call("umask", unix.SYS_UMASK, plan.Octal(uint32(u))))
	return p.Claim("umask")
}

// Nice is the priority of the command: from -20, the highest, to 19 (setpriority(2)). To raise it above the caller's needs CAP_SYS_NICE or
// RLIMIT_NICE of the caller, also where the sandbox has a user namespace.
type Nice int

// Apply implements plan.Primitive.
func (n Nice) Apply(p *plan.Plan) error {
	if n < -20 || n > 19 {
		return fmt.Errorf("priority %d: %w", int(n), syscall.EINVAL)
	}
	p.While(plan.Action{Name: fmt.Sprintf("setpriority(PRIO_PROCESS, <child>, %d)", int(n)), Each: true, Do: func(r *plan.Run) error {
		return unix.Setpriority(unix.PRIO_PROCESS, r.PID, int(n))
	}})
	return p.Claim("priority")
}

// Affinity is the set of CPUs on which the command may run, counted from 0 (sched_setaffinity(2)).
type Affinity []int

// Apply implements plan.Primitive.
func (a Affinity) Apply(p *plan.Plan) error {
	if len(a) == 0 {
		return fmt.Errorf("Affinity needs a CPU: %w", syscall.EINVAL)
	}
	var set unix.CPUSet
	text := make([]string, len(a))
	for i, cpu := range a {
		if cpu < 0 || cpu >= len(set)*strconv.IntSize {
			return fmt.Errorf("CPU %d: %w", cpu, syscall.EINVAL)
		}
		set.Set(cpu)
		text[i] = strconv.Itoa(cpu)
	}
	var b []byte
	for _, w := range set {
		if strconv.IntSize == 32 {
			b = binary.NativeEndian.AppendUint32(b, uint32(w))
		} else {
			b = binary.NativeEndian.AppendUint64(b, uint64(w))
		}
	}
	p.Child(plan.Limits, plan.Call("sched_setaffinity", unix.SYS_SCHED_SETAFFINITY, plan.Int(0), plan.Int(len(b)),
		plan.Bytes("["+strings.Join(text, ", ")+"]", b)).
		Hint(syscall.EINVAL, "none of the CPUs is online, or the cpuset of the control group excludes them"))
	return p.Claim("affinity")
}

// Session makes the command the leader of a new session (setsid(2)): no terminal of the caller's controls it, and it can push no
// input into one (TIOCSTI).
type Session struct {
	Terminal   bool // descriptor Descriptor is a terminal and becomes the controlling one (TIOCSCTTY, tty_ioctl(4))
	Descriptor int  // of the command; 0 is its standard input
}

// Apply implements plan.Primitive.
func (s Session) Apply(p *plan.Plan) error {
	if s.Descriptor < 0 {
		return fmt.Errorf("descriptor %d: %w", s.Descriptor, syscall.EINVAL)
	}
	p.Child(plan.Files, plan.Call("setsid", unix.SYS_SETSID))
	if s.Terminal {
		if err := p.Claim(plan.Terminal); err != nil {
			return err
		}
		p.Child(plan.Files, plan.Call("ioctl", unix.SYS_IOCTL, plan.Int(s.Descriptor), plan.Number(unix.TIOCSCTTY, "TIOCSCTTY"), plan.Int(0)).
			Hint(syscall.EPERM, "the terminal controls another session already").
			Hint(syscall.ENOTTY, "the descriptor is not a terminal"))
	}
	return p.Claim(session)
}

// DieWithParent kills the command with SIGKILL when the calling process ends, however it ends (PR_SET_PDEATHSIG, prctl(2)). With a pid
// namespace everything inside dies. One thread of the caller is kept for as long as the command runs: the kernel watches the thread, not the process. A command that
// is set-user-ID or has file capabilities escapes it, unless the sandbox has a pid namespace and an Init.
type DieWithParent struct{}

// Apply implements plan.Primitive.
func (DieWithParent) Apply(p *plan.Plan) error {
	p.DieWithParent()
	return nil
}

// Init runs a tiny init process as PID 1 of the sandbox, which starts the command, forwards signals to it, waits for
// processes that have lost their parent, and ends when the command does. The sandbox needs a pid namespace. amd64 and arm64.
type Init struct{}

// Apply implements plan.Primitive.
func (Init) Apply(p *plan.Plan) error {
	p.Late(func() error {
		if p.Cloned()&unix.CLONE_NEWPID == 0 {
			return fmt.Errorf("Init needs a new pid namespace: %w", syscall.EINVAL)
		}
		return nil
	})
	return p.Claim(plan.InitProg)
}
