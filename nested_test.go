package caisson_test

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/namespaces"
)

// inner is what is started inside a sandbox: all namespaces, also a user namespace.
func inner() caisson.Sandbox {
	return caisson.New(namespaces.User|namespaces.PID|namespaces.Mount|namespaces.IPC|namespaces.UTS|namespaces.Net,
		namespaces.Hostname("inner"), chroot.Host{}, chroot.Proc{}, chroot.Dev{}, chroot.Tmpfs{Path: "/tmp"}, caisson.DieWithParent{})
}

// TestInsideASandbox: caisson works inside a container, with clone3 and under a filter that answers ENOSYS to it, as the default filter of
// container engines did for years.
func TestInsideASandbox(t *testing.T) {
	if os.Geteuid() != 0 {
		needUserNamespace(t)
	}
	outer := caisson.New(namespaces.User|namespaces.PID|namespaces.Mount|namespaces.IPC|namespaces.UTS, namespaces.Hostname("outer"),
		chroot.Host{}, chroot.Proc{}, chroot.Dev{}, chroot.Tmpfs{Path: "/tmp"}, chroot.Bind{Source: os.TempDir(), Target: "/tmp/tests"})
	for _, filter := range []string{"open", "no clone3"} {
		t.Run(filter, func(t *testing.T) {
			c := outer.Command("/tmp/tests/self", filter)
			c.Env = helperEnviron("nest")
			c.Stderr = os.Stderr
			out, err := c.Output()
			require.NoError(t, err)
			require.Equal(t, "outer\ninner 1\nagain inner\n", string(out))
		})
	}
}

// helpNest starts a sandbox, and a further command in it.
func helpNest(args []string) error {
	if args[0] == "no clone3" {
		if err := denyClone3(); err != nil {
			return err
		}
	}
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	fmt.Println(name)
	c := inner().Command("sh", "-c", "echo $(cat /proc/sys/kernel/hostname) $$; read -r line")
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	c.Stdin = r
	if err := c.Start(); err != nil {
		return err
	}
	again := c.Process.Exec("sh", "-c", "echo again $(cat /proc/sys/kernel/hostname)")
	again.Stderr = os.Stderr
	out, err := again.Output()
	w.WriteString("end\n")
	if err != nil {
		return err
	}
	err = c.Wait()
	fmt.Print(string(out))
	return err
}

// denyClone3 answers ENOSYS to clone3 in all threads.
func denyClone3() error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_CLONE3},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(syscall.ENOSYS)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	r, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if e != 0 || r != 0 {
		return fmt.Errorf("seccomp: %d %w", r, e)
	}
	if _, _, e := unix.Syscall(unix.SYS_CLONE3, 0, 0, 0); e != unix.ENOSYS {
		return fmt.Errorf("clone3 answers %w", e)
	}
	return nil
}
