package chroot_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/chroot"
)

// underFilter names, for a process of the tests, the errno that an outer filter gives it for openat2: EPERM, as old versions of Docker do for what they
// do not know, or ENOSYS, as a kernel without the call.
const underFilter = "CAISSON_TEST_OPENAT2"

// TestUnderOuterFilter runs the tests of Root where openat2 is not to be had.
func TestUnderOuterFilter(t *testing.T) {
	if errno, err := strconv.Atoi(os.Getenv(underFilter)); err == nil {
		forbid(t, unix.SYS_OPENAT2, syscall.Errno(errno))
		for name, test := range map[string]func(*testing.T){"StaysInside": TestRootStaysInside, "Operations": TestRootOperations, "Create": TestRootCreate,
			"Names": TestRootNames, "MagicLinks": TestRootMagicLinks, "CVE_2024_28185": TestCVE_2024_28185, "Lease": TestCopyOutUnderLease,
			"CreateOfHardLink": TestCreateOfHardLink, "CVE_2024_23651": TestCVE_2024_23651, "CVE_2018_15664": TestCVE_2018_15664, "Race": TestResolutionRace} {
			t.Run(name, test)
		}
		_, err := chroot.Mounts(os.Getpid())
		require.NoError(t, err)
		return
	}
	for _, errno := range []syscall.Errno{syscall.EPERM, syscall.ENOSYS} {
		c := exec.Command("/proc/self/exe", "-test.v", "-test.run=^TestUnderOuterFilter$")
		c.Env = append(os.Environ(), underFilter+"="+strconv.Itoa(int(errno)))
		out, err := c.CombinedOutput()
		require.NoError(t, err, "%v: %s", errno, out)
		require.Contains(t, string(out), "--- PASS: TestUnderOuterFilter/StaysInside/by_hand")
	}
}

// forbid makes a system call fail in all threads of the process, for good.
func forbid(t *testing.T, number uint32, errno syscall.Errno) {
	t.Helper()
	require.NoError(t, refuse(errno, number))
}

// refuse is forbid for several calls.
func refuse(errno syscall.Errno, numbers ...uint32) error {
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}} // the number
	for _, n := range numbers {
		filter = append(filter, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: n},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)})
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread() // no_new_privs is the thread's, and goes to the others with the filter
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program))); e != 0 {
		return e
	}
	for _, n := range numbers {
		if _, _, e := unix.Syscall(uintptr(n), ^uintptr(0), 0, 0); e != errno {
			return fmt.Errorf("call %d answers %w", n, e)
		}
	}
	return nil
}

// TestOldKernel: where a call of the mount API is not there, the start fails and says what it needs; nothing is left, and nothing is half done.
func TestOldKernel(t *testing.T) {
	const mark = "CAISSON_TEST_OLD"
	calls := map[string]uint32{"open_tree": unix.SYS_OPEN_TREE, "fsopen": unix.SYS_FSOPEN, "fsconfig": unix.SYS_FSCONFIG, "fsmount": unix.SYS_FSMOUNT,
		"move_mount": unix.SYS_MOVE_MOUNT}
	if name := os.Getenv(mark); name != "" {
		before := hostState(t)
		forbid(t, calls[name], syscall.ENOSYS)
		_, err := start(t, "true", chroot.Host{}, chroot.Proc{}, chroot.Tmpfs{Path: "/tmp"}, chroot.Bind{Source: "/etc", Target: "/tmp/x/y"})
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.ErrorContains(t, err, name+"(")
		require.ErrorContains(t, err, "needs Linux 5.")
		require.Equal(t, before, hostState(t))
		return
	}
	for name := range calls {
		c := exec.Command("/proc/self/exe", "-test.v", "-test.run=^TestOldKernel$")
		c.Env = append(os.Environ(), mark+"="+name)
		out, err := c.CombinedOutput()
		require.NoError(t, err, "%s: %s", name, out)
		require.Contains(t, string(out), "--- PASS: TestOldKernel")
	}
}

// TestWithoutStatx: directories are told apart by less where an outer filter does not know statx(2).
func TestWithoutStatx(t *testing.T) {
	const mark, n = "CAISSON_TEST_STATX", 100
	if os.Getenv(mark) == "" {
		c := exec.Command("/proc/self/exe", "-test.v", "-test.run=^TestWithoutStatx$")
		c.Env = append(os.Environ(), mark+"=1")
		out, err := c.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: TestWithoutStatx")
		return
	}
	forbid(t, unix.SYS_STATX, syscall.EPERM)
	dir, outside := cage(t)
	unix.Close(deepen(t, dir, n, func(int, int) {}))
	r, err := chroot.Open(dir)
	require.NoError(t, err)
	defer r.Close()
	r.ByHand()
	for _, up := range []int{1, n - 40, n} {
		got, err := r.Stat(strings.Repeat("d/", n) + strings.Repeat("../", up))
		require.NoError(t, short(err))
		want, err := os.Stat(filepath.Join(dir, strings.Repeat("d/", n-up)))
		require.NoError(t, err)
		require.True(t, os.SameFile(want, got), up)
	}
	require.NoError(t, r.RemoveAll("d"))
	require.NoDirExists(t, filepath.Join(dir, "d"))
	unchanged(t, outside)
}
