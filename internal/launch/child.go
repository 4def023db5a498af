//go:build linux

//lint:file-ignore U1000 live and what it calls are called from assembly

package launch

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/sys"
)

// The runtime's own entry points for system calls that block. All three are on its list of symbols that stay
// (go.dev/issue/67401).

//go:linkname entersyscall runtime.entersyscall
func entersyscall()

//go:linkname entersyscallblock runtime.entersyscallblock
func entersyscallblock()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

// cloneArgs is struct clone_args, clone3(2).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// child is all that a child needs. The parent makes it before the clone, in pinned memory; on the vfork path both share
// it.
type child struct {
	trap  uintptr // clone3 or clone
	clone [5]uintptr
	calls unsafe.Pointer // to n sys.Call
	n     int
	slots unsafe.Pointer // to uintptrs
	next  *child         // made by a Reclone, and goes on where this one ends

	mask   *uint64 // signals that were blocked in the starting thread
	all    *uint64 // all signals
	yields bool    // let other goroutines have the processor at once: they serve the child
	looks  int     // how often it looks for the parent's word before it sleeps
	reset  bool    // the handlers of signals have to be reset

	about unix.Statx_t // the program
	head  [2]byte      // of it
	*status
}

// status is what the kernel and the child tell the parent, in memory that they share in every way to clone.
type status struct {
	tid    int32 // the child in the caller's pid namespace, written by the kernel before the child runs
	pidfd  int32
	alive  int32 // not 0 until a child that shares our memory has executed its command or ended, written by the kernel
	at     int32 // the call that is being made
	failed int32 // the call that has failed + 1; 0: none
	errno  int32
	offer  int32 // the descriptor that the child offers + 1
	taken  int32 // the same when the parent has taken it
}

// makeChild makes a child. Where the child shares the memory, it returns when the child has executed its command or ended.
//
// From entersyscall to exitsyscall nothing may allocate, take a lock or grow the stack: the garbage collector goes on
// meanwhile, and in the child there is no Go runtime at all.
//
//go:noinline
//go:nosplit
//go:norace
//go:nocheckptr
func makeChild(c *child) (pid, errno uintptr) {
	if c.yields {
		entersyscallblock()
	} else {
		entersyscall()
	}
	// No signal may reach the child before its handlers are reset: they are the host's, with the host's memory.
	rawSyscall(syscall.SYS_RT_SIGPROCMASK, sigSetMask, uintptr(unsafe.Pointer(c.all)), uintptr(unsafe.Pointer(c.mask)), 8, 0, 0)
	pid, errno = cloneSyscall(c.trap, c.clone[0], c.clone[1], c.clone[2], c.clone[3], c.clone[4], uintptr(unsafe.Pointer(c)))
	rawSyscall(syscall.SYS_RT_SIGPROCMASK, sigSetMask, uintptr(unsafe.Pointer(c.mask)), 0, 8, 0, 0)
	exitsyscall()
	return pid, errno
}

const sigSetMask = 2 // SIG_SETMASK

// live is the child: it makes its calls, one after the other, the last an execve, and never returns.
//
//go:noinline
//go:nosplit
//go:norace
//go:nocheckptr
func live(c *child) {
	if c.reset {
		resetSignals()
	}
	rawSyscall(syscall.SYS_RT_SIGPROCMASK, sigSetMask, uintptr(unsafe.Pointer(c.mask)), 0, 8, 0, 0)
	denied := false
	for i := 0; i < c.n; i++ {
		c.at = int32(i)
		o := (*sys.Call)(unsafe.Add(c.calls, uintptr(i)*unsafe.Sizeof(sys.Call{})))
		if o.Kind == sys.Reclone {
			fail(c, i, reclone(c.next))
		}
		r, e := perform(c, o)
		if o.Kind == sys.Try {
			// As execvp(3): what is not there, or may not be executed, may be found further on.
			denied = denied || e == uintptr(syscall.EACCES)
			absent := e == uintptr(syscall.ENOENT) || e == uintptr(syscall.ENOTDIR)
			if o.Skip == 0 && absent && denied {
				e = uintptr(syscall.EACCES)
			} else if o.Skip > 0 && (absent || e == uintptr(syscall.EACCES)) {
				continue
			}
		}
		if e != 0 && e != o.Tolerate {
			fail(c, i, e)
		}
		if o.Save > 0 {
			*(*uintptr)(unsafe.Add(c.slots, uintptr(o.Save-1)*unsafe.Sizeof(r))) = r
		}
		if o.Kind == sys.Offer && e == 0 {
			offer(c, int32(r))
		}
		if e != 0 {
			i += o.Skip
		}
	}
	fail(c, c.n-1, uintptr(syscall.ENOEXEC))
}

// perform makes one call. It does not return where the result means that this process has nothing left to do.
//
//go:noinline
//go:nosplit
//go:norace
//go:nocheckptr
func perform(c *child, o *sys.Call) (r, errno uintptr) {
	if o.Kind == sys.CloseLoop {
		for fd := o.Args[0]; fd < o.Args[1]; fd++ {
			rawSyscall(syscall.SYS_CLOSE, fd, 0, 0, 0, 0, 0)
		}
		return 0, 0
	}
	if o.Kind == sys.Inspect {
		return 0, inspect(c, o)
	}
	if o.Kind == sys.Await {
		await(c, o)
	}
	r, e := rawSyscall(o.Trap, load(c, o.Load[0], o.Args[0]), load(c, o.Load[1], o.Args[1]), load(c, o.Load[2], o.Args[2]),
		load(c, o.Load[3], o.Args[3]), load(c, o.Load[4], o.Args[4]), load(c, o.Load[5], o.Args[5]))
	if e == 0 && (o.Kind == sys.Alive && r != 0 || o.Kind == sys.Parent && r != 0 && r != o.Args[0] || (o.Kind == sys.Receive || o.Kind == sys.Await) && r == 0) {
		exit() // the host has ended
	}
	if e != 0 {
		r = ^uintptr(0)
	}
	return r, e
}

// offer waits until the parent has taken the descriptor. The filter that is in force now may forbid any call that could wait, or
// end us; so this turns in a circle, for some seconds at most: the host may have been killed.
//
//go:noinline
//go:nosplit
//go:norace
//go:nocheckptr
func offer(c *child, fd int32) {
	const most = 1 << 33
	c.offer = fd + 1
	for range uint64(most) {
		if taken(c) == fd+1 {
			return
		}
	}
	for {
		exit()
	}
}

// taken reads the word anew each time. It does without sync/atomic, which calls the race detector's runtime in a build for it.
//
//go:noinline
//go:nosplit
//go:norace
//go:nocheckptr
func taken(c *child) int32 { return c.taken }

// await looks for what is to be read, and lets others have the processor, before the child sleeps: the parent's part is most often done
// sooner than a sleeping processor is woken.
//
//go:noinline
//go:nosplit
//go:norace
//go:nocheckptr
func await(c *child, o *sys.Call) {
	for range c.looks {
		_, e := rawSyscall(unix.SYS_RECVFROM, o.Args[0], o.Args[1], 1, unix.MSG_DONTWAIT|unix.MSG_PEEK, 0, 0)
		if e != uintptr(syscall.EAGAIN) {
			return
		}
		rawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0, 0, 0, 0)
	}
}

// inspect opens the program and reads its first two bytes. What is not there cannot be executed either, and what cannot
// be read may be a script all the same. A device or a fifo is not opened, which would have effects: execve refuses it, and whatever takes its place meanwhile
// is executed by the sealed program.
//
//go:noinline
//go:nosplit
//go:norace
//go:nocheckptr
func inspect(c *child, o *sys.Call) (errno uintptr) {
	_, e := rawSyscall(unix.SYS_STATX, o.Args[0], o.Args[1], unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, uintptr(unsafe.Pointer(&c.about)), 0)
	if e == uintptr(syscall.ENOENT) || e == uintptr(syscall.ENOTDIR) {
		return 0
	}
	if e != 0 || c.about.Mode&unix.S_IFMT != unix.S_IFREG {
		return scriptErrno
	}
	fd, e := rawSyscall(o.Trap, o.Args[0], o.Args[1], o.Args[2], o.Args[3], 0, 0)
	if e != 0 {
		return scriptErrno
	}
	n, e := rawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&c.head)), 2, 0, 0, 0)
	rawSyscall(syscall.SYS_CLOSE, fd, 0, 0, 0, 0, 0)
	if e == 0 && n == 2 && c.head[0] == '#' && c.head[1] == '!' {
		return scriptErrno
	}
	return 0
}

//go:nosplit
//go:norace
//go:nocheckptr
func load(c *child, slot uint16, arg uintptr) uintptr {
	if slot > 0 {
		return *(*uintptr)(unsafe.Add(c.slots, uintptr(slot-1)*unsafe.Sizeof(arg)))
	}
	return arg
}

// reclone makes the second child, a sibling of this one, which goes on in its place. It returns when there is none.
//
//go:noinline
//go:nosplit
//go:norace
//go:nocheckptr
func reclone(next *child) (errno uintptr) {
	_, e := cloneSyscall(next.trap, next.clone[0], next.clone[1], next.clone[2], next.clone[3], next.clone[4], uintptr(unsafe.Pointer(next)))
	if e != 0 {
		return e
	}
	exit()
	return 0
}

// fail reports the failure of call i and ends the child.
//
//go:noinline
//go:nosplit
//go:norace
//go:nocheckptr
func fail(c *child, i int, errno uintptr) {
	c.failed, c.errno = int32(i+1), int32(errno)
	exit()
}

//go:nosplit
//go:norace
func exit() {
	for {
		rawSyscall(syscall.SYS_EXIT_GROUP, 253, 0, 0, 0, 0, 0)
	}
}

// sigaction is as large as the kernel's struct sigaction of any architecture; the handler comes first but on mips.
type sigaction struct{ word [8]uintptr }

// resetSignals gives each signal that has a handler its default action. Ignored ones stay ignored, as with
// CLONE_CLEAR_SIGHAND.
//
//go:noinline
//go:nosplit
//go:norace
//go:nocheckptr
func resetSignals() {
	const ignore = 1 // SIG_IGN
	for sig := uintptr(1); sig <= 64; sig++ {
		var a sigaction
		_, e := rawSyscall(syscall.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&a)), 8, 0, 0)
		if e != 0 || a.word[0] == ignore || a.word[0] == 0 {
			continue
		}
		a = sigaction{}
		rawSyscall(syscall.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&a)), 0, 8, 0, 0)
	}
}
