//go:build linux

package chroot

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// RemoveAll removes name and all below it, however deep; nothing that is there is no error. Links are removed, not followed, and what is mounted
// in it is not entered: EBUSY. It stops at the first thing that cannot be removed. Somebody who makes new files as fast as they are removed keeps it at
// work; so end the sandbox first.
func (r *Root) RemoveAll(name string) error {
	dir, base, err := r.parent(name)
	if err == syscall.ENOENT {
		return nil
	}
	if err != nil {
		return r.fail("remove", name, err)
	}
	defer dir.Close()
	return r.fail("remove", name, removeTree(int(dir.Fd()), base))
}

// remover removes a tree in which others may move, make and exchange what they like.
type remover struct {
	trail
	base    string
	pending []string // names in the directory where it begins
	lost    int      // times that somebody was in the way
	buffer  []byte
}

// mostLost is how often the remover puts up with others; to begin anew counts a hundred times.
const mostLost = 10_000

func removeTree(dir int, base string) error {
	r := &remover{trail: trail{root: dir, flags: unix.O_RDONLY}, base: base, pending: []string{base}, buffer: make([]byte, 4096)}
	defer r.restart()
	for {
		name, more, err := r.next()
		switch {
		case err != nil:
			return err
		case more:
			err = r.remove(name)
		case r.depth() == 0:
			return nil
		default:
			err = r.leave()
		}
		if err != nil {
			return err
		}
	}
}

// next gives a name in the innermost directory.
func (r *remover) next() (string, bool, error) {
	list := r.list()
	if len(*list) == 0 && r.depth() > 0 {
		n, err := unix.ReadDirent(r.top(), r.buffer)
		if err != nil && err != syscall.ENOENT { // somebody has removed it
			return "", false, err
		}
		_, _, *list = unix.ParseDirent(r.buffer[:max(n, 0)], -1, nil)
	}
	if len(*list) == 0 {
		return "", false, nil
	}
	last := len(*list) - 1
	name := (*list)[last]
	*list = (*list)[:last]
	return name, true, nil
}

func (r *remover) list() *[]string {
	if r.depth() == 0 {
		return &r.pending
	}
	return &r.held[len(r.held)-1].pending
}

// again puts a name back, because somebody has made it something else meanwhile.
func (r *remover) again(name string, err error) error {
	if r.lost++; r.lost > mostLost {
		return err
	}
	*r.list() = append(*r.list(), name)
	return nil
}

// remove removes what is at name, or goes down into it.
func (r *remover) remove(name string) error {
	err := unix.Unlinkat(r.top(), name, 0)
	if err != syscall.EISDIR && err != syscall.EPERM {
		return gone(err)
	}
	// The kernel looks for mounts before it looks for contents.
	switch e := unix.Unlinkat(r.top(), name, unix.AT_REMOVEDIR); {
	case e == syscall.ENOTDIR && err == syscall.EPERM:
		return err
	case e == syscall.ENOTDIR:
		return r.again(name, e)
	case e != syscall.ENOTEMPTY && e != syscall.EEXIST:
		return gone(e)
	}
	return r.enter(name)
}

func (r *remover) enter(name string) error {
	fd, err := unix.Openat(r.top(), name, r.flags|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	switch err {
	case nil:
		return r.down(fd, name)
	case syscall.ENOTDIR, syscall.ELOOP:
		return r.again(name, err)
	}
	return gone(err)
}

// leave removes the directory that has become empty from the one above it. Where it has been moved meanwhile, all begins anew.
func (r *remover) leave() error {
	name := r.names[len(r.names)-1]
	err := r.up()
	if err == syscall.EAGAIN || err == syscall.ENOENT {
		r.restart()
		r.pending, r.lost = nil, r.lost+100
		return r.again(r.base, err)
	}
	if err != nil {
		return err
	}
	switch err := unix.Unlinkat(r.top(), name, unix.AT_REMOVEDIR); err {
	case syscall.ENOTEMPTY, syscall.EEXIST, syscall.ENOTDIR:
		return r.again(name, err)
	default:
		return gone(err)
	}
}

func gone(err error) error {
	if err == syscall.ENOENT {
		return nil
	}
	return err
}
