//go:build linux

package notify

import (
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// runner waits for the calls of one listener in the kernel (SECCOMP_IOCTL_NOTIF_RECV), which is a system call less for each call and disturbs
// nobody who waits for other listeners. From there the kernel comes back with a call or not at all. So it waits by a descriptor of its own, and
// to end it another file is put under the descriptor's number, and the thread is sent a signal: it then begins the system call anew, with a file that knows nothing of it.
type runner struct {
	listener *Listener
	fd       int
	buffer   []uint64                // struct seccomp_notif
	thread   atomic.Int32            // that waits, or has waited last
	calls    atomic.Uint32           // that it has received
	inline   atomic.Pointer[Request] // as the supervisor's

	mu        sync.Mutex
	dismissed bool // fd is not the listener any more
	closed    bool // fd is not ours any more

	seen  uint32 // calls, when the watch has looked last
	quiet int    // how often it has seen no other since
}

const (
	streak = 8 // calls of one listener, one after the other, that make it worth a runner
	calm   = 3 // ticks without a call until it is not
)

// runnerFor makes a runner when the listener's calls follow each other, and there is none: a supervisor has one at a time. There must be a handler to
// spare, and a processor: while a thread is in the kernel Go gives its processor to others, but not at once. Only who leads asks.
func (s *Supervisor) runnerFor(l *Listener) *runner {
	if s.latest != l {
		s.latest, s.row = l, 0
	}
	s.row++
	if s.row < streak || s.runner.Load() != nil || len(s.slots) == cap(s.slots) || runtime.GOMAXPROCS(0) == 1 || signal.Ignored(dismissal) {
		return nil
	}
	s.row = 0
	k := &runner{listener: l, buffer: make([]uint64, len(s.buffer))}
	if !l.give(k) {
		return nil
	}
	s.runner.Store(k)
	return k
}

// give lets the runner wait for the listener's calls, and nobody else.
func (l *Listener) give(k *runner) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy > 0 || !l.d.hold() {
		return false
	}
	defer l.d.release()
	fd, err := unix.FcntlInt(l.d.fd, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return false
	}
	if err := l.supervisor.control(l, unix.EPOLL_CTL_MOD, 0); err != nil {
		unix.Close(fd)
		return false
	}
	k.fd, l.runner = fd, k
	return true
}

// run handles calls, until it is dismissed or a handler has taken long.
func (k *runner) run() {
	defer k.end()
	for {
		r := k.receive()
		if r == nil {
			return
		}
		k.inline.Store(r)
		k.listener.handle(r)
		if !k.inline.CompareAndSwap(r, nil) {
			return
		}
	}
}

// receive waits for the next call; nil: there is none any more, or not for the runner.
func (k *runner) receive() *Request {
	runtime.LockOSThread() // it is this thread that waits
	defer runtime.UnlockOSThread()
	k.thread.Store(int32(unix.Gettid()))
	clear(k.buffer)
	for {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(k.fd), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&k.buffer[0])))
		if e == syscall.EINTR {
			continue
		}
		if e != 0 {
			return nil
		}
		k.calls.Add(1)
		k.listener.begin()
		return newRequest(k.listener, (*notification)(unsafe.Pointer(&k.buffer[0])))
	}
}

// dismissal is what the Go runtime sends to its own threads, too, and expects at any time.
const dismissal = unix.SIGURG

// dismiss has the runner come back, from the kernel as well. What it may have received just then it handles.
func (k *runner) dismiss() {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.listener.supervisor
	if k.closed || !s.poll.hold() {
		return // all listeners are closed before the descriptor of epoll is
	}
	defer s.poll.release()
	if !k.dismissed {
		k.dismissed = unix.Dup3(int(s.poll.fd), k.fd, unix.O_CLOEXEC) == nil
	}
	unix.Tgkill(unix.Getpid(), int(k.thread.Load()), dismissal)
}

// leave gives the listener back to who leads. The runner does not wait, and will not wait again.
func (k *runner) leave() {
	k.dismiss()
	l := k.listener
	l.mu.Lock()
	if l.runner == k {
		l.runner = nil
		l.listen()
	}
	l.mu.Unlock()
	l.supervisor.runner.CompareAndSwap(k, nil)
}

func (k *runner) end() {
	k.mu.Lock()
	k.closed = true
	unix.Close(k.fd)
	k.mu.Unlock()
	k.leave()
}

// look is what the watch does with each tick.
func (k *runner) look() {
	calls, r := k.calls.Load(), k.inline.Load()
	switch {
	case calls != k.seen:
		k.seen, k.quiet = calls, 0
	case r == nil:
		if k.quiet++; k.quiet >= calm {
			k.dismiss()
		}
	case k.inline.CompareAndSwap(r, nil):
		r.listener.slow.Store(patience)
		k.leave()
	}
}
