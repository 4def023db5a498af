//go:build linux

package notify

import (
	"context"
	"sync"
	"time"
)

// call is the context of a handler. Most handlers never look at it, so that it is made of nothing until they do.
type call struct {
	request *Request

	mu    sync.Mutex
	done  chan struct{}
	ended bool
	next  time.Time     // when to look again
	pause time.Duration // and how long after that
}

// How often is looked whether the target still waits.
const (
	firstLook = 5 * time.Millisecond
	lastLook  = 500 * time.Millisecond
)

// Deadline implements context.Context.
func (c *call) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }

// Value implements context.Context.
func (c *call) Value(any) any { return nil }

// Done implements context.Context. Who waits for it has somebody look.
func (c *call) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done != nil {
		return c.done
	}
	c.done = make(chan struct{})
	if c.ended {
		close(c.done)
		return c.done
	}
	c.pause = firstLook
	c.next = time.Now().Add(c.pause)
	c.request.listener.supervisor.watch.add(c)
	return c.done
}

// Err implements context.Context. It looks itself: there may be nobody who waits for Done.
func (c *call) Err() error {
	c.mu.Lock()
	ended := c.ended
	c.mu.Unlock()
	if !ended && c.request.Valid() == nil {
		return nil
	}
	c.cancel()
	return context.Canceled
}

// cancel ends the context.
func (c *call) cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	c.ended = true
	if c.done != nil {
		close(c.done)
		c.request.listener.supervisor.watch.remove(c)
	}
}

// look ends the context if nobody waits any more.
func (c *call) look(now time.Time) {
	c.mu.Lock()
	due := !now.Before(c.next)
	if due {
		c.pause = min(2*c.pause, lastLook)
		c.next = now.Add(c.pause)
	}
	c.mu.Unlock()
	if due && c.request.Valid() != nil {
		c.cancel()
	}
}

func (w *watch) add(c *call) {
	w.mu.Lock()
	if w.waiting == nil {
		w.waiting = map[*call]struct{}{}
	}
	w.waiting[c] = struct{}{}
	w.mu.Unlock()
	w.begin(c.request.listener.supervisor)
}

func (w *watch) remove(c *call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.waiting, c)
}

// closed ends the contexts of a listener's handlers.
func (w *watch) closed(l *Listener) {
	w.mu.Lock()
	var all []*call
	for c := range w.waiting {
		if c.request.listener == l {
			all = append(all, c)
		}
	}
	w.mu.Unlock()
	for _, c := range all {
		c.cancel()
	}
}
