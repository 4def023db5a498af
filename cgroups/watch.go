//go:build linux

package cgroups

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// EventKind is what happened to a group.
type EventKind uint8

// The kinds of events. A controller of version 1 tells of OOM and OOMKill only; a hierarchy of version 2 without controllers beside
// it tells of Populated to Thawed.
const (
	OOM         EventKind = iota + 1 // the limit of memory was met and nothing could be reclaimed
	OOMKill                          // processes were killed for lack of memory
	MemoryOver                       // the limit was met (memory.events max)
	MemorySlow                       // processes were slowed down at MemoryHigh
	PIDsMax                          // a fork was refused
	Populated                        // the first process has come into the group or below
	Empty                            // the last one has ended
	Frozen                           // all processes have stopped
	Thawed                           // they go on
	UnderStress                      // a pressure that was asked for by Watcher.AddPressure
	Removed                          // the group has been removed; the last event of a group
)

var kindNames = [...]string{"", "oom", "oom kill", "memory max", "memory high", "pids max", "populated", "empty", "frozen", "thawed", "pressure", "removed"}

// String gives the kind in words.
func (k EventKind) String() string {
	if k > 0 && int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("event %d", uint8(k))
}

// Event is what happened to one group.
type Event struct {
	Group    *Group
	Kind     EventKind
	Count    int64    // how often it has happened since the group is watched; 1 where it is not counted
	Resource Resource // of UnderStress
}

// Watcher tells what happens to groups: any number of them, with one epoll(7) descriptor, no goroutine, and one thread while Next waits.
// Events are counted by the kernel, so that several of a kind may come as one.
type Watcher struct {
	epoll int
	wake  int           // an eventfd that ends a wait
	turn  chan struct{} // held by the Next that waits

	mu      sync.Mutex
	closed  bool
	next    int32
	sources map[int32]*source
	queue   []Event
}

// Watch makes a watcher. It must be closed.
//
// The descriptor is waited for by a thread and not by the runtime's own epoll: looking at one epoll through another takes an event of pressure
// away before it can be read.
func Watch() (*Watcher, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, &Error{Op: "watch", Err: err}
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN})
	}
	if err != nil {
		unix.Close(epoll)
		unix.Close(wake)
		return nil, &Error{Op: "watch", Err: err}
	}
	return &Watcher{epoll: epoll, wake: wake, turn: make(chan struct{}, 1), sources: map[int32]*source{}}, nil
}

// Close ends a Next that waits, with os.ErrClosed. The groups stay open.
func (w *Watcher) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return os.ErrClosed
	}
	w.closed = true
	w.rouse()
	w.mu.Unlock()
	w.turn <- struct{}{} // the last Next has gone
	defer func() { <-w.turn }()
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.sources {
		w.drop(id)
	}
	return errors.Join(unix.Close(w.epoll), unix.Close(w.wake))
}

// rouse ends a wait.
func (w *Watcher) rouse() { unix.Write(w.wake, []byte{7: 1, 0: 1}) }

// Add watches a group, which must stay open as long as its events are looked at. Only what happens from then on is told. A kernel or a version that lacks some of the
// files is no error, but it is one if it has none of them.
func (w *Watcher) Add(g *Group) error {
	var added []*source
	for _, f := range []struct {
		controller, file string
		counts           []counter
	}{
		{"cgroup", "cgroup.events", []counter{{key: "populated", up: Populated, down: Empty}, {key: "frozen", up: Frozen, down: Thawed}}},
		{"memory", "memory.events", []counter{{key: "oom", up: OOM}, {key: "oom_kill", up: OOMKill}, {key: "max", up: MemoryOver}, {key: "high", up: MemorySlow}}},
		{"pids", "pids.events", []counter{{key: "max", up: PIDsMax}}},
	} {
		d, ok := g.dir(f.controller)
		if !ok || f.controller != "memory" && !d.v2 { // version 1 counts in pids.events, and tells nobody
			continue
		}
		s, err := w.source(g, d, f.file, f.counts)
		if err != nil {
			for _, s := range added {
				s.close()
			}
			return err
		}
		if s != nil {
			added = append(added, s)
		}
	}
	if len(added) == 0 {
		return missing("watch", "", "", g.String(), "the group has no files that tell of events")
	}
	return w.register(added)
}

// AddPressure watches for stress: an UnderStress event when tasks of the group have waited for the resource for stall within window, at most
// one event in a window. With full, only the time counts in which all of them waited. Windows are of 500 ms to 10 s; without CAP_SYS_RESOURCE, of
// a multiple of 2 s (Linux 6.5). In version 2 only.
func (w *Watcher) AddPressure(g *Group, r Resource, full bool, stall, window time.Duration) error {
	d := g.v2()
	if d == nil {
		return inexpressible("AddPressure", string(r), false)
	}
	file := string(r) + ".pressure"
	trigger := fmt.Sprintf("%s %d %d", either(full, "full", "some"), stall.Microseconds(), window.Microseconds())
	fd, err := d.kernel.open(d.fd(), file, unix.O_RDWR|unix.O_NONBLOCK)
	if err != nil {
		return d.failed("watch", file, trigger, err)
	}
	if _, err := d.kernel.write(fd, trigger+"\x00"); err != nil {
		unix.Close(fd)
		return d.failed("watch", file, trigger, err)
	}
	return w.register([]*source{{group: g, fd: fd, read: fd, res: r}})
}

// register waits for the sources. Their counts begin with what the files say before they are waited for, and what changes meanwhile is seen: reading
// a file is what makes the kernel tell of the next change.
func (w *Watcher) register(added []*source) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		for _, s := range added {
			s.close()
		}
		return &Error{Op: "watch", Err: os.ErrClosed}
	}
	for i, s := range added {
		if err := w.registerOne(s); err != nil {
			for _, s := range added[i:] {
				s.close()
			}
			for ; i > 0; i-- { // the last ones that were registered
				w.drop(w.next - int32(i) + 1)
			}
			return &Error{Op: "watch", Group: s.group.String(), Err: err}
		}
	}
	return nil
}

func (w *Watcher) registerOne(s *source) error {
	if err := s.look(func(*counter, int64) {}); err != nil {
		return err
	}
	events := uint32(unix.EPOLLPRI)
	if s.read != s.fd {
		events = unix.EPOLLIN
	}
	if err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, s.fd, &unix.EpollEvent{Events: events, Fd: w.next + 1}); err != nil {
		return err
	}
	w.next++
	w.sources[w.next] = s
	return nil
}

// Forget stops watching a group.
func (w *Watcher) Forget(g *Group) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, s := range w.sources {
		if s.group == g {
			w.drop(id)
		}
	}
}

func (w *Watcher) drop(id int32) {
	s := w.sources[id]
	unix.EpollCtl(w.epoll, unix.EPOLL_CTL_DEL, s.fd, nil)
	s.close()
	delete(w.sources, id)
}

// Next waits for an event, until the context ends. Of several calls at once one waits, and the others for their turn.
func (w *Watcher) Next(ctx context.Context) (Event, error) {
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
	case <-ctx.Done():
		return Event{}, ctx.Err()
	}
	defer w.until(ctx)()
	for {
		if e, ok, err := w.pop(); ok || err != nil {
			return e, err
		}
		if err := ctx.Err(); err != nil {
			return Event{}, err
		}
		if err := w.wait(); err != nil {
			return Event{}, &Error{Op: "watch", Err: err}
		}
	}
}

// until ends the waiting with the context. The function that it gives returns when the watcher is no longer used for it.
func (w *Watcher) until(ctx context.Context) func() {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		w.rouse()
		close(ended)
	})
	return func() {
		if !stop() {
			<-ended
		}
	}
}

func (w *Watcher) pop() (e Event, ok bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return e, false, os.ErrClosed
	}
	if len(w.queue) == 0 {
		return e, false, nil
	}
	e, w.queue = w.queue[0], w.queue[1:]
	return e, true, nil
}

// wait sleeps until some file has changed, and reads all that have.
func (w *Watcher) wait() error {
	var ready [64]unix.EpollEvent
	n, err := unix.EpollWait(w.epoll, ready[:], -1)
	if err != nil && err != unix.EINTR {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range ready[:max(n, 0)] {
		if e.Fd == 0 {
			unix.Read(w.wake, make([]byte, 8))
		} else {
			w.ready(e.Fd)
		}
	}
	return nil
}

// String lists the groups that are watched.
func (w *Watcher) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := map[string]bool{}
	var all []string
	for _, s := range w.sources {
		if name := s.group.String(); !seen[name] {
			seen[name] = true
			all = append(all, name)
		}
	}
	return strings.Join(all, " ")
}
