//go:build linux

package launch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/initprog"
	"github.com/caisson-dev/caisson/internal/sys"
	"github.com/caisson-dev/caisson/plan"
)

// Until it has executed the command, the child's /proc/self/exe is the host's binary. A script whose first line is #!/proc/self/exe
// has the kernel execute that binary inside the sandbox, where someone may keep it open and write to it once the host has ended
// (CVE-2019-5736). So, in a sandbox with a root of its own:
//
//   - the child looks whether the program begins with #!, before filters are installed. If so, the start is made once
//     more, and the program executed by way of our sealed init program, which is then what /proc/self/exe means;
//   - a command that joins others, who may change the program while we look at it, goes that way at once;
//   - afterwards the parent looks which binary runs, and kills the child if it is the host's, from the host's mount.

// errScript says that the child has found a script, or a program that it could not look at.
var errScript = errors.New("script")

// scriptErrno reports errScript. No errno of the kernel's is as large.
const scriptErrno = 1 << 20

// exposed reports whether the program to be executed may be chosen by somebody else than the caller.
func (s *start) exposed() bool { return s.plan.Has(plan.RootDir) || s.joinsOthers() }

// helped reports whether the command is executed by our own program.
func (s *start) helped() bool { return s.cmd.Init || s.detour }

// foresee chooses the detour where it will be needed anyhow.
func (s *start) foresee() {
	s.detour = !s.cmd.Init && initprog.Supported() && s.exposed() && (s.joinsOthers() || s.blind() || s.guess())
}

// guess looks at the host's files of the same names, unless a start of the plan has just found that it is no script.
func (s *start) guess() bool {
	return !slices.Equal(s.cmd.Candidates, s.plain) && looksLikeScript(s.cmd.Candidates)
}

// looksLikeScript is a guess that saves a second start, no more.
func looksLikeScript(candidates []string) bool {
	for _, name := range candidates {
		var st unix.Stat_t
		if unix.Stat(name, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG { // a name of the sandbox's may be a device here
			continue
		}
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		if err != nil {
			continue
		}
		defer unix.Close(fd)
		b := make([]byte, 2)
		n, err := unix.Read(fd, b)
		return err == nil && n == 2 && string(b) == "#!"
	}
	return false
}

// inspect lets the child look at the program.
func (s *start) inspect(p *program) {
	if p.inspected || s.helped() || !s.exposed() || !initprog.Supported() {
		return
	}
	p.inspected = true
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK, Resolve: unix.RESOLVE_NO_MAGICLINKS}
	size := unsafe.Sizeof(how)
	at, _ := p.mem.Copy(unsafe.Slice((*byte)(unsafe.Pointer(&how)), size))
	for _, path := range s.cmd.Candidates {
		p.special(s.stepOf(plan.StepExec), sys.Inspect, unix.SYS_OPENAT2, atFDCWD, p.mem.String(path), at, size)
	}
}

const atFDCWD = ^uintptr(99) // -100

// verify returns when the child has left our memory, and kills it where it then executes the host's binary as the host sees it. A copy of the binary,
// or the same file through a mount of the sandbox's own, is the caller's choice, and without a root of its own any.
//
// Execve lets us go on before the child has left the memory, and until it has, its binary is ours and whoever traces it reads us. What
// tells is its name, which it has given itself and execve changes afterwards. A new time namespace, too, is entered between: whoever joined the command at once would miss it.
func (s *start) verify(pid int) error {
	if !s.looks() {
		return nil
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Microsecond) {
		ours, err := executesUs(pid)
		if err == nil && !ours || err == unix.ENOENT || err == unix.ESRCH { // it has ended
			return nil
		}
		if name := comm(pid); name != "" && name != s.prog.name {
			return s.verdict(pid)
		}
		if time.Now().After(end) {
			return s.failed(s.stepOf(plan.StepExec), errSelf)
		}
	}
}

// looks reports whether what the child executes has to be looked at: by us or by an action that comes after.
func (s *start) looks() bool {
	return !s.helped() && (s.entered || s.plan.Has(plan.RootDir) || len(s.plan.AfterSteps()) > 0 || s.plan.Cloned()&unix.CLONE_NEWTIME != 0)
}

// verdict looks at what runs in memory of its own.
func (s *start) verdict(pid int) error {
	if !s.plan.Has(plan.RootDir) {
		return nil
	}
	switch ours, err := executesUs(pid); {
	case ours:
		return s.failed(s.stepOf(plan.StepExec), errSelf)
	case err == unix.EACCES || err == unix.EPERM:
		return s.failed(s.stepOf(plan.StepExec), errUnseen)
	}
	return nil
}

// comm is the name of a process, which anyone may read; "" when it has ended.
func comm(pid int) string {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	return strings.TrimSuffix(string(b), "\n")
}

// blind reports whether we may not see what the child executes once it has another user: then our own program executes it.
func (s *start) blind() bool {
	return s.plan.Cloned()&unix.CLONE_NEWUSER == 0 && s.calls(userCalls...) && !effective(unix.CAP_SYS_PTRACE)
}

// capabilities gives the effective and the permitted set of the calling thread.
func capabilities() (effective, permitted uint64) {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if unix.Capget(&h, &d[0]) != nil {
		return 0, 0
	}
	return uint64(d[0].Effective) | uint64(d[1].Effective)<<32, uint64(d[0].Permitted) | uint64(d[1].Permitted)<<32
}

func effective(c int) bool {
	e, _ := capabilities()
	return e&(1<<c) != 0
}

// exeWanted is what tells two executed files apart.
const exeWanted = unix.STATX_INO | unix.STATX_MNT_ID

// hostExe is our own binary. It does not change while we run, and its mount stays, so that its number is not given to another one.
var hostExe = sync.OnceValues(func() (host unix.Statx_t, err error) {
	err = unix.Statx(unix.AT_FDCWD, "/proc/self/exe", 0, exeWanted, &host)
	return host, err
})

func executesUs(pid int) (bool, error) {
	var child unix.Statx_t
	host, err := hostExe()
	if err != nil {
		return false, nil
	}
	if err := unix.Statx(unix.AT_FDCWD, "/proc/"+strconv.Itoa(pid)+"/exe", 0, exeWanted, &child); err != nil {
		return false, err
	}
	return child.Mask&unix.STATX_MNT_ID != 0 && child.Mnt_id == host.Mnt_id && child.Ino == host.Ino, nil
}

var errSelf = fmt.Errorf("the program is a script for /proc/self/exe: %w", syscall.EPERM)

var errUnseen = fmt.Errorf("what it executes may not be seen, and might be the host's own binary: %w", syscall.EPERM)

// awaitDetour reads from our program whether it could execute the command. The kernel closes its end when it did.
func (s *start) awaitDetour(p *Process) error {
	s.closeReport()
	r, err := s.record(p)
	switch {
	case err == io.EOF:
		return nil
	case err == nil && r.Kind == initprog.Failed:
		err = syscall.Errno(r.Value)
	case err == nil:
		err = syscall.EBADMSG
	}
	return s.failed(s.stepOf(plan.StepExec), err)
}

// record reads from our program, until there is nothing to come: somebody inside may have taken the other end and keep it open, so the
// end of the process is one, too.
func (s *start) record(p *Process) (initprog.Record, error) {
	return ReadReport(s.reportRead, p.PIDFD)
}

// ReadReport reads a record that the init program has written. io.EOF: there will be none.
func ReadReport(report, process *os.File) (initprog.Record, error) {
	poll := []unix.PollFd{{Fd: int32(report.Fd()), Events: unix.POLLIN}, {Fd: int32(process.Fd()), Events: unix.POLLIN}}
	if _, err := ignoringEINTR(func() (int, error) { return unix.Poll(poll, -1) }); err != nil {
		return initprog.Record{}, os.NewSyscallError("poll", err)
	}
	if poll[0].Revents == 0 {
		return initprog.Record{}, io.EOF
	}
	b := make([]byte, initprog.RecordSize)
	n, err := ignoringEINTR(func() (int, error) { return unix.Read(int(report.Fd()), b) })
	if err != nil {
		return initprog.Record{}, os.NewSyscallError("read", err)
	}
	return initprog.ReadRecord(bytes.NewReader(b[:n])) // somebody else may have written less
}

// closeReport closes our copies of the end to which our program writes.
func (s *start) closeReport() {
	s.reportWrite.Close()
	if last := s.files[len(s.files)-1]; last != s.reportWrite {
		last.Close()
	}
}
