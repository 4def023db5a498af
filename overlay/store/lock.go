//go:build linux

package store

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lock waits for a lock (flock(2)) of a file. It belongs to the open file, so goroutines of one process exclude each other, too; the kernel lets it go when
// the process ends, however it does. Closing the file lets it go.
func (s *Store) lock(ctx context.Context, exclusive bool, name ...string) (*os.File, error) {
	f, err := os.OpenFile(s.at(name...), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		switch err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err {
		case nil:
			return f, nil
		case syscall.EINTR, syscall.EWOULDBLOCK:
		default:
			f.Close()
			return nil, err
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// free reports whether nobody holds a lock file, and then holds it.
func free(name string) (*os.File, bool) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, errors.Is(err, os.ErrNotExist)
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		f.Close()
		return nil, false
	}
	return f, true
}

// temporary is a directory in which something is made. Nobody removes it while its lock is held.
type temporary struct {
	path string
	lock *os.File
}

// temporary makes one. Who removes what is left over holds the store's lock exclusively, and so never sees one without its lock.
func (s *Store) temporary(ctx context.Context) (*temporary, error) {
	shared, err := s.lock(ctx, false, lockFile)
	if err != nil {
		return nil, err
	}
	defer shared.Close()
	name := rand.Text()
	lock, err := s.lock(ctx, true, tmpDir, name+".lock")
	if err != nil {
		return nil, err
	}
	t := &temporary{s.at(tmpDir, name), lock}
	if err := os.Mkdir(t.path, 0o700); err != nil {
		t.remove()
		return nil, err
	}
	return t, nil
}

func (t *temporary) remove() {
	removeTree(t.path)
	os.Remove(t.path + ".lock")
	t.lock.Close()
}

// syncDir writes a directory's names to disk.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// syncAll writes all of the file system to disk.
func syncAll(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

// writeFile writes a file that is there as a whole or not at all.
func writeFile(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}
