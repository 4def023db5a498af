//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/seccomp"
)

// work is a call to be measured.
type work struct {
	name string
	nr   uintptr
	args [3]uintptr
	want syscall.Errno
}

// works: getpid is always allowed, and the kernel remembers that without running the filter (Linux 5.11). personality and clone are looked at by their arguments:
// the filter runs, and personality(0xffffffff) comes last in libseccomp's list. mount is denied, as is a number that nobody knows.
func works() []work {
	return []work{
		{"getpid, allowed whatever its arguments", unix.SYS_GETPID, [3]uintptr{}, 0},
		{"personality(0xffffffff), allowed by argument", unix.SYS_PERSONALITY, [3]uintptr{0xffffffff}, 0},
		{"socket(45), the last allowed family", unix.SYS_SOCKET, [3]uintptr{unix.AF_MCTP, ^uintptr(0) >> 33}, syscall.EINVAL},
		{"clone(CLONE_NEWUSER), denied by argument", unix.SYS_CLONE, [3]uintptr{unix.CLONE_NEWUSER}, syscall.EPERM},
		{"mount, denied", unix.SYS_MOUNT, [3]uintptr{}, syscall.EPERM},
		{"clone3, denied with ENOSYS", unix.SYS_CLONE3, [3]uintptr{}, syscall.ENOSYS},
	}
}

// contestant is a thread with a filter.
type contestant struct {
	name string
	code []unix.SockFilter // nil is no filter
	turn chan work
	took chan time.Duration
	err  chan error
}

func (c *contestant) live(calls int) {
	runtime.LockOSThread() // and the thread ends with the goroutine
	c.err <- install(c.code)
	for w := range c.turn {
		begin := cpuTime()
		for range calls {
			unix.RawSyscall(w.nr, w.args[0], w.args[1], w.args[2])
		}
		c.took <- cpuTime() - begin
	}
}

// cpuTime is what this thread has used: who else the processor serves meanwhile does not count.
func cpuTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

func install(code []unix.SockFilter) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil || code == nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	return nil
}

func perCall(lib *libseccomp, rounds, calls int) error {
	tree, err := lib.compile("tree")
	if err != nil {
		return err
	}
	plain := seccomp.DockerProfile().Filter(seccomp.Target{Caps: []string{"SYS_CHROOT"}, NoENOSYS: true})
	with := seccomp.DockerDefault("SYS_CHROOT")
	if plain.Err() != nil || with.Err() != nil {
		return plain.Err()
	}
	all := []*contestant{{name: "no filter"}, {name: "caisson, as libseccomp", code: plain.Program.SockFilter()},
		{name: "caisson, with ENOSYS for newer calls", code: with.Program.SockFilter()}, {name: "libseccomp, tree", code: tree}}
	for _, c := range all {
		c.turn, c.took, c.err = make(chan work), make(chan time.Duration), make(chan error)
		go c.live(calls)
		if err := <-c.err; err != nil {
			return err
		}
		defer close(c.turn)
	}
	for _, w := range works() {
		report(w, measure(all, w, rounds), calls, all)
	}
	return nil
}

// measure gives each contestant a turn in each round, in an order that changes.
func measure(all []*contestant, w work, rounds int) [][]time.Duration {
	took := make([][]time.Duration, len(all))
	for range rounds {
		for _, i := range rand.Perm(len(all)) {
			if all[i].code == nil && w.want != 0 {
				continue // it would be performed
			}
			all[i].turn <- w
			took[i] = append(took[i], <-all[i].took)
		}
	}
	return took
}

func report(w work, took [][]time.Duration, calls int, all []*contestant) {
	fmt.Printf("\n%s, ns for each call\n", w.name)
	for i, c := range all {
		if len(took[i]) > 0 {
			fmt.Printf("  %-40s %7.1f\n", c.name, float64(median(took[i]).Nanoseconds())/float64(calls))
		}
	}
}
