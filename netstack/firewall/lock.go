//go:build linux

package firewall

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lockDir is a directory with a file for each owner, locked by who holds its rules. Who holds the directory's own lock may change rules and files.
type lockDir struct {
	path string
	file *os.File
	mark *os.File // see openMark
}

// openLockDir opens the directory of a network namespace, and removes those of others that are gone.
func openLockDir(dir, name string) (*lockDir, error) {
	const tries = 100
	for range tries {
		d, err := makeLockDir(dir, name)
		if errors.Is(err, fs.ErrNotExist) { // it was removed just then
			continue
		}
		if err != nil {
			return nil, err
		}
		again, err := d.openMark()
		if err == nil && !again {
			collect(dir, name, time.Now())
			return d, nil
		}
		d.close()
		if err != nil {
			return nil, err
		}
	}
	return nil, &Error{Op: "open the directory for locks " + dir, Err: unix.EAGAIN}
}

func makeLockDir(dir, name string) (*lockDir, error) {
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, failed(err, "make the directory for locks")
	}
	above, err := ownDir(dir)
	if err != nil {
		return nil, err
	}
	above.Close()
	f, err := ownDir(path)
	if err != nil {
		return nil, err
	}
	return &lockDir{path: path, file: f}, nil
}

// ownDir opens a directory to which nobody else can write: he could say who is alive.
func ownDir(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, failed(err, "open the directory for locks")
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || int(st.Uid) != unix.Geteuid() || st.Mode&0o022 != 0 {
		f.Close()
		return nil, &Error{Op: "open the directory for locks " + path, Err: unix.EPERM, Hint: "it belongs to another user, or others can write to it"}
	}
	return f, nil
}

func (d *lockDir) close() {
	if d == nil {
		return
	}
	d.file.Close()
	if d.mark != nil {
		d.mark.Close()
	}
}

// lock waits until no other process changes anything.
func (d *lockDir) lock() (unlock func(), err error) {
	for {
		if err = unix.Flock(int(d.file.Fd()), unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return nil, &Error{Op: "lock " + d.path, Err: err}
	}
	return func() { unix.Flock(int(d.file.Fd()), unix.LOCK_UN) }, nil
}

// open opens an owner's file below the directory's descriptor.
func (d *lockDir) open(id string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(d.file.Fd()), id, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK|flags, 0o600)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), d.path+"/"+id), nil
}

// take makes the id the caller's. left: there was a file of somebody who has died.
func (d *lockDir) take(id string) (f *os.File, left bool, err error) {
	f, err = d.open(id, unix.O_CREAT|unix.O_EXCL)
	if errors.Is(err, fs.ErrExist) {
		left = true
		f, err = d.open(id, 0)
	}
	if err != nil {
		return nil, false, &Error{Op: "take the id", Owner: id, Err: err}
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if err == unix.EWOULDBLOCK {
			return nil, false, &ConflictError{What: "id " + id, Owner: id}
		}
		return nil, false, &Error{Op: "lock", Owner: id, Err: err}
	}
	return f, left, nil
}

// drop gives up an id. The file goes first: without a lock it would be taken for that of somebody dead.
func (d *lockDir) drop(f *os.File, id string) {
	unix.Unlinkat(int(d.file.Fd()), id, 0)
	f.Close()
}

// owners tells the living from the dead. The locks of the dead are held until release is called.
func (d *lockDir) owners() (living, dead []string, release func(), err error) {
	ids, err := d.ids()
	if err != nil {
		return nil, nil, nil, err
	}
	var files []*os.File
	for _, id := range ids {
		f, err := d.open(id, 0)
		if err != nil {
			continue // no file of ours
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
			f.Close()
			living = append(living, id)
			continue
		}
		files, dead = append(files, f), append(dead, id)
	}
	return living, dead, func() {
		for i, f := range files {
			d.drop(f, dead[i])
		}
	}, nil
}

// ids lists the files.
func (d *lockDir) ids() ([]string, error) {
	f, err := os.Open(d.path)
	if err != nil {
		return nil, failed(err, "list the owners")
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, failed(err, "list the owners")
	}
	ids := names[:0]
	for _, n := range names {
		if !strings.HasPrefix(n, ".") {
			ids = append(ids, n)
		}
	}
	return ids, nil
}
