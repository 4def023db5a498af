//go:build linux

package caisson

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"
)

// canceler ends a command whose context has ended, and a Wait that takes too long.
type canceler struct {
	unregister func() bool
	called     chan struct{} // closed when Cancel has returned

	mu    sync.Mutex
	err   error // what Wait returns for the end of the context
	cause error // why the context ended; nil when it did not end the command
	late  error // exec.ErrWaitDelay when pipes had to be closed
	timer *time.Timer
}

// watch begins to watch the context.
func (c *Cmd) watch() *canceler {
	w := &canceler{called: make(chan struct{}), unregister: func() bool { return true }}
	if (c.Cancel != nil || c.WaitDelay > 0) && c.ctx != nil && c.ctx.Done() != nil {
		w.unregister = context.AfterFunc(c.ctx, func() { w.contextEnded(c) })
	}
	return w
}

func (w *canceler) contextEnded(c *Cmd) {
	defer close(w.called)
	var err, cause error
	if c.Cancel != nil {
		switch e := c.Cancel(); {
		case e == nil:
			err, cause = c.ctx.Err(), c.ctx.Err()
		case !errors.Is(e, os.ErrProcessDone):
			err = fmt.Errorf("exec: canceling Cmd: %w", e)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err, w.cause = err, cause
	w.arm(c)
}

// arm starts the time that WaitDelay allows, once. The caller holds the lock.
func (w *canceler) arm(c *Cmd) {
	if c.WaitDelay > 0 && w.timer == nil {
		w.timer = time.AfterFunc(c.WaitDelay, func() { w.expired(c) })
	}
}

// expired kills the command and closes the pipes, which a process that the command has left behind may hold open.
func (w *canceler) expired(c *Cmd) {
	err := c.Process.Kill()
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil && !errors.Is(err, os.ErrProcessDone) && w.err == nil {
		w.err = fmt.Errorf("exec: killing Cmd: %w", err)
	}
	if err == nil && c.ctx != nil && w.cause == nil {
		w.cause = c.ctx.Err()
	}
	if !c.io.finished() {
		w.late = exec.ErrWaitDelay
		c.io.closeParentSide()
	}
}

// processEnded waits for a Cancel that is under way, and gives its error.
func (w *canceler) processEnded(c *Cmd) error {
	if !w.unregister() {
		<-w.called
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.arm(c)
	return w.err
}

// stop gives exec.ErrWaitDelay when pipes had to be closed.
func (w *canceler) stop() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
	return w.late
}
