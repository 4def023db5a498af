//go:build linux

package driver

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Driver keeps trees of files by name. A name has letters, digits and . _ - and begins with a letter or a digit; 200 bytes at most.
//
// Errors are [*Error]: EEXIST and ENOENT as of files, EBUSY for a tree that is open or that others have been made from, EINVAL for a
// name that is none, and errors.ErrUnsupported where the driver cannot work.
type Driver interface {
	// Create makes a tree, which begins as what parent holds, or empty if that is "". It is made complete or not at all.
	Create(name, parent string) error

	// Open gives a tree to be read and written. It is one user's at a time.
	Open(name string) (*Tree, error)

	// Remove removes a tree.
	Remove(name string) error
}

// Tree is an open tree.
type Tree struct {
	Path string // the directory with its files

	lock *os.File
	shut func() error
}

// Close ends the use of the tree. What was written is there for the next one.
func (t *Tree) Close() (err error) {
	if t.shut != nil {
		err = t.shut()
	}
	return errors.Join(err, unlock(t.lock))
}

// Error says what could not be done, with which tree, and why.
type Error struct {
	Op   string // "create", "open", "remove", "probe"
	Tree string // its name
	Err  error
}

// Error gives all that is known on one line.
func (e *Error) Error() string { return fmt.Sprintf("driver: %s %q: %v", e.Op, e.Tree, e.Err) }

// Unwrap gives Err.
func (e *Error) Unwrap() error { return e.Err }

// Probe gives the first driver that works in a directory, which is made if it is missing: Overlayfs, Btrfs, Zfs, Fuse, Aufs, Copy. Each is tried by
// making, opening and removing a tree.
func Probe(dir string) (Driver, error) {
	var all error
	for _, d := range []Driver{Overlayfs{Dir: dir}, Btrfs{Dir: dir}, Zfs{Dir: dir}, Fuse{Dir: dir}, Aufs{Dir: dir}, Copy{Dir: dir}} {
		err := Try(d)
		if err == nil {
			return d, nil
		}
		all = errors.Join(all, fmt.Errorf("%T: %w", d, err))
	}
	return nil, all
}

// Try does what a driver is for, with two trees that it removes again.
func Try(d Driver) (err error) {
	base := "probe-" + strings.ToLower(rand.Text())
	next := base + "-next"
	if err := d.Create(base, ""); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Remove(base)) }()
	if err := use(d, base, func(dir string) error { return os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600) }); err != nil {
		return err
	}
	if err := d.Create(next, base); err != nil {
		return err
	}
	defer func() { err = errors.Join(d.Remove(next), err) }()
	return use(d, next, func(dir string) error {
		b, err := os.ReadFile(filepath.Join(dir, "file"))
		if err == nil && string(b) != "x" {
			err = syscall.EIO
		}
		return errors.Join(err, os.Remove(filepath.Join(dir, "file")))
	})
}

func use(d Driver, name string, f func(dir string) error) error {
	t, err := d.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f(t.Path), t.Close())
}
