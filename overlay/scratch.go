//go:build linux

package overlay

import (
	"os"
	"path"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// Scratch keeps the scratch upper of a sandbox, or of a mount, for whoever started it ([Stack].Keep). What is written can so be made a layer
// while the sandbox runs, and when it has ended. The zero value is ready for use; it is one sandbox's, until it is closed, and a second one is an EBUSY.
//
// It is a descriptor of a directory that is at no path, with which the sandbox has nothing to do. The memory is free when both have ended.
type Scratch struct {
	mu    sync.Mutex
	used  bool
	upper *os.File
}

// Freeze is the function [Freeze] for the scratch upper: it copies what has been written to a new directory, layer. Before there is a sandbox
// the error is ENOENT.
func (s *Scratch) Freeze(layer string) error {
	src, err := s.open()
	if err != nil {
		return err
	}
	defer src.Close()
	return freeze(src, layer)
}

// open opens the directory once more: who reads it from its beginning must not share the place with others.
func (s *Scratch) open() (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.upper == nil {
		return nil, &Error{Op: "freeze", Err: syscall.ENOENT, Hint: "no sandbox has been started with this Scratch"}
	}
	fd, err := unix.Openat(int(s.upper.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &Error{Op: "open", Path: s.upper.Name(), Err: err}
	}
	return os.NewFile(uintptr(fd), s.upper.Name()), nil
}

// Close lets the scratch upper go, also that of a start that has failed. A sandbox that runs keeps it. The Scratch can be used for another one.
func (s *Scratch) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	upper := s.upper
	s.upper, s.used = nil, false
	if upper == nil {
		return nil
	}
	return upper.Close()
}

// reserve makes it the one sandbox's that is being started.
func (s *Scratch) reserve() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used {
		return &Error{Op: "keep the scratch upper", Err: syscall.EBUSY, Hint: "the Scratch has that of another sandbox, until it is closed"}
	}
	s.used = true
	return nil
}

// abandon gives it back where the start failed before there was anything.
func (s *Scratch) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.upper == nil {
		s.used = false
	}
}

func (s *Scratch) take(f *os.File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.used || s.upper != nil { // closed meanwhile
		f.Close()
		return &Error{Op: "keep the scratch upper", Err: syscall.EBADF, Hint: "the Scratch was closed during the start"}
	}
	s.upper = f
	return nil
}

// recordKeep records that a Scratch is one sandbox's.
func (s Stack) recordKeep(p *plan.Plan) {
	if s.Keep == nil {
		return
	}
	p.Before(plan.Action{
		Name: "keep the scratch upper",
		Do:   func(*plan.Run) error { return s.Keep.reserve() },
		Undo: func(*plan.Run) error { s.Keep.abandon(); return nil },
	})
}

// takeScratch has the child hand over the scratch upper.
func (b *build) takeScratch() {
	if b.s.Keep == nil {
		return
	}
	b.p.TakeAt(plan.Root, plan.Call("openat", unix.SYS_OPENAT, plan.Saved(*b.store), plan.Str("upper"),
		plan.Number(unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, "O_RDONLY|O_DIRECTORY|O_NOFOLLOW|O_CLOEXEC"), plan.Int(0)),
		func(_ *plan.Run, f *os.File) error { return b.s.Keep.take(f) })
}

// freeze copies an upper directory.
func freeze(src *os.File, layer string) error {
	part, err := newDir(layer)
	if err != nil {
		return err
	}
	if err := publish(src, part, layer); err != nil {
		return err
	}
	return syncDir(path.Dir(layer))
}
