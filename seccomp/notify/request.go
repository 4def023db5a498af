//go:build linux

package notify

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/seccomp"
)

// Request is a call that waits for its answer.
//
// What it holds by value (Arch, NR, Args) is what the kernel will use. What its methods read from the target's memory is not: see
// [Continue]. Each method looks afterwards whether the call still waits, and gives [ErrGone] if not: the number PID may
// be another's by then.
type Request struct {
	PID   int          // thread that made the call, in our pid namespace; 0 if it is not in ours or below
	Arch  seccomp.Arch // 0 if package seccomp does not know it
	Token uint32       // AUDIT_ARCH_..., as the kernel says it
	NR    int          // number of the call, as filters see it
	IP    uint64       // address of the instruction after the call
	Args  [6]uint64    // as the kernel has them: where the call takes an int, the upper half may be anything

	id       uint64
	listener *Listener
}

func newRequest(l *Listener, n *notification) *Request {
	arch, _ := seccomp.ArchOf(n.data.arch, int(n.data.nr))
	return &Request{PID: int(n.pid), Arch: arch, Token: n.data.arch, NR: int(n.data.nr), IP: n.data.ip, Args: n.data.args, id: n.id, listener: l}
}

// Name is the name of the call, or "" if package seccomp does not know it.
func (r *Request) Name() string {
	name, _ := r.Arch.Name(r.NR)
	return name
}

func (r *Request) archText() string {
	if r.Arch == 0 {
		return fmt.Sprintf("%#x", r.Token)
	}
	return r.Arch.String()
}

// Valid gives nil as long as the call waits, and else [ErrGone].
func (r *Request) Valid() error { return r.listener.waits(r.id) }

// confirmed gives err, or ErrGone if the target is not there any more: then err is about somebody else.
func (r *Request) confirmed(err error) error {
	if gone := r.Valid(); gone != nil {
		return gone
	}
	return err
}

// proc is a file of the thread's in /proc.
func (r *Request) proc(name string) string { return "/proc/" + strconv.Itoa(r.PID) + "/" + name }

// File gives a copy of the target's descriptor fd: the same open file, of which position and flags are shared
// (pidfd_getfd(2)). It is the caller's to close. Needs the right to trace the target (ptrace(2), PTRACE_MODE_ATTACH_REALCREDS), which who
// started it as the same user has. First kernel: 5.6; before 6.9 a thread with descriptors of its own is an error with
// errors.ErrUnsupported.
func (r *Request) File(fd int) (*os.File, error) {
	pidfd, err := r.pidfd()
	if err != nil {
		return nil, err
	}
	defer unix.Close(pidfd)
	own, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return nil, r.confirmed(&Error{Op: fmt.Sprintf("pidfd_getfd(%d) of %d", fd, r.PID), Err: err, Hint: hintFor(err, syscall.EPERM, notTraced)})
	}
	return os.NewFile(uintptr(own), "descriptor "+strconv.Itoa(fd)), nil
}

const notTraced = "needs the right to trace the target: the same user, or CAP_SYS_PTRACE in its user namespace"

// pidfd gives a handle of the target, whose descriptors are the calling thread's.
func (r *Request) pidfd() (int, error) {
	fd, err := unix.PidfdOpen(r.PID, 0)
	if err == syscall.EINVAL || err == syscall.ENOENT { // not the first thread of its process
		const thread = unix.O_EXCL // PIDFD_THREAD, Linux 6.9
		if fd, err = unix.PidfdOpen(r.PID, thread); err == syscall.EINVAL {
			fd, err = r.pidfdOfLeader()
		}
	}
	if err != nil {
		return 0, r.confirmed(fail(err, "pidfd_open(%d)", r.PID))
	}
	if err := r.Valid(); err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

// pidfdOfLeader gives a handle of the process, if its threads share their descriptors.
func (r *Request) pidfdOfLeader() (int, error) {
	leader, err := r.leader()
	if err != nil {
		return 0, err
	}
	const files = 2 // KCMP_FILES
	if same, _, e := unix.Syscall6(unix.SYS_KCMP, uintptr(r.PID), uintptr(leader), files, 0, 0, 0); e != 0 || same != 0 {
		return 0, unsupported("descriptors of a thread", "a thread that does not share its process's descriptors: needs Linux 6.9")
	}
	return unix.PidfdOpen(leader, 0)
}

// leader is the thread whose number is the process's.
func (r *Request) leader() (int, error) {
	status, err := readStatus(r.PID)
	if err != nil {
		return 0, err
	}
	return status["Tgid"], nil
}

// readStatus reads the numbers in /proc/PID/status.
func readStatus(pid int) (map[string]int, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return nil, err
	}
	status := map[string]int{}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		if n, err := strconv.Atoi(strings.TrimSpace(value)); err == nil {
			status[name] = n
		}
	}
	return status, nil
}
