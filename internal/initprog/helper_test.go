//go:build linux

package initprog

import (
	"bufio"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// helperEnv names the function that the test binary runs instead of the tests.
const helperEnv = "INITPROG_HELPER"

func TestMain(m *testing.M) {
	helpers := map[string]func(){
		"args":     func() { fmt.Printf("%q\n", os.Args) },
		"execveat": execveat,
		"signals":  printSignals,
		"inherit":  func() { inherit(); become() },
		"seccomp":  strict,
		"noexec":   openWithoutExec,
		"":         func() { unignore(); os.Exit(m.Run()) },
	}
	helpers[os.Getenv(helperEnv)]()
}

// unignore makes the tests independent of nohup(1) and of shells that start them
// in the background: what is caught here is at its default after an exec.
func unignore() {
	for _, s := range []os.Signal{unix.SIGHUP, unix.SIGINT} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
}

// forwarded are the signals that the tests send: the usual ones, what stops a
// process by default, what the kernel treats in a special way, and real-time ones.
var forwarded = []syscall.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGABRT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE, unix.SIGALRM,
	unix.SIGTERM, unix.SIGCONT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGWINCH, 40, 63,
}

// printSignals prints the number of each signal it gets. 64 ends it.
func printSignals() {
	c := make(chan os.Signal, 100)
	signal.Notify(c, unix.SIGCHLD, syscall.Signal(64))
	for _, s := range forwarded {
		signal.Notify(c, s)
	}
	fmt.Println("ready")
	for s := range c {
		fmt.Println(int(s.(syscall.Signal)))
		if s == syscall.Signal(64) {
			return
		}
	}
}

// inherit sets a mask and dispositions that an exec keeps. SIGCHLD is among the
// ignored: then the kernel reaps by itself.
func inherit() {
	runtime.LockOSThread()
	signal.Ignore(unix.SIGHUP, unix.SIGUSR2, unix.SIGCHLD, unix.SIGTSTP)
	var set unix.Sigset_t
	for _, s := range []int{int(unix.SIGUSR1), int(unix.SIGTERM), 42} {
		set.Val[(s-1)/64] |= 1 << ((s - 1) % 64)
	}
	check(unix.PthreadSigmask(unix.SIG_SETMASK, &set, nil))
}

// become executes the arguments: path, argv.
func become() {
	check(os.Unsetenv(helperEnv))
	check(syscall.Exec(os.Args[1], os.Args[2:], os.Environ()))
}

// execveat executes the arguments: descriptor, argv.
func execveat() {
	fd, err := strconv.Atoi(os.Args[1])
	check(err)
	unix.CloseOnExec(fd)
	argv, err := syscall.SlicePtrFromStrings(os.Args[2:])
	check(err)
	path, envp := []byte{0}, []*byte{nil}
	_, _, errno := syscall.RawSyscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(&path[0])),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envp[0])), unix.AT_EMPTY_PATH, 0)
	check(errno)
}

// initCalls are the system calls that src/init.c says it makes.
var initCalls = map[string]uint32{
	"rt_sigprocmask": unix.SYS_RT_SIGPROCMASK, "fcntl": unix.SYS_FCNTL, "getpid": unix.SYS_GETPID,
	"rt_sigaction": unix.SYS_RT_SIGACTION, "ioctl": unix.SYS_IOCTL, "clone": unix.SYS_CLONE,
	"setpgid": unix.SYS_SETPGID, "execve": unix.SYS_EXECVE, "write": unix.SYS_WRITE, "close": unix.SYS_CLOSE,
	"wait4": unix.SYS_WAIT4, "rt_sigtimedwait": unix.SYS_RT_SIGTIMEDWAIT, "exit_group": unix.SYS_EXIT_GROUP,
	"kill": unix.SYS_KILL, "prctl": unix.SYS_PRCTL,
}

// onlyInit kills the process at any other call. The tests run on a 64-bit kernel
// and init makes no call of another ABI, so the architecture is not looked at.
func onlyInit() []unix.SockFilter {
	prog := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}}
	for _, nr := range initCalls {
		prog = append(prog,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: nr},
			unix.SockFilter{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ALLOW})
	}
	return append(prog, unix.SockFilter{Code: unix.BPF_RET, K: unix.SECCOMP_RET_KILL_PROCESS})
}

// strict executes the arguments under onlyInit. From the filter to execve this
// thread makes no call of the Go runtime's: all signals are blocked, the pointers
// are ready.
func strict() {
	runtime.LockOSThread()
	filter := onlyInit()
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	path, err := syscall.BytePtrFromString(os.Args[1])
	check(err)
	argv, err := syscall.SlicePtrFromStrings(os.Args[2:])
	check(err)
	envp := []*byte{nil}
	all := unix.Sigset_t{}
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	check(unix.PthreadSigmask(unix.SIG_SETMASK, &all, nil))
	check(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envp[0])))
	os.Exit(1)
}

// openWithoutExec prints what Open answers in a PID namespace that forbids
// executable memfds.
func openWithoutExec() {
	check(os.WriteFile(noexecSysctl, []byte("2"), 0))
	_, err := Open()
	w := bufio.NewWriter(os.Stdout)
	fmt.Fprintf(w, "%v\n", err)
	check(w.Flush())
}

func check(err error) {
	if err != nil {
		fmt.Println(strings.Join(os.Args, " "), err)
		os.Exit(1)
	}
}
