package seccomp

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// only gives a policy that allows all but what the rules say.
func only(rules ...Rule) Policy { return Policy{Default: Allow, Newer: Allow, Rules: rules} }

func raw(name string, args ...uintptr) syscall.Errno {
	nr, ok := Native().Number(name)
	if !ok {
		panic(name)
	}
	var a [6]uintptr
	copy(a[:], args)
	_, _, e := unix.RawSyscall6(uintptr(nr), a[0], a[1], a[2], a[3], a[4], a[5])
	return e
}

// TestDockerInKernel: what Docker's default refuses, the kernel refuses, number by number; what it allows gets as far as the call.
func TestDockerInKernel(t *testing.T) { good(t, "docker") }

func dockerInKernel() error {
	f := DockerDefault()
	if err := f.InstallThread(); err != nil {
		return err
	}
	refused := 0
	for nr := range 600 {
		want, ok := f.Program.Verdict(Native(), nr, 7, 7, 7, 7, 7, 7).Errno()
		// Newer kernels do not filter the calls that their own probes put into a program.
		name, _ := Native().Name(nr)
		if !ok || name == "uprobe" || name == "uretprobe" {
			continue
		}
		refused++
		if _, _, e := unix.RawSyscall6(uintptr(nr), 7, 7, 7, 7, 7, 7); e != want {
			return fmt.Errorf("system call %d: %v, not %v", nr, e, want)
		}
	}
	if refused < 100 {
		return fmt.Errorf("only %d numbers are refused", refused)
	}
	const bad = 0xffffffff
	for name, want := range map[string]syscall.Errno{"getpid": 0, "close": syscall.EBADF, "personality": 0, "kill": syscall.ESRCH, "bpf": syscall.EPERM,
		"unshare": syscall.EPERM, "clone3": syscall.ENOSYS, "keyctl": syscall.EPERM, "ioctl": syscall.EBADF} {
		first := uintptr(bad)
		if name == "kill" {
			first = 1 << 30
		}
		if e := raw(name, first, 0); e != want {
			return fmt.Errorf("%s: %v, not %v", name, e, want)
		}
	}
	for domain, want := range map[uintptr]syscall.Errno{unix.AF_UNIX: 0, unix.AF_VSOCK: syscall.EPERM, unix.AF_ALG: syscall.EPERM} {
		if e := raw("socket", domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); e != want {
			return fmt.Errorf("socket %d: %v, not %v", domain, e, want)
		}
	}
	return nil
}

// TestInstall: all threads, one thread, and what the kernel says against it.
func TestInstall(t *testing.T) {
	t.Run("all threads", func(t *testing.T) { good(t, "all threads") })
	t.Run("a thread that has another filter", func(t *testing.T) { good(t, "thread conflict") })
	t.Run("one thread", func(t *testing.T) { good(t, "one thread") })
	t.Run("ends the process", func(t *testing.T) { endedBy(t, "killed") })
	t.Run("needs a right", func(t *testing.T) { good(t, "access") })
	t.Run("flags", func(t *testing.T) { good(t, "flags") })
}

func umaskRefused() Filter {
	return New(only(Rule{Names: []string{"umask"}, Action: Errno(syscall.E2BIG)}))
}

// threads asks n goroutines, each on a thread of its own.
func threads(n int, ask func() syscall.Errno) []syscall.Errno {
	answers, ready, release := make(chan syscall.Errno, n), make(chan bool, n), make(chan bool)
	for range n {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			ready <- true
			<-release
			answers <- ask()
		}()
	}
	for range n {
		<-ready
	}
	close(release)
	var list []syscall.Errno
	for range n {
		list = append(list, <-answers)
	}
	return list
}

func allThreads() error {
	threads(8, func() syscall.Errno { return 0 }) // there are some now
	if err := umaskRefused().Install(); err != nil {
		return err
	}
	for _, e := range threads(8, func() syscall.Errno { return raw("umask", 0o22) }) {
		if e != syscall.E2BIG {
			return fmt.Errorf("a thread is not filtered: %v", e)
		}
	}
	return nil
}

// threadConflict: the kernel answers with the number of the thread, which is no success.
func threadConflict() error {
	done, stop := make(chan error), make(chan bool)
	defer close(stop)
	go func() {
		done <- umaskRefused().InstallThread()
		<-stop
	}()
	if err := <-done; err != nil {
		return err
	}
	err := umaskRefused().Install()
	if !errors.Is(err, syscall.ESRCH) || !strings.Contains(err.Error(), "has another filter") {
		return fmt.Errorf("the conflict is not reported: %v", err)
	}
	if e := raw("umask", 0o22); e != 0 && runtime.NumCPU() > 0 {
		return fmt.Errorf("the filter is in force in part: %v", e)
	}
	return nil
}

func oneThread() error {
	done := make(chan syscall.Errno)
	go func() {
		if err := umaskRefused().InstallThread(); err != nil {
			fmt.Println(err)
		}
		done <- raw("umask", 0o22)
	}()
	if e := <-done; e != syscall.E2BIG {
		return fmt.Errorf("the thread is not filtered: %v", e)
	}
	for _, e := range threads(4, func() syscall.Errno { return raw("umask", 0o22) }) {
		if e != 0 {
			return fmt.Errorf("another thread is filtered: %v", e)
		}
	}
	return nil
}

func killed() error {
	if err := New(only(Rule{Names: []string{"umask"}, Action: KillProcess})).Install(); err != nil {
		return err
	}
	raw("umask", 0)
	return errors.New("alive")
}

// access: without no_new_privs it takes CAP_SYS_ADMIN.
func access() error {
	f := umaskRefused()
	f.AllowNewPrivileges = true
	runtime.LockOSThread()
	if os.Geteuid() == 0 {
		if err := unix.Setresuid(65534, 65534, 65534); err != nil {
			return err
		}
	}
	err := f.InstallThread()
	if !errors.Is(err, syscall.EACCES) || !strings.Contains(err.Error(), "CAP_SYS_ADMIN") {
		return fmt.Errorf("installed without privilege: %v", err)
	}
	return nil
}

func everyFlag() error {
	for _, flags := range []Flags{0, LogRefused, SpecAllow, LogRefused | SpecAllow} {
		ok, err := flags.Supported()
		if err != nil || !ok {
			return fmt.Errorf("%v: %v, %w", flags, ok, err)
		}
		f := umaskRefused()
		f.Flags = flags
		if err := f.InstallThread(); err != nil {
			return err
		}
	}
	if ok, err := Flags(1 << 30).Supported(); ok || err != nil {
		return fmt.Errorf("a flag that does not exist: %v, %v", ok, err)
	}
	f := umaskRefused()
	f.Flags = 1 << 30
	if err := f.InstallThread(); !errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("a flag that does not exist: %v", err)
	}
	for _, a := range []Action{Allow, Log, Notify, KillProcess, KillThread, Errno(1), Trap(1), Trace(1)} {
		if ok, err := a.Supported(); !ok || err != nil {
			return fmt.Errorf("%v: %v, %v", a, ok, err)
		}
	}
	if ok, err := ActionOf(0x7ffe0000).Supported(); ok || err != nil {
		return fmt.Errorf("an action that does not exist: %v, %v", ok, err)
	}
	return nil
}

// TestUntrustedInKernel: what the preset shuts out is shut out.
func TestUntrustedInKernel(t *testing.T) { good(t, "untrusted") }

func untrustedInKernel() error {
	f := New(Untrusted())
	if err := f.InstallThread(); err != nil {
		return err
	}
	tiocsti := []uintptr{^uintptr(0), unix.TIOCSTI}
	calls := []struct {
		name string
		args []uintptr
		want syscall.Errno
	}{
		{"keyctl", nil, syscall.ENOSYS}, {"add_key", nil, syscall.ENOSYS}, {"io_uring_setup", nil, syscall.ENOSYS}, {"bpf", nil, syscall.ENOSYS},
		{"userfaultfd", nil, syscall.ENOSYS}, {"perf_event_open", nil, syscall.EPERM}, {"ptrace", nil, syscall.EPERM}, {"mount", nil, syscall.EPERM},
		{"fsopen", nil, syscall.EPERM}, {"fsconfig", nil, syscall.EPERM}, {"open_tree", nil, syscall.EPERM}, {"move_mount", nil, syscall.EPERM},
		{"unshare", nil, syscall.EPERM}, {"setns", nil, syscall.EPERM}, {"clone3", nil, syscall.ENOSYS}, {"clone", []uintptr{unix.CLONE_NEWUSER}, syscall.EPERM},
		{"shmget", nil, syscall.EPERM}, {"msgget", nil, syscall.EPERM}, {"semget", nil, syscall.EPERM}, {"mq_open", nil, syscall.EPERM},
		{"socket", []uintptr{unix.AF_VSOCK, unix.SOCK_STREAM}, syscall.EAFNOSUPPORT}, {"socket", []uintptr{unix.AF_INET, unix.SOCK_RAW}, syscall.EAFNOSUPPORT},
		{"socket", []uintptr{unix.AF_PACKET, unix.SOCK_RAW}, syscall.EAFNOSUPPORT}, {"socket", []uintptr{unix.AF_ALG, unix.SOCK_SEQPACKET}, syscall.EAFNOSUPPORT},
		{"process_vm_readv", nil, syscall.EPERM}, {"pidfd_getfd", nil, syscall.EPERM}, {"open_by_handle_at", nil, syscall.EPERM},
		{"personality", []uintptr{8}, syscall.EPERM}, {"quotactl", nil, syscall.EPERM}, {"kexec_load", nil, syscall.EPERM},
		{"ioctl", tiocsti, syscall.EPERM}, {"ioctl", []uintptr{^uintptr(0), 0x541c}, syscall.EPERM}, {"ioctl", []uintptr{^uintptr(0), unix.TCGETS}, syscall.EBADF},
		{"getpid", nil, 0}, {"socket", []uintptr{unix.AF_UNIX, unix.SOCK_DGRAM | unix.SOCK_CLOEXEC}, 0},
	}
	for _, c := range calls {
		if e := raw(c.name, c.args...); e != c.want {
			return fmt.Errorf("%s %#x: %v, not %v", c.name, c.args, e, c.want)
		}
	}
	if _, _, e := unix.RawSyscall(5000, 0, 0, 0); e != syscall.ENOSYS {
		return fmt.Errorf("a newer call: %v", e)
	}
	return wideIoctl()
}

// wideIoctl sets bits that the kernel does not look at (CVE-2019-10063).
func wideIoctl() error {
	if runtime.GOARCH == "386" || runtime.GOARCH == "arm" {
		return nil
	}
	for _, request := range []uint64{unix.TIOCSTI | 1<<32, unix.TIOCSTI | 1<<63, 0x541c | 0xffffffff<<32} {
		if e := raw("ioctl", ^uintptr(0), uintptr(request)); e != syscall.EPERM {
			return fmt.Errorf("ioctl %#x: %v", request, e)
		}
	}
	return nil
}

// TestSizesInKernel: the kernel reads 16 or 32 bits of an argument where the tables say so.
func TestSizesInKernel(t *testing.T) { good(t, "small") }

func smallInKernel() error {
	if runtime.GOARCH == "386" || runtime.GOARCH == "arm" {
		return nil
	}
	garbage := uintptr(0xabcd)
	garbage <<= 32 % (8 * unsafe.Sizeof(garbage)) // no constant: there are architectures of 32 bits
	p, _ := unix.Getpgid(0)
	if r, _, e := unix.RawSyscall(unix.SYS_GETPGID, garbage, 0, 0); e != 0 || int(r) != p {
		return fmt.Errorf("getpgid looks at 64 bits: %v", e)
	}
	// personality(0xffffffff) asks; with garbage it asks as well.
	if _, _, e := unix.RawSyscall(unix.SYS_PERSONALITY, garbage|0xffffffff, 0, 0); e != 0 {
		return fmt.Errorf("personality looks at 64 bits: %v", e)
	}
	// A mode has 16 bits.
	f, err := os.CreateTemp("", "mode")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, _, e := unix.RawSyscall(unix.SYS_FCHMOD, f.Fd(), 0o640|1<<16|garbage, 0); e != 0 {
		return fmt.Errorf("fchmod looks at more than 16 bits: %v", e)
	}
	if info, err := f.Stat(); err != nil || info.Mode().Perm() != 0o640 {
		return fmt.Errorf("fchmod: %v, %w", info.Mode(), err)
	}
	return nil
}
