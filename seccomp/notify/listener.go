//go:build linux

package notify

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Listener is one filter whose calls a [Supervisor] answers.
type Listener struct {
	supervisor *Supervisor
	d          descriptor
	key        uint64
	handler    Handler
	ctx        context.Context
	cancel     context.CancelFunc
	close      sync.Once

	mu   sync.Mutex
	busy int // handlers that run
}

func newListener(s *Supervisor, d descriptor, h Handler) *Listener {
	l := &Listener{supervisor: s, d: d, handler: h}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	// The kernel may wake us on the processor of the target, which sleeps from now on (Linux 6.6). It is only faster.
	d.conn.Control(func(fd uintptr) {
		unix.Syscall(unix.SYS_IOCTL, fd, unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	})
	return l
}

// Done is closed when the listener is: no process with the filter is left, or Close was called.
func (l *Listener) Done() <-chan struct{} { return l.ctx.Done() }

// Close ends the supervision, whose processes go on: calls that wait for an answer fail with ENOSYS, and so do all
// later ones. It may be called more than once, also from a handler.
func (l *Listener) Close() error {
	var err error
	l.close.Do(func() {
		l.supervisor.remove(l)
		err = l.d.file.Close()
		l.cancel()
	})
	return fail(err, "close")
}

// buffer is memory for one struct seccomp_notif, aligned as the kernel's, and as large.
type buffer []uint64

func newBuffer(size int) *buffer {
	b := make(buffer, (size+7)/8)
	return &b
}

// receive takes the next call, or nothing: its thread may have been killed since epoll told of it.
func (l *Listener) receive() *Request {
	b := l.supervisor.buffers.Get().(*buffer)
	defer l.supervisor.buffers.Put(b)
	clear(*b) // the kernel refuses anything but zeros
	if _, err := l.d.ioctl(unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&(*b)[0])); err != nil {
		if err != syscall.ENOENT && !errors.Is(err, os.ErrClosed) {
			l.Close() // epoll would tell of it for ever
		}
		return nil
	}
	l.begin()
	return newRequest(l, (*notification)(unsafe.Pointer(&(*b)[0])))
}

// begin counts the handlers. A listener that has its share of them is not listened to until one has ended.
func (l *Listener) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy++; l.busy == l.supervisor.share {
		l.supervisor.control(l, unix.EPOLL_CTL_MOD, 0)
	}
}

func (l *Listener) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy--; l.busy == l.supervisor.share-1 {
		l.supervisor.control(l, unix.EPOLL_CTL_MOD, unix.EPOLLIN)
	}
}

// handle lets the handler answer a call.
func (l *Listener) handle(r *Request) {
	ctx, cancel := context.WithCancel(l.ctx)
	look := watch(ctx, cancel, r, firstLook)
	var a Response // what a handler that does not return leaves
	defer func() {
		look.Stop()
		cancel()
		r.answer(a)
		l.end()
	}()
	a = l.handler(ctx, r)
}

// How often is looked whether the target still waits: soon at first, as most handlers have returned by then.
const (
	firstLook = 20 * time.Millisecond
	lastLook  = time.Second
)

// watch cancels the handler's context when nobody waits for its answer any more.
func watch(ctx context.Context, cancel context.CancelFunc, r *Request, pause time.Duration) *time.Timer {
	return time.AfterFunc(pause, func() {
		if ctx.Err() != nil {
			return
		}
		if r.Valid() != nil {
			cancel()
			return
		}
		watch(ctx, cancel, r, min(2*pause, lastLook))
	})
}

// send answers a call. That nobody waits for the answer is no error.
func (l *Listener) send(resp response) {
	b := *newBuffer(l.supervisor.respSize)
	*(*response)(unsafe.Pointer(&b[0])) = resp
	l.d.ioctl(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&b[0]))
}

// waits reports ErrGone when nobody waits for the answer to the call with the id.
func (l *Listener) waits(id uint64) error {
	_, err := l.d.ioctl(unix.SECCOMP_IOCTL_NOTIF_ID_VALID, ptr(&id))
	if err == syscall.ENOENT {
		return ErrGone
	}
	return fail(err, "look whether the call still waits")
}

func ptr(n *uint64) unsafe.Pointer { return unsafe.Pointer(n) }
