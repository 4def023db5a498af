//go:build linux

package namespaces

import (
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// TimeOffsets are added to the caller's clocks inside a new time namespace (time_namespaces(7), Linux 5.6), for which it
// asks. Negative ones turn a clock back; a clock that would be below zero or beyond some 146 years is an error of the
// start, with ERANGE. The wall clock, CLOCK_REALTIME, has no offset.
//
// It needs CAP_SYS_ADMIN and CAP_SYS_TIME, or [User] in the same sandbox.
type TimeOffsets struct {
	Monotonic time.Duration // CLOCK_MONOTONIC; 0: as the caller's
	Boottime  time.Duration // CLOCK_BOOTTIME, and with it /proc/uptime; 0: as the caller's
}

// Apply asks for a time namespace with these offsets.
func (o TimeOffsets) Apply(p *plan.Plan) error {
	if err := p.Claim("time offsets"); err != nil {
		return err
	}
	p.Clone(unix.CLONE_NEWTIME)
	if o != (TimeOffsets{}) {
		text, fd := o.text(), p.Slot()
		p.Child(plan.Users,
			plan.Call("openat", unix.SYS_OPENAT, plan.FD(procFile(p)), plan.Str("self/timens_offsets"), openFlags(unix.O_WRONLY), plan.Int(0)).Save(fd).Once().
				Hint(syscall.EACCES, "the host process is not dumpable, PR_SET_DUMPABLE, or joins a namespace in the same sandbox").
				Hint(syscall.ENOENT, "time namespaces need Linux 5.6"),
			plan.Call("write", unix.SYS_WRITE, plan.Saved(fd), plan.Str(text), plan.Int(len(text))).Once().
				Hint(syscall.ERANGE, "the clock would be below zero or too far in the future"))
	}
	p.Late(func() error {
		enterTime(p)
		return nil
	})
	return nil
}

// text is what is written to /proc/PID/timens_offsets: the nanoseconds are never negative, -1.5s is -2s and 0.5s.
func (o TimeOffsets) text() string {
	line := func(clock string, d time.Duration) string {
		s, ns := d/time.Second, d%time.Second
		if ns < 0 {
			s, ns = s-1, ns+time.Second
		}
		return fmt.Sprintf("%s %d %d\n", clock, s, ns)
	}
	return line("monotonic", o.Monotonic) + line("boottime", o.Boottime)
}

// enterTime makes the child itself enter the time namespace that it has made for its children. Since Linux 6.2 execve
// does so; before, the child has memory of its own and enters by setns(2), which answers EUSERS to one that shares its
// memory.
func enterTime(p *plan.Plan) {
	const entered = "entry into the time namespace"
	if p.Has(entered) {
		return
	}
	p.Claim(entered)
	fd := p.Slot()
	p.Child(plan.Sources,
		plan.Call("openat", unix.SYS_OPENAT, plan.FD(procFile(p)), plan.Str("self/ns/time_for_children"), openFlags(unix.O_RDONLY), plan.Int(0)).Save(fd),
		plan.Call("setns", unix.SYS_SETNS, plan.Saved(fd), plan.Namespaces(uint64(Time))).Tolerate(syscall.EUSERS))
}

func openFlags(flags uint64) plan.Arg {
	const access = unix.O_WRONLY | unix.O_RDWR
	name := "O_RDONLY"
	if flags&access == unix.O_WRONLY {
		name = "O_WRONLY"
	}
	return plan.Number(flags|unix.O_CLOEXEC, name+"|O_CLOEXEC")
}
