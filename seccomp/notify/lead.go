//go:build linux

package notify

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// lead waits for calls and handles them. One goroutine does so at a time. It handles a call itself, because to wake another
// would cost more than most handlers do; when a handler takes longer, the lead is taken from it ([watch.run]) and goes to another goroutine. Where
// handlers have been slow before, it is given away at once, and where one listener's calls follow each other, it is given away for the sake of these.
func (s *Supervisor) lead() {
	s.slot()
	defer func() { <-s.slots }()
	for {
		event, err := s.wait()
		if err != nil {
			return // closed
		}
		r := s.receive(event)
		if r == nil {
			continue
		}
		if r.listener.slow.Load() > 0 {
			go s.lead()
			r.listener.handleSlow(r)
			return
		}
		s.inline.Store(r)
		s.watch.begin(s)
		if !s.handleInline(r) {
			return
		}
		if k := s.runnerFor(r.listener); k != nil {
			go s.lead()
			k.run()
			return
		}
	}
}

// slot waits until there is room for a handler, or for who leads. A runner makes room.
func (s *Supervisor) slot() {
	select {
	case s.slots <- struct{}{}:
	default:
		if k := s.runner.Load(); k != nil {
			k.dismiss()
		}
		s.slots <- struct{}{}
	}
}

// handleInline reports whether this goroutine still leads. The lead is not lost with a handler that does not return.
func (s *Supervisor) handleInline(r *Request) (leads bool) {
	returned := false
	defer func() {
		leads = s.inline.CompareAndSwap(r, nil)
		if leads && !returned {
			go s.lead()
		}
	}()
	r.listener.handle(r)
	returned = true
	return leads
}

// Calls come in groups. After one, a thread waits for the next for so long, in ms: it is there faster than a goroutine. Then it is the Go
// runtime that waits, without a thread.
const linger = 3

// wait gives the next event of a listener. It fails when the supervisor is closed.
func (s *Supervisor) wait() (e unix.EpollEvent, err error) {
	var events [1]unix.EpollEvent
	n := 0
	if s.poll.hold() {
		n, _ = unix.EpollWait(int(s.poll.fd), events[:], linger)
		s.poll.release()
	}
	if n > 0 {
		return events[0], nil
	}
	err = s.conn.Read(func(fd uintptr) bool {
		n, err := unix.EpollWait(int(fd), events[:], 0)
		return n > 0 || err != nil && err != unix.EINTR
	})
	return events[0], err
}

// receive takes the call that the event tells of; nil: there is none any more.
func (s *Supervisor) receive(event unix.EpollEvent) *Request {
	l := s.listener(key(event))
	switch {
	case l == nil:
	case event.Events&unix.EPOLLIN != 0:
		return l.receive()
	case event.Events&unix.EPOLLHUP != 0:
		l.Close() // nobody is left who could make a call
	} // EPOLLERR is a signal that has interrupted epoll while it asked
	return nil
}

// key is what tells listeners apart: no descriptor, whose number is soon another's.
func key(e unix.EpollEvent) uint64 { return uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32 }

func event(key uint64, events uint32) *unix.EpollEvent {
	return &unix.EpollEvent{Events: events, Fd: int32(key), Pad: int32(key >> 32)}
}

// watch looks after handlers while there are any, and sleeps for ever when there are none.
type watch struct {
	runs atomic.Bool

	mu      sync.Mutex
	waiting map[*call]struct{} // whose handlers want to know when nobody waits any more
}

// How often is looked after handlers, and how many times without need before it is given up.
const (
	tick  = time.Millisecond
	spare = 10
)

// begin sees to it that somebody looks after a call that has just begun.
func (w *watch) begin(s *Supervisor) {
	if !w.runs.Load() && w.runs.CompareAndSwap(false, true) {
		go w.run(s)
	}
}

func (w *watch) run(s *Supervisor) {
	var last *Request
	for idle := 0; idle < spare; idle++ {
		time.Sleep(tick)
		now := s.inline.Load()
		if now != nil && now == last && s.inline.CompareAndSwap(now, nil) {
			now.listener.slow.Store(patience)
			go s.lead()
		}
		k := s.runner.Load()
		if k != nil {
			k.look()
		}
		if now != nil || k != nil || w.look() {
			idle = 0
		}
		last = now
	}
	w.runs.Store(false)
	if s.inline.Load() != nil || s.runner.Load() != nil || w.look() { // it has begun meanwhile
		w.begin(s)
	}
}

// look tells handlers when nobody waits for their answers any more; false: there are none who would like to know.
func (w *watch) look() bool {
	w.mu.Lock()
	all := make([]*call, 0, len(w.waiting))
	for c := range w.waiting {
		all = append(all, c)
	}
	w.mu.Unlock()
	now := time.Now()
	for _, c := range all {
		c.look(now)
	}
	return len(all) > 0
}
