package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// refuse makes system calls answer the errno in all threads of this process, as filters of container engines do.
func refuse(errno syscall.Errno, traps ...uint32) error {
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // seccomp_data.nr
	for _, nr := range traps {
		filter = append(filter, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: nr},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)})
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	r, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if e != 0 || r != 0 {
		return fmt.Errorf("seccomp: %w, thread %d", e, r)
	}
	return nil
}

// filters are what outer engines leave out.
var filters = map[string]struct {
	errno syscall.Errno
	traps []uint32
}{
	"clone3 ENOSYS":      {syscall.ENOSYS, []uint32{unix.SYS_CLONE3}},
	"clone3 EPERM":       {syscall.EPERM, []uint32{unix.SYS_CLONE3}},
	"clone3 EINVAL":      {syscall.EINVAL, []uint32{unix.SYS_CLONE3}}, // Linux 5.4, where the flags for signals and control groups are not known
	"close_range ENOSYS": {syscall.ENOSYS, []uint32{unix.SYS_CLOSE_RANGE}},
	"close_range EPERM":  {syscall.EPERM, []uint32{unix.SYS_CLOSE_RANGE}},
	"openat2 ENOSYS":     {syscall.ENOSYS, []uint32{unix.SYS_OPENAT2}},
	"all ENOSYS":         {syscall.ENOSYS, []uint32{unix.SYS_CLONE3, unix.SYS_CLOSE_RANGE, unix.SYS_OPENAT2}},
}

func TestOuterFilter(t *testing.T) {
	for name, f := range filters {
		t.Run(name, func(t *testing.T) {
			if maps, err := os.ReadFile("/proc/self/maps"); err == nil && f.errno != syscall.ENOSYS && f.traps[0] == unix.SYS_CLONE3 && strings.Contains(string(maps), "/libc.so") {
				t.Skip("linked with glibc, which makes no threads where clone3 answers anything but ENOSYS; CGO_ENABLED=0 runs this")
			}
			help(t, "filtered", "CAISSON_FILTER="+name)
		})
	}
}

// filtered is the core of the other tests, under a filter.
func filtered() error {
	name := os.Getenv("CAISSON_FILTER")
	f := filters[name]
	if err := refuse(f.errno, f.traps...); err != nil {
		return err
	}
	before := world()
	leak, err := os.OpenFile("/dev/null", os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	unix.FcntlInt(leak.Fd(), unix.F_SETFD, 0)
	for name, opt := range ways {
		if err := errors.Join(run(opt), run(opt, dies(), served(func(r *plan.Run) error { return unix.Kill(r.PID, 0) })), runTwice(opt), noneLeft(opt)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := run(opt, does(plan.Names, plan.Call("close", unix.SYS_CLOSE, plan.Int(-1)))); !errors.Is(err, syscall.EBADF) {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := run(opt, does(plan.Names, plan.Call("mount", unix.SYS_MOUNT, plan.Null(), plan.Str("/nonexistent"), plan.Null(), plan.Int(0), plan.Null()))); err == nil {
			return fmt.Errorf("%s: no error", name)
		}
	}
	leak.Close()
	if after := world(); after != before {
		return fmt.Errorf("left behind: before %s, after %s", before, after)
	}
	return directory(strings.Contains(name, "openat2") || strings.Contains(name, "all"))
}

func runTwice(opt Options) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return run(opt, joinOwn("pid"), served(func(r *plan.Run) error { return unix.Kill(r.PID, 0) }))
}

// noneLeft starts a command that has no descriptor but 0 to 2 and that of the directory which it reads.
func noneLeft(opt Options) error {
	cmd := command(nil, `test "$(ls /proc/self/fd | tr '\n' ' ')" = "0 1 2 3 "`)
	cmd.Files = []*os.File{os.Stdin, os.Stderr, os.Stderr}
	proc, err := Start(context.Background(), plan.Build(), cmd, opt)
	if err != nil {
		return err
	}
	ws, err := finish(proc)
	if err == nil && ws != 0 {
		err = fmt.Errorf("descriptors are left: %#x", ws)
	}
	return err
}

// directory: a working directory without openat2 cannot be entered safely, and is refused.
func directory(refused bool) error {
	for name, opt := range ways {
		cmd := trueCommand()
		cmd.Dir = "/proc"
		proc, err := Start(context.Background(), plan.Build(), cmd, opt)
		if err == nil {
			_, err = finish(proc)
		}
		if refused != errors.Is(err, errors.ErrUnsupported) || !refused && err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// TestCloneFails: an errno of clone is an error of that step, in each way.
func TestCloneFails(t *testing.T) {
	needRoot(t)
	for name, opt := range ways {
		for errno, parts := range map[syscall.Errno][]plan.Primitive{
			// Two of a kind that the kernel refuses to make for one process.
			syscall.EINVAL: {clone(unix.CLONE_NEWUSER), part(func(p *plan.Plan) {
				f := p.Open("null as null", func(*plan.Run) (*os.File, error) { return os.Open("/dev/null") })
				p.Join(unix.CLONE_NEWUTS, plan.Call("setns", unix.SYS_SETNS, plan.FD(f), plan.Int(unix.CLONE_NEWUTS)))
			})},
		} {
			unchanged(t)
			require.ErrorIs(t, run(opt, parts...), errno, name)
		}
	}
}

// TestHighestDescriptor: the bound does not follow the limit, which may be a billion, or lower than what is open.
func TestHighestDescriptor(t *testing.T) { help(t, "no close_range") }

func noCloseRange() error {
	f, err := os.Open("/")
	if err != nil {
		return err
	}
	const high = 15000
	if _, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, high); err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100, Max: 20000}); err != nil {
		return err
	}
	if err := refuse(syscall.ENOSYS, unix.SYS_CLOSE_RANGE); err != nil {
		return err
	}
	if n := highestDescriptor(); n <= high || n > 1<<20 {
		return fmt.Errorf("the bound is %d", n)
	}
	begin := time.Now()
	for name, opt := range ways {
		if err := noneLeft(opt); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if d := time.Since(begin); d > 30*time.Second {
		return errors.New("it took " + strconv.Itoa(int(d.Seconds())) + " s")
	}
	return nil
}
