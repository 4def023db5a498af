//go:build linux

package namespaces

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/sys"
	"github.com/caisson-dev/caisson/plan"
)

// Join enters namespaces that exist, instead of making new ones (setns(2)). Exactly one of PID, PIDFD, Path and File
// says where they are. The zero value is an error.
//
// A namespace in which the caller is already is passed over. Joining the same kind twice, and joining a kind that the
// sandbox also makes, is an error. A user namespace is joined before the others. A new namespace of the sandbox is made
// inside the joined ones.
//
// It needs CAP_SYS_ADMIN in the user namespace that owns each joined one, and in the caller's own or the joined one; a
// mount namespace needs CAP_SYS_CHROOT there, too. Who made a user namespace may enter it, and all that it owns,
// without privilege. First kernel: 3.8; for a time namespace 5.6, and the start then takes the slower way, with a copy
// of the host's memory.
//
// Most callers should join by PIDFD or File: the process that has a PID may be another one by the time of the start.
type Join struct {
	// Kinds are what is joined. 0 stands for all namespaces of a process, or for the one that is at Path or in File:
	// the kernel tells the kind when the plan is made. Path and File are one kind.
	Kinds Set

	PID   int      // the namespaces of this process in the caller's pid namespace
	PIDFD *os.File // the namespaces of the process behind this descriptor (pidfd_open(2), Linux 5.3)
	Path  string   // a namespace file: /run/netns/blue, /proc/4242/ns/net; opened at each start
	File  *os.File // an open namespace file; it must stay open until the last start

	// KeepIDs keeps the user, the group and the supplementary groups as a user namespace is joined. Without it the
	// command is user and group 0 in it, if 0 is mapped there, and has no supplementary groups, if it may drop them, as
	// with nsenter(1).
	KeepIDs bool
}

// claim is how a conflict over a joined namespace is named.
func (s Set) claim() string { return s.kind().name + " namespace" }

// Apply asks for the namespaces to be joined.
func (j Join) Apply(p *plan.Plan) error {
	if err := j.check(); err != nil {
		return err
	}
	asked, joined, err := j.resolve()
	if err != nil {
		return err
	}
	for k := range asked.Each() {
		if err := p.Claim(k.claim()); err != nil {
			return err
		}
	}
	p.Late(func() error { return notMade(p, asked) })
	if joined != 0 {
		j.record(p, joined)
	}
	return nil
}

func (j Join) check() error {
	n := 0
	for _, given := range []bool{j.PID != 0, j.PIDFD != nil, j.Path != "", j.File != nil} {
		if given {
			n++
		}
	}
	switch {
	case n != 1:
		return invalid("join", "exactly one of PID, PIDFD, Path and File must be given")
	case j.PID < 0:
		return invalid("join", fmt.Sprintf("%d is no process", j.PID))
	case j.Kinds != 0 && !j.process() && !j.Kinds.single() && j.Kinds.check() == nil:
		return invalid("join", fmt.Sprintf("one file cannot be %v", j.Kinds))
	}
	return j.Kinds.check()
}

func (j Join) process() bool { return j.PID != 0 || j.PIDFD != nil }

// resolve finds out which kinds are asked for, and those of them in which the caller is not yet.
func (j Join) resolve() (asked, joined Set, err error) {
	if !j.process() {
		return j.resolveFile()
	}
	pid := j.PID
	if j.PIDFD != nil {
		if pid, err = pidOf(j.PIDFD); err != nil {
			return 0, 0, err
		}
	}
	if asked = j.Kinds; asked == 0 {
		asked = available()
	}
	for k := range asked.Each() {
		if there, err := pathID(processFile(pid, k)); err == nil && isOurs(k, there) {
			continue
		} else if err != nil && plan.Errno(err) != syscall.EACCES { // without the right to look, joining tells
			return 0, 0, err
		}
		joined |= k
	}
	return asked, joined, nil
}

// available are the kinds that this kernel has.
func available() (s Set) {
	for k := range All.Each() {
		if _, err := pathID(processFile(0, k)); err == nil {
			s |= k
		}
	}
	return s
}

// isOurs reports whether the calling thread is in the namespace.
func isOurs(k Set, id ID) bool {
	ours, err := pathID(processFile(0, k))
	return err == nil && ours == id
}

func (j Join) resolveFile() (asked, joined Set, err error) {
	f := j.File
	if f == nil {
		if j.Kinds != 0 {
			return j.Kinds, j.Kinds, nil
		}
		if f, err = openNamespace(j.Path); err != nil {
			return 0, 0, err
		}
		defer f.Close()
	}
	if asked, err = kindOf(f); err != nil {
		return 0, 0, err
	}
	if err := sameKind(f.Name(), asked, j.Kinds); err != nil {
		return 0, 0, err
	}
	if id, err := idOf(f); err != nil || isOurs(asked, id) {
		return asked, 0, err
	}
	return asked, asked, nil
}

func sameKind(name string, is, want Set) error {
	if want != 0 && is != want {
		return invalid("join "+name, fmt.Sprintf("this is a %s namespace, not a %s namespace", is, want))
	}
	return nil
}

// notMade refuses to join what the sandbox makes, also where the plan itself would not notice because nothing is to be
// joined.
func notMade(p *plan.Plan, asked Set) error {
	if both := asked & Set(p.Cloned()); both != 0 {
		return invalid("join", fmt.Sprintf("%v: made anew and joined", both))
	}
	return nil
}

// record puts the calls into the plan: those that enter a user namespace at once, the others after all of those.
func (j Join) record(p *plan.Plan, joined Set) {
	ops := j.calls(p, joined)
	p.Join(uint64(joined))
	if joined.Has(User) {
		p.Child(plan.Join, ops...)
		p.Late(func() error {
			j.becomeRoot(p)
			return nil
		})
		return
	}
	p.Late(func() error {
		p.Child(plan.Join, ops...)
		return nil
	})
}

// calls enter the namespaces: those of a process in one call, or one by one before Linux 5.8.
func (j Join) calls(p *plan.Plan, joined Set) (ops []plan.Op) {
	if !j.process() {
		return []plan.Op{setns(p.Open(fmt.Sprintf("%s as %s", j.name(), joined.claim()), j.openFile(joined)), joined)}
	}
	if setnsTakesPIDFD() {
		return []plan.Op{setns(p.Open(j.name()+" as process", j.openProcess), joined)}
	}
	for k := range joined.Each() {
		ops = append(ops, setns(p.Open(fmt.Sprintf("%s of %s as %s", k.kind().file, j.name(), k.claim()), j.openOne(k)), k))
	}
	return ops
}

func setns(f plan.File, joined Set) plan.Op {
	return plan.Call("setns", unix.SYS_SETNS, plan.FD(f), plan.Namespaces(uint64(joined))).
		Hint(syscall.EPERM, "needs CAP_SYS_ADMIN in the user namespace that owns the namespace, and in the own or the joined one").
		Hint(syscall.ESRCH, "the process has ended").
		Hint(syscall.EINVAL, "the caller is in this user namespace already, or the pid namespace is not below its own").
		Hint(syscall.EUSERS, "a time namespace cannot be joined by a process that shares memory")
}

func (j Join) name() string {
	switch {
	case j.PID != 0:
		return fmt.Sprintf("pidfd of process %d", j.PID)
	case j.PIDFD != nil:
		return strconv.Quote(j.PIDFD.Name())
	case j.File != nil:
		return strconv.Quote(j.File.Name())
	}
	return strconv.Quote(j.Path)
}

func (j Join) openFile(k Set) func(*plan.Run) (*os.File, error) {
	return func(*plan.Run) (f *os.File, err error) {
		if j.File != nil {
			f, err = duplicate(j.File)
		} else {
			f, err = openNamespace(j.Path)
		}
		if err != nil {
			return nil, err
		}
		is, err := kindOf(f)
		if err == nil {
			err = sameKind(f.Name(), is, k)
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		return f, nil
	}
}

func (j Join) openProcess(*plan.Run) (*os.File, error) {
	if j.PIDFD != nil {
		return duplicate(j.PIDFD)
	}
	fd, err := unix.PidfdOpen(j.PID, 0)
	if err != nil {
		return nil, fail(err, "pidfd_open(%d)", j.PID)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// openOne opens one namespace file of a process. Behind a pidfd it is still the same process afterwards.
func (j Join) openOne(k Set) func(*plan.Run) (*os.File, error) {
	return func(*plan.Run) (f *os.File, err error) {
		pid := j.PID
		if j.PIDFD != nil {
			if pid, err = pidOf(j.PIDFD); err != nil {
				return nil, err
			}
		}
		if f, err = openNamespace(processFile(pid, k)); err != nil || j.PIDFD == nil {
			return f, err
		}
		if err := unix.PidfdSendSignal(int(j.PIDFD.Fd()), 0, nil, 0); err == syscall.ESRCH {
			f.Close()
			return nil, fail(err, "join process %d", pid)
		}
		return f, nil
	}
}

// setnsTakesPIDFD asks the kernel whether setns(2) knows descriptors of processes (Linux 5.8): it enters the uts
// namespace in which it is already. One that does not know them answers EINVAL, whoever asks.
func setnsTakesPIDFD() bool {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Setns(fd, unix.CLONE_NEWUTS) != syscall.EINVAL
}

// pidOf gives the process behind a pidfd, in the pid namespace of /proc.
func pidOf(pidfd *os.File) (int, error) {
	f, err := os.Open(fmt.Sprintf("/proc/self/fdinfo/%d", pidfd.Fd()))
	if err != nil {
		return 0, fail(plan.Errno(err), "read fdinfo of %s", pidfd.Name())
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "Pid:"); ok {
			return seenPID(strings.TrimSpace(value))
		}
	}
	return 0, invalid("join "+pidfd.Name(), "not a pidfd")
}

func seenPID(text string) (int, error) {
	switch pid, err := strconv.Atoi(text); {
	case err != nil || pid < 0:
		return 0, fail(syscall.ESRCH, "join: the process has ended")
	case pid == 0:
		return 0, invalid("join", "the process is in none of our pid namespaces")
	default:
		return pid, nil
	}
}

// becomeRoot makes the child user 0 of the user namespace that it has joined, where there is one. A command in a running
// sandbox takes up the ids of that sandbox instead.
func (j Join) becomeRoot(p *plan.Plan) {
	if j.KeepIDs || p.Has(plan.IDMap) {
		return
	}
	zero := idArg(0)
	p.Child(plan.Users,
		plan.Call("setgroups", sys.Setgroups, plan.Int(0), plan.Null()).Tolerate(syscall.EPERM), // where the namespace denies it
		plan.Call("setresgid", sys.Setresgid, zero, zero, zero).Tolerate(syscall.EINVAL),        // where 0 is not mapped
		plan.Call("setresuid", sys.Setresuid, zero, zero, zero).Tolerate(syscall.EINVAL))
}
