//go:build linux

package launch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
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
func (s *start) exposed() bool { return s.plan.Has(plan.RootDir) || s.plan.Joined() != 0 }

// helped reports whether the command is executed by our own program.
func (s *start) helped() bool { return s.cmd.Init || s.detour }

// foresee chooses the detour where it will be needed anyhow.
func (s *start) foresee() {
	s.detour = !s.cmd.Init && initprog.Supported() && s.exposed() && (s.plan.Joined() != 0 || looksLikeScript(s.cmd.Candidates))
}

// looksLikeScript looks at the host's files of the same names. It is a guess that saves a second start, no more.
func looksLikeScript(candidates []string) bool {
	for _, name := range candidates {
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

// verify kills a child that executes the host's binary as the host sees it. A copy of the binary, or the same file through
// a mount of the sandbox's own, is the caller's choice.
//
// Execve lets us go on before the child has left our memory, and until it has, its binary is ours. Nothing tells when that is: the
// descriptors are closed before. So the binary counts only when it is looked at after memory of its own has been seen.
func (s *start) verify(pid int) error {
	if s.helped() || !s.plan.Has(plan.RootDir) {
		return nil
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Microsecond) {
		if !executesUs(pid) {
			return nil
		}
		its := stack(strconv.Itoa(pid))
		left := its != "" && its != "0" && its != stack("self") // 0: we may not know
		if left && executesUs(pid) || time.Now().After(end) {
			return s.failed(s.stepOf(plan.StepExec), errSelf)
		}
	}
}

// stack gives the address of a process's stack as /proc/PID/stat prints it: that of a new program is a random one.
func stack(pid string) string {
	const startstack = 28 // proc(5)
	b, _ := os.ReadFile("/proc/" + pid + "/stat")
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) <= startstack-3 {
		return ""
	}
	return fields[startstack-3]
}

// exeWanted is what tells two executed files apart.
const exeWanted = unix.STATX_INO | unix.STATX_MNT_ID

// hostExe is our own binary. It does not change while we run, and its mount stays, so that its number is not given to another one.
var hostExe = sync.OnceValues(func() (host unix.Statx_t, err error) {
	err = unix.Statx(unix.AT_FDCWD, "/proc/self/exe", 0, exeWanted, &host)
	return host, err
})

func executesUs(pid int) bool {
	var child unix.Statx_t
	host, err := hostExe()
	if err != nil {
		return false
	}
	if unix.Statx(unix.AT_FDCWD, "/proc/"+strconv.Itoa(pid)+"/exe", 0, exeWanted, &child) != nil {
		return false // it has ended
	}
	return child.Mask&unix.STATX_MNT_ID != 0 && child.Mnt_id == host.Mnt_id && child.Ino == host.Ino
}

var errSelf = fmt.Errorf("the program is a script for /proc/self/exe: %w", syscall.EPERM)

// awaitDetour reads from our program whether it could execute the command. The kernel closes its end when it did.
func (s *start) awaitDetour() error {
	s.closeReport()
	r, err := initprog.ReadRecord(s.reportRead)
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

// closeReport closes our copies of the end to which our program writes.
func (s *start) closeReport() {
	s.reportWrite.Close()
	if last := s.files[len(s.files)-1]; last != s.reportWrite {
		last.Close()
	}
}
