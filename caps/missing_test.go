package caps_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/caps"
)

// act is a system call for which the kernel wants a capability, and that does no harm with it.
type act struct {
	call   string
	wants  caps.Set
	answer syscall.Errno // without
	do     func() error
}

func acts(t *testing.T) []act {
	dir := t.TempDir()
	path := func(name string, uid int, mode os.FileMode) string {
		name = filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(name, nil, 0o600))
		require.NoError(t, os.Chmod(name, mode))
		require.NoError(t, os.Chown(name, uid, uid))
		return name
	}
	mine, theirs := path("mine", 0, 0o600), path("theirs", 65534, 0)
	other := caisson.New(caisson.User{UID: 65534, GID: 65534}).Command("sleep", "1000")
	require.NoError(t, other.Start())
	t.Cleanup(func() { other.Process.Kill(); other.Wait() })
	pid := other.Process.Pid
	raw := func(trap uintptr, a ...uintptr) error {
		var all [3]uintptr
		copy(all[:], a)
		if _, _, e := unix.RawSyscall(trap, all[0], all[1], all[2]); e != 0 {
			return e
		}
		return nil
	}
	socket := func(domain, kind, protocol int) error {
		fd, err := unix.Socket(domain, kind, protocol)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	var host unix.Utsname
	require.NoError(t, unix.Uname(&host))
	const eperm, eacces = unix.EPERM, unix.EACCES
	return []act{
		{"chroot", caps.SysChroot, eperm, func() error { return unix.Chroot("/") }},
		{"sethostname", caps.SysAdmin, eperm, func() error { return unix.Sethostname([]byte(unix.ByteSliceToString(host.Nodename[:]))) }},
		{"umount2", caps.SysAdmin, eperm, func() error { return unix.Unmount(mine, 0) }},
		{"pivot_root", caps.SysAdmin, eperm, func() error { return unix.PivotRoot("/none", "/none") }},
		{"unshare", caps.SysAdmin, eperm, func() error { return unix.Unshare(unix.CLONE_NEWUTS) }},
		{"swapon", caps.SysAdmin, eperm, func() error { return raw(unix.SYS_SWAPON, text("/none")) }},
		{"acct", caps.SysPacct, eperm, func() error { return raw(unix.SYS_ACCT, text("/none")) }},
		{"socket", caps.NetRaw, eperm, func() error { return socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP) }},
		{"bind", caps.NetBindService, eacces, bindLow},
		{"adjtimex", caps.SysTime, eperm, func() error { _, err := unix.Adjtimex(&unix.Timex{Modes: unix.ADJ_TICK}); return err }},
		{"setgroups", caps.Setgid, eperm, func() error { return raw(unix.SYS_SETGROUPS, 0, 0) }},
		{"kill", caps.Kill, eperm, func() error { return unix.Kill(pid, 0) }},
		{"kcmp", caps.SysPtrace, eperm, func() error { return raw(unix.SYS_KCMP, uintptr(pid), uintptr(pid), 1) }},
		{"fchownat", caps.Chown, eperm, func() error { return unix.Fchownat(unix.AT_FDCWD, mine, 0, 65534, 0) }},
		{"fchmodat", caps.Fowner, eperm, func() error { return unix.Fchmodat(unix.AT_FDCWD, theirs, 0, 0) }},
		{"openat", caps.DacReadSearch | caps.DacOverride, eacces, func() error { return open(theirs, unix.O_RDONLY) }},
		{"openat", caps.DacOverride, eacces, func() error { return open(theirs, unix.O_WRONLY) }},
		{"mknodat", caps.Mknod, eperm, func() error { return unix.Mknodat(unix.AT_FDCWD, filepath.Join(dir, "null"), unix.S_IFCHR, 1<<8|3) }},
		{"setxattr", caps.Setfcap, eperm, func() error { return unix.Setxattr(mine, "security.capability", data(t, caps.File{}), 0) }},
		{"reboot", caps.SysBoot, eperm, func() error { return raw(unix.SYS_REBOOT, 0, 0, 0) }},
		{"syslog", caps.Syslog | caps.SysAdmin, eperm, func() error { _, err := unix.Klogctl(8, nil); return err }},
		{"setpriority", caps.SysNice, eacces, func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -1) }},
		{"prlimit64", caps.SysResource, eperm, moreFiles},
		{"prctl", caps.Setpcap, eperm, func() error { return unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_AUDIT_READ, 0, 0, 0) }},
	}
}

func open(name string, flags int) error {
	fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func bindLow() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrInet4{Port: 1, Addr: [4]byte{127, 0, 0, 1}})
}

// moreFiles raises a hard limit, and lowers it again.
func moreFiles() error {
	var now, more unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_MSGQUEUE, nil, &now); err != nil {
		return err
	}
	more = now
	if more.Max++; more.Max == 0 {
		return errors.New("there is no limit to raise")
	}
	defer unix.Prlimit(0, unix.RLIMIT_MSGQUEUE, &now, nil)
	return unix.Prlimit(0, unix.RLIMIT_MSGQUEUE, &more, nil)
}

func text(s string) uintptr {
	b, _ := unix.BytePtrFromString(s)
	strs = append(strs, b)
	return uintptr(unsafe.Pointer(b))
}

// strs keeps what numbers point at.
var strs []*byte

func data(t *testing.T, c caps.File) []byte {
	b, err := c.MarshalBinary()
	require.NoError(t, err)
	return b
}

// TestMissingIsTrue: the kernel refuses each of these to who lacks just the capability that Missing names, and to nobody else.
func TestMissingIsTrue(t *testing.T) {
	have := needRoot(t, caps.DockerDefault|caps.SysAdmin)
	tried := 0
	for _, a := range acts(t) {
		if lacked := a.wants &^ have.Effective; lacked != 0 {
			t.Logf("%s: this root has not got %v", a.call, lacked)
			continue
		}
		without := have
		without.Effective &^= a.wants
		refusal, err := as(without, a.do), as(have, a.do)
		if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOTSUP) {
			t.Logf("%s: %v", a.call, err)
			continue
		}
		tried++
		require.ErrorIs(t, refusal, a.answer, a.call)
		require.NotErrorIs(t, err, a.answer, "%s with %v", a.call, a.wants)
		require.Truef(t, names(caps.Missing(a.call, refusal, without), a.wants), "%s: %v", a.call, caps.Missing(a.call, refusal, without))
		require.Falsef(t, names(caps.Missing(a.call, refusal, have), a.wants), "%s", a.call)
	}
	require.Greater(t, tried, 15)
	runtime.KeepAlive(strs)
}

// as makes the call on a thread with these capabilities.
func as(s caps.State, do func() error) (err error) {
	onThread(func() {
		if err = thread(s.Permitted, s.Effective, s.Inheritable); err == nil {
			err = do()
		}
	})
	return err
}

func names(needs []caps.Need, wanted caps.Set) bool {
	return slices.ContainsFunc(needs, func(n caps.Need) bool { return n.Any == wanted })
}

func TestMissing(t *testing.T) {
	none := caps.State{}
	require.Equal(t, []caps.Need{{Any: caps.SysAdmin, For: "to mount and unmount"}}, caps.Missing("mount", unix.EPERM, none))
	require.Equal(t, caps.Missing("mount", unix.EPERM, none), caps.Missing("MOUNT(2)", &os.PathError{Err: unix.EPERM}, none))
	require.Nil(t, caps.Missing("mount", unix.EPERM, caps.State{Effective: caps.SysAdmin}))
	require.NotNil(t, caps.Missing("mount", unix.EPERM, caps.State{Permitted: caps.SysAdmin}), "what counts is the effective set")
	require.Nil(t, caps.Missing("mount", unix.EINVAL, none))
	require.Nil(t, caps.Missing("mount", nil, none))
	require.Nil(t, caps.Missing("getpid", unix.EPERM, none))
	require.Nil(t, caps.Missing("", unix.EPERM, none))
	require.Nil(t, caps.Missing("mount umount", unix.EPERM, none))
	all := caps.State{Effective: caps.All}
	for _, call := range []string{"open", "bind", "setns", "ioctl", "prctl"} {
		for e := syscall.Errno(1); e < 134; e++ {
			require.Nil(t, caps.Missing(call, e, all))
			for _, n := range caps.Missing(call, e, none) {
				require.NotZero(t, n.Any)
				require.Truef(t, strings.HasPrefix(n.For, "to "), "%s", n.For)
			}
		}
	}
	// Each capability is named for something, but those that no call asks for.
	var named caps.Set
	for _, call := range everyCall() {
		for e := syscall.Errno(1); e < 134; e++ {
			for _, n := range caps.Missing(call, e, none) {
				named |= n.Any
			}
		}
	}
	silent := caps.Fsetid | caps.NetBroadcast | caps.MacOverride | caps.MacAdmin | caps.BlockSuspend
	require.Equal(t, fmt.Sprint(caps.All>>23&^silent), fmt.Sprint(named))
}

func everyCall() []string {
	return strings.Fields(`open openat chown chmod unlink linkat open_by_handle_at mknod fcntl setxattr ioctl kill setuid setgid capset prctl ptrace setpriority
		prlimit64 unshare setns chroot mlock shmget perf_event_open timer_create clone3 mount socket setsockopt sendto sendmsg bind init_module acct reboot settimeofday
		syslog bpf iopl vhangup`)
}
