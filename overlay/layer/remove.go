//go:build linux

package layer

import (
	"crypto/rand"
	"syscall"

	"golang.org/x/sys/unix"
)

// removeLevels is how deep a tree is removed in place. What is deeper is moved up first, so that neither descriptors nor memory grow with the depth.
const removeLevels = 32

// mine opens also what an ordinary user has closed to himself.
var mine = &tree{loosen: true}

// removeAll removes what is at a place, with all that is below it. No link is followed, no mount entered. What is not there is removed.
func removeAll(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || err == syscall.ENOENT {
		return nil
	}
	if err != syscall.EISDIR && err != syscall.EPERM {
		return err
	}
	if err = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err == nil || err == syscall.ENOENT {
		return nil
	}
	if err != syscall.ENOTEMPTY && err != syscall.EEXIST {
		return err
	}
	top, _, err := mine.openOwn(dir, name)
	if err != nil {
		return crossing(gone(err))
	}
	defer unix.Close(top)
	unix.Fchmod(top, 0o700) // an ordinary user's own directory may be one in which he may not remove
	if err := empty(top, top, 0); err != nil {
		return err
	}
	return gone(unix.Unlinkat(dir, name, unix.AT_REMOVEDIR))
}

// gone makes it no error that somebody else was faster.
func gone(err error) error {
	if err == syscall.ENOENT {
		return nil
	}
	return err
}

// empty removes all that is in a directory. Rounds end: names that somebody else goes on making are his to remove.
func empty(dir, top, level int) error {
	for range 100_000 {
		names, err := someNames(dir)
		if err != nil || len(names) == 0 {
			return err
		}
		for _, name := range names {
			if level >= removeLevels {
				err = moveUp(dir, top, name)
			} else {
				err = removeIn(dir, top, name, level)
			}
			if err != nil {
				return err
			}
		}
	}
	return syscall.EBUSY
}

func removeIn(dir, top int, name string, level int) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || err == syscall.ENOENT {
		return nil
	}
	if err != syscall.EISDIR && err != syscall.EPERM {
		return err
	}
	sub, _, e := mine.openOwn(dir, name)
	if e != nil {
		if e == syscall.ENOTDIR || e == syscall.ELOOP {
			return err
		}
		return crossing(gone(e))
	}
	defer unix.Close(sub)
	unix.Fchmod(sub, 0o700)
	if err := empty(sub, top, level+1); err != nil {
		return err
	}
	return gone(unix.Unlinkat(dir, name, unix.AT_REMOVEDIR))
}

// moveUp removes what is no directory, and moves a directory to the top, where another round will find it.
func moveUp(dir, top int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == syscall.EISDIR || err == syscall.EPERM {
		err = unix.Renameat(dir, name, top, ".removed-"+rand.Text())
	}
	if err == syscall.ENOENT {
		return nil
	}
	return err
}

// someNames gives some of the names in a directory, from its beginning; none when it is empty.
func someNames(dir int) ([]string, error) {
	if _, err := unix.Seek(dir, 0, unix.SEEK_SET); err != nil {
		return nil, err
	}
	return moreNames(dir, make([]byte, 32<<10))
}

// moreNames goes on from where a directory has been read to. None is the end.
func moreNames(dir int, b []byte) (names []string, err error) {
	for {
		n, err := unix.ReadDirent(dir, b)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return nil, err
		}
		if _, _, names = unix.ParseDirent(b[:n], -1, nil); len(names) > 0 {
			return names, nil
		}
	}
}
