//go:build linux

package caisson

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// Unlimited is no limit (RLIM_INFINITY).
const Unlimited uint64 = math.MaxUint64

// Resource is what an [Rlimit] limits (getrlimit(2)).
type Resource int

// The resources, with the unit of their limits.
const (
	RlimitAS         Resource = unix.RLIMIT_AS         // address space, bytes
	RlimitCore       Resource = unix.RLIMIT_CORE       // core file, bytes
	RlimitCPU        Resource = unix.RLIMIT_CPU        // CPU time, seconds
	RlimitData       Resource = unix.RLIMIT_DATA       // data segment, bytes
	RlimitFSize      Resource = unix.RLIMIT_FSIZE      // one file, bytes
	RlimitLocks      Resource = unix.RLIMIT_LOCKS      // file locks; without effect since Linux 2.4
	RlimitMemlock    Resource = unix.RLIMIT_MEMLOCK    // locked memory, bytes
	RlimitMsgqueue   Resource = unix.RLIMIT_MSGQUEUE   // POSIX message queues of the user, bytes
	RlimitNice       Resource = unix.RLIMIT_NICE       // highest priority, as 20 - nice
	RlimitNofile     Resource = unix.RLIMIT_NOFILE     // one more than the highest descriptor
	RlimitNproc      Resource = unix.RLIMIT_NPROC      // processes of the user
	RlimitRSS        Resource = unix.RLIMIT_RSS        // resident set, bytes; without effect since Linux 2.4.30
	RlimitRtprio     Resource = unix.RLIMIT_RTPRIO     // real-time priority
	RlimitRttime     Resource = unix.RLIMIT_RTTIME     // CPU time of real-time processes between blocking calls, microseconds
	RlimitSigpending Resource = unix.RLIMIT_SIGPENDING // queued signals of the user
	RlimitStack      Resource = unix.RLIMIT_STACK      // stack of the first thread, bytes
)

var resources = map[string]Resource{"as": RlimitAS, "core": RlimitCore, "cpu": RlimitCPU, "data": RlimitData, "fsize": RlimitFSize,
	"locks": RlimitLocks, "memlock": RlimitMemlock, "msgqueue": RlimitMsgqueue, "nice": RlimitNice, "nofile": RlimitNofile,
	"nproc": RlimitNproc, "rss": RlimitRSS, "rtprio": RlimitRtprio, "rttime": RlimitRttime, "sigpending": RlimitSigpending, "stack": RlimitStack}

// String gives the name in lower case, as docker run --ulimit takes it.
func (r Resource) String() string {
	for name, v := range resources {
		if v == r {
			return name
		}
	}
	return "resource " + strconv.Itoa(int(r))
}

// Rlimit is a resource limit of the command. To set Hard above the caller's own needs CAP_SYS_RESOURCE of the caller. Without an Rlimit the command has
// the caller's limits; RLIMIT_NOFILE as it was before the Go runtime raised it.
type Rlimit struct {
	Resource   Resource
	Soft, Hard uint64 // in the unit of the resource; Unlimited for none
}

// ParseRlimit reads a limit as docker run --ulimit takes it: "nofile=1024", "nofile=1024:2048", "core=-1".
func ParseRlimit(s string) (Rlimit, error) {
	name, value, ok := strings.Cut(s, "=")
	resource, known := resources[name]
	if !ok || !known {
		return Rlimit{}, fmt.Errorf("limit %q: want a resource, =, and one or two numbers: %w", s, syscall.EINVAL)
	}
	soft, hard, both := strings.Cut(value, ":")
	if !both {
		hard = soft
	}
	l := Rlimit{Resource: resource}
	var err error
	if l.Soft, err = parseLimit(soft); err == nil {
		l.Hard, err = parseLimit(hard)
	}
	if err != nil {
		return Rlimit{}, fmt.Errorf("limit %q: %w", s, err)
	}
	if err := l.check(); err != nil {
		return Rlimit{}, err
	}
	return l, nil
}

func parseLimit(s string) (uint64, error) {
	if s == "-1" || s == "unlimited" {
		return Unlimited, nil
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || s != strconv.FormatUint(n, 10) {
		return 0, fmt.Errorf("%q is not a number: %w", s, syscall.EINVAL)
	}
	return n, nil
}

func (l Rlimit) check() error {
	switch {
	case l.Resource < 0 || l.Resource > unix.RLIMIT_RTTIME:
		return fmt.Errorf("%v: %w", l.Resource, syscall.EINVAL)
	case l.Soft > l.Hard:
		return fmt.Errorf("limit %v: the soft limit %s is above the hard limit %s: %w", l.Resource, limitText(l.Soft), limitText(l.Hard), syscall.EINVAL)
	}
	return nil
}

func limitText(n uint64) string {
	if n == Unlimited {
		return "RLIM_INFINITY"
	}
	return strconv.FormatUint(n, 10)
}

// Apply implements plan.Primitive.
func (l Rlimit) Apply(p *plan.Plan) error {
	if err := l.check(); err != nil {
		return err
	}
	if err := p.Claim("rlimit " + strings.ToUpper(l.Resource.String())); err != nil {
		return err
	}
	// In a user namespace the child has no right of the host's to raise a limit; the parent may have it.
	p.Late(func() error {
		if (p.Cloned()|p.Joined())&unix.CLONE_NEWUSER != 0 && l.raises() {
			p.While(l.byParent())
			return nil
		}
		p.Child(plan.Limits, l.byChild())
		return nil
	})
	return nil
}

func (l Rlimit) raises() bool {
	var now unix.Rlimit
	err := unix.Getrlimit(int(l.Resource), &now)
	return err == nil && l.Hard > now.Max
}

const raiseHint = "to raise a hard limit needs CAP_SYS_RESOURCE"

func (l Rlimit) byParent() plan.Action {
	return plan.Action{Name: fmt.Sprintf("prlimit(<child>, %v, {%s, %s})", l.name(), limitText(l.Soft), limitText(l.Hard)), Each: true,
		Do: func(r *plan.Run) error {
			if err := unix.Prlimit(r.PID, int(l.Resource), &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil); err != nil {
				return fmt.Errorf("%w (%s)", err, raiseHint)
			}
			return nil
		}}
}

func (l Rlimit) name() string { return "RLIMIT_" + strings.ToUpper(l.Resource.String()) }

func (l Rlimit) byChild() plan.Op {
	b := binary.NativeEndian.AppendUint64(nil, l.Soft)
	b = binary.NativeEndian.AppendUint64(b, l.Hard)
	return plan.Call("prlimit64", unix.SYS_PRLIMIT64, plan.Int(0), plan.Number(uint64(l.Resource), l.name()),
		plan.Bytes("{"+limitText(l.Soft)+", "+limitText(l.Hard)+"}", b), plan.Null()).Hint(syscall.EPERM, raiseHint)
}
