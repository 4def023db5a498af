//go:build linux

package chroot

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/deep"
)

// trail is the way from a directory down to one below it, however deep: it holds the descriptors of the innermost directories only, so that a
// hostile tree of thousands of levels cannot use up those of the host.
type trail struct {
	root  int             // where it begins; not ours to close
	flags int             // how directories are opened
	above []deep.Identity // those below root that have been closed again
	held  []level         // the innermost ones
	names []string        // of all of them
}

// level is a directory that is held open.
type level struct {
	fd      int
	pending []string // names in it that have been read and not looked at, see remover
}

func (t *trail) top() int {
	if len(t.held) == 0 {
		return t.root
	}
	return t.held[len(t.held)-1].fd
}

func (t *trail) depth() int { return len(t.names) }

// down goes to what is at name in the innermost directory. The descriptor is the trail's from now on.
func (t *trail) down(fd int, name string) error {
	if len(t.held) == deep.Held {
		id, err := deep.Identify(t.held[0].fd)
		if err != nil {
			unix.Close(fd)
			return err
		}
		unix.Close(t.held[0].fd)
		t.above = append(t.above, id)
		t.held = append(t.held[:0], t.held[1:]...)
	}
	t.held, t.names = append(t.held, level{fd: fd}), append(t.names, name)
	return nil
}

// up goes back to where the trail came from. That is EAGAIN where the directory is not held any more and somebody has moved what is below it: ".." of
// that is then another directory, perhaps one outside.
func (t *trail) up() error {
	if t.depth() == 0 {
		return nil
	}
	here := len(t.held) - 1
	if here == 0 && len(t.above) > 0 {
		fd, err := t.reopen()
		if err != nil {
			return err
		}
		unix.Close(t.held[0].fd)
		t.held[0], t.above = level{fd: fd}, t.above[:len(t.above)-1]
	} else {
		unix.Close(t.held[here].fd)
		t.held = t.held[:here]
	}
	t.names = t.names[:len(t.names)-1]
	return nil
}

// reopen opens the directory above the only one that is held.
func (t *trail) reopen() (int, error) {
	fd, err := unix.Openat(t.held[0].fd, "..", t.flags|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	id, err := deep.Identify(fd)
	if err == nil && id != t.above[len(t.above)-1] {
		err = syscall.EAGAIN
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// restart goes back to the beginning.
func (t *trail) restart() {
	for _, l := range t.held {
		unix.Close(l.fd)
	}
	t.held, t.above, t.names = nil, nil, nil
}
