//go:build linux

// Package deep walks trees of directories that somebody else has made as deep as he likes. Recursion with an open directory for each level would
// use up the descriptors of the host; a path from the top would be longer than the kernel takes.
package deep

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Held is how many directories a walk holds open at most, beside the topmost one and the one that it is at.
const Held = 32

// Tree says what is done to the directories below one. Its functions get descriptors that are not theirs to close.
type Tree struct {
	// Names lists what is to be opened in a directory.
	Names func(dir int) ([]string, error)

	// Open opens what is at name in a directory; -1 without an error passes over it.
	Open func(dir int, name string) (fd int, err error)

	// Before looks at what has been opened, and says whether there is something below it to be walked. The path is that from the top.
	Before func(fd int, path Path) (enter bool, err error)

	// After, if not nil, is told when all below a name has been walked and its descriptor is closed.
	After func(dir int, name string) error
}

// Error is that of a function of a [Tree], or of the walk, with the place.
type Error struct {
	Path string // from the top, "a/b"
	Err  error
}

// Error gives path and reason.
func (e *Error) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap gives Err.
func (e *Error) Unwrap() error { return e.Err }

// Path is the way from the top to a place. It is put together only when it is asked for: for each of n levels that would be n² bytes.
type Path struct {
	w    *walk
	name string
}

// most is about the length of a path that one can still use.
const most = unix.PathMax

// String joins the names with slashes. Of a path that is too long to be used the middle is left out.
func (p Path) String() string {
	names := make([]string, 0, len(p.w.levels))
	for _, l := range p.w.levels[1:] {
		names = append(names, l.name)
	}
	if p.name != "" {
		names = append(names, p.name)
	}
	s := strings.Join(names, "/")
	if len(s) > most {
		s = s[:most/2] + "/.../" + s[len(s)-most/2:]
	}
	return s
}

// level is a directory on the way down.
type level struct {
	fd    int // -1: closed for the sake of deeper ones
	id    Identity
	name  string
	names []string // still to be walked
}

type walk struct {
	*Tree
	levels []level
}

// Walk goes through all below the directory behind top, which stays open. It stops at the first error, which is an [*Error].
//
// At most [Held] directories are open at a time. Higher up the way back leads through "..", and what is there must be the directory from which the way led
// down: if it was moved meanwhile, the error is ESTALE.
func (t *Tree) Walk(top int) error {
	w := &walk{Tree: t}
	err := w.enter(top, "")
	for err == nil && len(w.levels) > 0 {
		err = w.step()
	}
	for i, l := range w.levels {
		if i > 0 && l.fd >= 0 {
			unix.Close(l.fd)
		}
	}
	return err
}

func (w *walk) last() *level { return &w.levels[len(w.levels)-1] }

func (w *walk) failed(name string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Path{w, name}.String(), err}
}

func (w *walk) step() error {
	l := w.last()
	if len(l.names) == 0 {
		return w.leave()
	}
	name := l.names[0]
	l.names = l.names[1:]
	fd, err := w.Open(l.fd, name)
	if err != nil || fd < 0 {
		return w.failed(name, err)
	}
	enter, err := w.Before(fd, Path{w, name})
	switch {
	case err != nil:
		unix.Close(fd)
		return w.failed(name, err)
	case !enter:
		unix.Close(fd)
		return w.after(name)
	}
	return w.enter(fd, name)
}

// enter takes over a descriptor.
func (w *walk) enter(fd int, name string) error {
	l := level{fd: fd, name: name}
	var err error
	if l.id, err = Identify(fd); err == nil {
		l.names, err = w.Names(fd)
	}
	if err != nil {
		if len(w.levels) == 0 {
			return &Error{"", err}
		}
		unix.Close(fd)
		return w.failed(name, err)
	}
	w.levels = append(w.levels, l)
	if i := len(w.levels) - 2 - Held; i > 0 {
		unix.Close(w.levels[i].fd)
		w.levels[i].fd = -1
	}
	return nil
}

// leave goes back up.
func (w *walk) leave() error {
	l := *w.last()
	if len(w.levels) == 1 {
		w.levels = nil
		return nil
	}
	above := &w.levels[len(w.levels)-2]
	var err error
	if above.fd < 0 {
		above.fd, err = openAbove(l.fd, above)
	}
	if err != nil {
		return w.failed("", err)
	}
	unix.Close(l.fd)
	w.levels = w.levels[:len(w.levels)-1]
	return w.after(l.name)
}

func (w *walk) after(name string) error {
	if w.After == nil {
		return nil
	}
	return w.failed(name, w.After(w.last().fd, name))
}

// openAbove opens the directory above, and no other one: the tree's owner may have moved a part of it.
func openAbove(fd int, want *level) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS}
	above, err := again(func() (int, error) { return unix.Openat2(fd, "..", &how) })
	if err != nil {
		return -1, err
	}
	id, err := Identify(above)
	if err == nil && id != want.id {
		err = syscall.ESTALE
	}
	if err != nil {
		unix.Close(above)
		return -1, err
	}
	return above, nil
}

// again repeats what a signal or a rename has interrupted (openat2(2)).
func again(f func() (int, error)) (int, error) {
	for {
		if n, err := f(); err != unix.EINTR && err != unix.EAGAIN {
			return n, err
		}
	}
}
