//go:build linux

package notify

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Listener is one filter whose calls a [Supervisor] answers.
type Listener struct {
	supervisor *Supervisor
	d          *descriptor
	key        uint64
	handler    Handler
	close      sync.Once
	done       chan struct{}
	slow       atomic.Int32 // how many calls are still expected to be slow

	mu     sync.Mutex
	busy   int     // handlers that run
	runner *runner // who waits for its calls, if it is not the supervisor
	after  func()  // when it is closed
	over   bool
}

// patience is how many quick calls it takes for a slow handler to be thought quick again.
const patience = 64

func newListener(s *Supervisor, d *descriptor, h Handler) *Listener {
	// The kernel may wake us on the processor of the target, which sleeps from now on (Linux 6.6). It is only faster.
	unix.Syscall(unix.SYS_IOCTL, d.fd, unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	return &Listener{supervisor: s, d: d, handler: h, done: make(chan struct{})}
}

// Done is closed when the listener is: no process with the filter is left, or Close was called.
func (l *Listener) Done() <-chan struct{} { return l.done }

// Close ends the supervision, whose processes go on: calls that wait for an answer fail with ENOSYS, and so do all
// later ones. It may be called more than once, also from a handler. The error is always nil.
func (l *Listener) Close() error {
	l.close.Do(func() {
		l.supervisor.remove(l)
		l.d.close()
		l.dismiss()
		close(l.done)
		l.supervisor.watch.closed(l)
		if f := l.afterwards(); f != nil {
			f()
		}
	})
	return nil
}

// dismiss ends the runner, which holds a copy of the listener.
func (l *Listener) dismiss() {
	l.mu.Lock()
	k := l.runner
	l.mu.Unlock()
	if k != nil {
		k.dismiss()
	}
}

func (l *Listener) afterwards() func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	return l.after
}

// whenClosed calls f when the listener has been closed, perhaps at once.
func (l *Listener) whenClosed(f func()) {
	l.mu.Lock()
	l.after = f
	over := l.over
	l.mu.Unlock()
	if over {
		f()
	}
}

// receive takes the next call, or nothing: its thread may have been killed since epoll told of it.
func (l *Listener) receive() *Request {
	b := l.supervisor.buffer
	clear(b) // the kernel refuses anything but zeros
	if _, err := l.d.ioctl(unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&b[0])); err != nil {
		if err != syscall.ENOENT && !errors.Is(err, os.ErrClosed) {
			l.Close() // epoll would tell of it for ever
		}
		return nil
	}
	l.begin()
	return newRequest(l, (*notification)(unsafe.Pointer(&b[0])))
}

// begin counts the handlers. A listener that has its share of them is not listened to until one has ended.
func (l *Listener) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy++; l.busy == l.supervisor.share {
		l.listen()
	}
}

func (l *Listener) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy--; l.busy == l.supervisor.share-1 {
		l.listen()
	}
}

// listen says whether epoll is to tell of calls. Of the end it tells in any case.
func (l *Listener) listen() {
	var events uint32
	if l.runner == nil && l.busy < l.supervisor.share {
		events = unix.EPOLLIN
	}
	l.supervisor.control(l, unix.EPOLL_CTL_MOD, events)
}

// handle lets the handler answer a call.
func (l *Listener) handle(r *Request) {
	c := &call{request: r}
	var a Response // what a handler that does not return leaves
	defer func() {
		c.cancel()
		r.answer(a)
		l.end()
	}()
	a = l.handler(c, r)
	l.settle()
}

// settle puts what handlers have done before what comes after Cmd.Wait, as Go's memory model sees it: the two are connected by the kernel only, by
// the answer and the end of the command.
func (l *Listener) settle() {
	l.mu.Lock()
	defer l.mu.Unlock()
}

// handleSlow does so, and finds out whether it is slow.
func (l *Listener) handleSlow(r *Request) {
	begin := time.Now()
	l.handle(r)
	if time.Since(begin) > tick {
		l.slow.Store(patience)
	} else {
		l.slow.Add(-1)
	}
}

// send answers a call. That nobody waits for the answer is no error.
func (l *Listener) send(resp response) {
	if l.supervisor.respSize <= int(unsafe.Sizeof(resp)) {
		l.d.ioctl(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&resp))
		return
	}
	b := make([]uint64, (l.supervisor.respSize+7)/8)
	*(*response)(unsafe.Pointer(&b[0])) = resp
	l.d.ioctl(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&b[0]))
}

// waits reports ErrGone when nobody waits for the answer to the call with the id.
func (l *Listener) waits(id uint64) error {
	_, err := l.d.ioctl(unix.SECCOMP_IOCTL_NOTIF_ID_VALID, ptr(&id))
	if err == syscall.ENOENT || errors.Is(err, os.ErrClosed) {
		return ErrGone
	}
	return fail(err, "look whether the call still waits")
}

func ptr(n *uint64) unsafe.Pointer { return unsafe.Pointer(n) }
