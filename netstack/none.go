//go:build linux

package netstack

import (
	"errors"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// Loopback gives the sandbox a network of its own with a loopback interface that is up: 127.0.0.1 and ::1, and nothing else. Every other part that makes a network does so, too. It needs
// what a new network namespace needs: CAP_SYS_ADMIN, or a user namespace in the same sandbox.
type Loopback struct{}

// Apply asks for the namespace and the interface.
func (Loopback) Apply(p *plan.Plan) error {
	p.Clone(unix.CLONE_NEWNET)
	p.Late(func() error { return loopback(p) })
	return nil
}

// None is a network of the sandbox's own in which nothing can be reached but the sandbox itself, over [Loopback]. Together with a part that gives the sandbox a device it is an error.
type None struct{}

// Apply asks for the namespace.
func (None) Apply(p *plan.Plan) error {
	if err := only(p); err != nil {
		return err
	}
	return Loopback{}.Apply(p)
}

// Host says that the sandbox shares the caller's network: its devices, addresses and ports, and its abstract unix sockets. Together with a part that makes or joins a network it is
// an error. It isolates nothing.
type Host struct{}

// Apply sees to it that no other part makes a network.
func (Host) Apply(p *plan.Plan) error {
	if err := only(p); err != nil {
		return err
	}
	p.Late(func() error {
		if (p.Cloned()|p.Joined())&unix.CLONE_NEWNET != 0 {
			return &plan.ConflictError{What: networkClaim, First: "netstack.Host", Second: "a part that makes or joins a network namespace"}
		}
		return nil
	})
	return nil
}

// Join gives the sandbox the network of another one, as containers of a pod have it: exactly one of PID, PIDFD and File says where it is. Both see all of it, also what is bound to loopback.
//
// It needs CAP_SYS_ADMIN in the user namespace that owns the network namespace, and in the own one. Most callers should join by PIDFD or File: who has a PID may be another process by
// the time of the start.
type Join struct {
	PID   int      // the network of this process in the caller's pid namespace
	PIDFD *os.File // the network of the process behind this descriptor (pidfd_open(2)); Linux 5.8
	File  *os.File // an open network namespace; it must stay open until the last start
}

// Apply asks for the namespace to be entered.
func (j Join) Apply(p *plan.Plan) error {
	given := 0
	for _, is := range []bool{j.PID != 0, j.PIDFD != nil, j.File != nil} {
		if is {
			given++
		}
	}
	if given != 1 || j.PID < 0 {
		return &ValueError{"Join", strconv.Itoa(j.PID), "exactly one of PID, PIDFD and File must be given"}
	}
	if err := only(p); err != nil {
		return err
	}
	f := p.Open(j.text()+" as network", j.open)
	enterNetwork(p, f)
	return nil
}

// enterNetwork has the child enter the namespace behind f.
func enterNetwork(p *plan.Plan, f plan.File) {
	p.Join(unix.CLONE_NEWNET, enterCall(f))
}

// enterCall enters the namespace behind f.
func enterCall(f plan.File) plan.Op {
	return plan.Call("setns", unix.SYS_SETNS, plan.FD(f), plan.Namespaces(unix.CLONE_NEWNET)).
		Hint(syscall.EPERM, "needs CAP_SYS_ADMIN in the user namespace that owns the network, and in the own one").
		Hint(syscall.ESRCH, "the process has ended").
		Hint(syscall.EINVAL, "not a network namespace")
}

func (j Join) text() string {
	switch {
	case j.PIDFD != nil:
		return "network of process " + strconv.Quote(j.PIDFD.Name())
	case j.File != nil:
		return "network " + strconv.Quote(j.File.Name())
	}
	return "network of process " + strconv.Itoa(j.PID)
}

func (j Join) open(*plan.Run) (*os.File, error) {
	if j.PID != 0 {
		fd, err := unix.PidfdOpen(j.PID, 0)
		if err != nil {
			return nil, &Error{Op: "open process " + strconv.Itoa(j.PID), Err: err}
		}
		return os.NewFile(uintptr(fd), "pidfd"), nil
	}
	f := j.PIDFD
	if f == nil {
		f = j.File
	}
	return duplicate(f)
}

func duplicate(f *os.File) (*os.File, error) {
	c, err := f.SyscallConn()
	if err != nil {
		return nil, &Error{Op: "duplicate " + f.Name(), Err: err}
	}
	fd := -1
	e := c.Control(func(n uintptr) { fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(e, err); err != nil {
		return nil, &Error{Op: "duplicate " + f.Name(), Err: err}
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
