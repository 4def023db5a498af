//go:build linux

package notify

import (
	"context"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Handler answers one call. Handlers run concurrently and may take their time: the thread that made the call waits, and nobody else. The context
// ends when that thread no longer waits, at the latest a second later, and when its [Listener] is closed; the answer is then dropped. The request is of
// no use after the handler has returned.
//
// A panic in a handler ends the program, as in any goroutine. The call is refused before. A handler that ends its goroutine (runtime.Goexit) refuses
// the call as well.
type Handler func(ctx context.Context, r *Request) Response

// Supervisor answers the calls of any number of filters. Idle, it needs one descriptor of epoll(7) and one goroutine without a
// thread, and for each filter its listener. While there are calls one thread waits for the next, and one more, with a descriptor, for those of one listener
// whose calls follow each other; where Go has one processor only (runtime.GOMAXPROCS), or the program ignores SIGURG, there is no such thread.
type Supervisor struct {
	poll     *descriptor
	conn     syscall.RawConn // of poll, to wait without a thread
	share    int
	slots    chan struct{} // one for each handler that runs, and one for who waits for the next call
	respSize int
	buffer   []uint64 // struct seccomp_notif, for who waits for the next call
	watch    watch

	// inline is the call that is handled by the goroutine that is to wait for the next one. Whoever sets it to nil is to do so.
	inline atomic.Pointer[Request]

	latest *Listener // of the last call, for who waits for the next
	row    int       // how many it has made since another's
	runner atomic.Pointer[runner]

	mu        sync.Mutex
	listeners map[uint64]*Listener
	last      uint64 // key of the newest listener
	closed    bool
}

// Handlers bounds how many handlers run at a time: of all listeners of a [Supervisor], and of each. Calls beyond that
// wait. The zero value is 256 and 16: one sandbox cannot take all.
type Handlers struct{ All, Each int }

const (
	defaultAll  = 256
	defaultEach = 16
)

// NewSupervisor makes a supervisor that is to be closed after use. First kernel: 5.0.
func NewSupervisor(h Handlers) (*Supervisor, error) {
	if h.All < 0 || h.Each < 0 {
		return nil, invalid("supervisor", "a negative number of handlers")
	}
	notif, resp, err := sizes()
	if err != nil {
		return nil, err
	}
	s := &Supervisor{slots: make(chan struct{}, or(h.All, defaultAll)), share: or(h.Each, defaultEach), respSize: resp,
		buffer: make([]uint64, (notif+7)/8), listeners: map[uint64]*Listener{}}
	if err := s.openEpoll(); err != nil {
		return nil, err
	}
	go s.lead()
	return s, nil
}

func or(n, zero int) int {
	if n == 0 {
		return zero
	}
	return n
}

// openEpoll makes an epoll instance that the Go runtime polls itself: who waits for it holds no thread.
func (s *Supervisor) openEpoll() error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fail(err, "epoll_create1")
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return fail(err, "fcntl")
	}
	f := os.NewFile(uintptr(fd), "epoll")
	s.conn, err = f.SyscallConn()
	s.poll = &descriptor{file: f, fd: uintptr(fd)} // File.Fd would make it block
	return fail(err, "epoll")
}

func (s *Supervisor) listener(key uint64) *Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listeners[key]
}

// Serve answers the calls of a filter from now on. The listener is what seccomp(2) gave for
// SECCOMP_FILTER_FLAG_NEW_LISTENER; it belongs to the supervisor now, also after an error, and may be read by nobody else. It is closed when no process with
// the filter is left.
func (s *Supervisor) Serve(listener *os.File, h Handler) (*Listener, error) {
	l, err := s.serve(newDescriptor(listener), h)
	if err != nil {
		listener.Close()
	}
	return l, err
}

func (s *Supervisor) serve(d *descriptor, h Handler) (*Listener, error) {
	if h == nil {
		return nil, invalid("serve", "there is no handler")
	}
	if err := check(d); err != nil {
		return nil, err
	}
	l := newListener(s, d, h)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fail(os.ErrClosed, "serve")
	}
	s.last++
	l.key = s.last
	s.listeners[l.key] = l
	if err := s.control(l, unix.EPOLL_CTL_ADD, unix.EPOLLIN); err != nil {
		delete(s.listeners, l.key)
		return nil, fail(err, "epoll_ctl")
	}
	return l, nil
}

// check finds out whether a descriptor is a listener, by asking about an id that nobody has.
func check(d *descriptor) error {
	id := uint64(0)
	_, err := d.ioctl(unix.SECCOMP_IOCTL_NOTIF_ID_VALID, ptr(&id))
	if err == syscall.ENOENT || err == nil {
		return nil
	}
	return &Error{Op: "serve", Err: err, Hint: hintFor(err, syscall.ENOTTY, "the descriptor is not a listener of seccomp(2)")}
}

func (s *Supervisor) control(l *Listener, op int, events uint32) error {
	if !s.poll.hold() {
		return os.ErrClosed
	}
	defer s.poll.release()
	if !l.d.hold() {
		return os.ErrClosed
	}
	defer l.d.release()
	return unix.EpollCtl(int(s.poll.fd), op, int(l.d.fd), event(l.key, events))
}

// remove forgets a listener. The entry in epoll is taken out by hand: the target may hold the same listener open, as it does until
// it has executed its command.
func (s *Supervisor) remove(l *Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l.key)
	s.control(l, unix.EPOLL_CTL_DEL, 0)
}

// Close closes all listeners. Calls that wait for an answer fail with ENOSYS, and so do all later ones. It does not wait for
// handlers that still run.
func (s *Supervisor) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return fail(os.ErrClosed, "close")
	}
	s.closed = true
	all := make([]*Listener, 0, len(s.listeners))
	for _, l := range s.listeners {
		all = append(all, l)
	}
	s.mu.Unlock()
	for _, l := range all {
		l.Close()
	}
	s.poll.close()
	return nil
}
