//go:build linux

package notify

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Handler answers one call. Handlers run concurrently, each in a goroutine of its own, and may take their time: the
// thread that made the call waits. The context ends when it no longer does, at the latest a second later, and when its [Listener] is
// closed; the answer is then dropped. The request is of no use after the handler has returned.
//
// A panic in a handler ends the program, as in any goroutine. The call is refused before. A handler that ends its goroutine (runtime.Goexit) refuses
// the call as well.
type Handler func(ctx context.Context, r *Request) Response

// Supervisor answers the calls of any number of filters. Idle, it needs one descriptor of epoll(7) and one goroutine without a
// thread, and for each filter its listener.
type Supervisor struct {
	poll      descriptor
	slots     chan struct{} // one for each handler that runs, and one for who waits for the next call
	share     int
	notifSize int
	respSize  int
	buffers   sync.Pool // *buffer for the kernel's struct seccomp_notif

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
	poll, err := newEpoll()
	if err != nil {
		return nil, err
	}
	s := &Supervisor{poll: poll, slots: make(chan struct{}, or(h.All, defaultAll)), share: or(h.Each, defaultEach),
		notifSize: notif, respSize: resp, listeners: map[uint64]*Listener{}}
	s.buffers.New = func() any { return newBuffer(notif) }
	go s.lead()
	return s, nil
}

func or(n, zero int) int {
	if n == 0 {
		return zero
	}
	return n
}

// newEpoll makes an epoll instance that the Go runtime polls itself: who waits for it holds no thread.
func newEpoll() (descriptor, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		if err = unix.SetNonblock(fd, true); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		return descriptor{}, fail(err, "epoll_create1")
	}
	return newDescriptor(os.NewFile(uintptr(fd), "epoll"))
}

// lead waits for one call and answers it. Before that it leaves the waiting to another goroutine: the call is
// handled by the one that is awake already.
func (s *Supervisor) lead() {
	s.slots <- struct{}{}
	defer func() { <-s.slots }()
	for {
		event, err := s.wait()
		if err != nil {
			return // closed
		}
		if r := s.receive(event); r != nil {
			go s.lead()
			r.listener.handle(r)
			return
		}
	}
}

// wait gives the next event of a listener. It fails when the supervisor is closed.
func (s *Supervisor) wait() (event unix.EpollEvent, err error) {
	var events [1]unix.EpollEvent
	e := s.poll.conn.Read(func(fd uintptr) bool {
		var n int
		n, err = ignoringEINTR(func() (int, error) { return unix.EpollWait(int(fd), events[:], 0) })
		return n > 0 || err != nil
	})
	return events[0], errors.Join(e, err)
}

// receive takes the call that the event tells of; nil: there is none any more.
func (s *Supervisor) receive(event unix.EpollEvent) *Request {
	l := s.listener(key(event))
	if l == nil {
		return nil
	}
	var r *Request
	if event.Events&unix.EPOLLIN != 0 {
		r = l.receive()
	} else if event.Events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		l.Close() // nobody is left who could make a call
	}
	return r
}

// key is what tells listeners apart: no descriptor, whose number is soon another's.
func key(e unix.EpollEvent) uint64 { return uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32 }

func event(key uint64, events uint32) *unix.EpollEvent {
	return &unix.EpollEvent{Events: events, Fd: int32(key), Pad: int32(key >> 32)}
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
	l, err := s.serve(listener, h)
	if err != nil {
		listener.Close()
	}
	return l, err
}

func (s *Supervisor) serve(listener *os.File, h Handler) (*Listener, error) {
	if h == nil {
		return nil, invalid("serve", "there is no handler")
	}
	d, err := newDescriptor(listener)
	if err != nil {
		return nil, fail(err, "serve")
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
	if err := s.control(l, unix.EPOLL_CTL_ADD, unix.EPOLLIN); err != nil {
		return nil, fail(err, "epoll_ctl")
	}
	s.listeners[l.key] = l
	return l, nil
}

func (s *Supervisor) control(l *Listener, op int, events uint32) (err error) {
	e := s.poll.conn.Control(func(poll uintptr) {
		e := l.d.conn.Control(func(fd uintptr) {
			err = unix.EpollCtl(int(poll), op, int(fd), event(l.key, events))
		})
		if e != nil {
			err = e
		}
	})
	if e != nil {
		err = e
	}
	return err
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
	s.closed = true
	all := make([]*Listener, 0, len(s.listeners))
	for _, l := range s.listeners {
		all = append(all, l)
	}
	s.mu.Unlock()
	for _, l := range all {
		l.Close()
	}
	return fail(s.poll.file.Close(), "close")
}

// check finds out whether a descriptor is a listener: ids begin at random, and 0 is none that waits.
func check(d descriptor) error {
	id := uint64(0)
	_, err := d.ioctl(unix.SECCOMP_IOCTL_NOTIF_ID_VALID, ptr(&id))
	if err == syscall.ENOENT || err == nil {
		return nil
	}
	return &Error{Op: "serve", Err: err, Hint: hintFor(err, syscall.ENOTTY, "the descriptor is not a listener of seccomp(2)")}
}
