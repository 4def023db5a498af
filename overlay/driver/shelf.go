//go:build linux

package driver

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/overlay/internal/copytree"
)

// way is what the drivers differ in. Directories are those of trees; their files are in files below.
type way interface {
	fill(dir, parent string) error                                 // make files, as in parent or empty
	show(dir string, below []string) (string, func() error, error) // where the files can be seen; below are the trees it is made from, the nearest first
	clear(dir string) error                                        // remove files
}

// shelf is a directory of trees: in name/ there are files/, with what the tree holds or what differs, parent, with the name of the tree from
// which it was made, and sealed if others have been made from it. What begins with a dot is not complete.
type shelf struct {
	dir string
	way way
}

const (
	files  = "files"
	parent = "parent"
	sealed = "sealed"
)

func (s shelf) path(name string) string { return filepath.Join(s.dir, name) }

func checkName(name string) error {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
	}
	if name == "" || len(name) > 200 || strings.IndexFunc(name, func(r rune) bool { return !plain(r) }) >= 0 || strings.Contains("._-", name[:1]) {
		return syscall.EINVAL
	}
	return nil
}

func fail(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Tree: name, Err: err}
}

func (s shelf) create(name, from string) error {
	err := checkName(name)
	if err == nil && from != "" {
		err = checkName(from)
	}
	if err == nil {
		err = os.MkdirAll(s.dir, 0o700)
	}
	if err != nil {
		return fail("create", name, err)
	}
	s.sweep()
	if from == "" {
		return fail("create", name, s.make(name, ""))
	}
	lock, err := s.lock(from) // who has it open may write to it
	if err != nil {
		return fail("create", name, err)
	}
	defer unlock(lock)
	return fail("create", name, s.make(name, from))
}

// make makes a tree beside the others, and gives it its name when it is complete.
func (s shelf) make(name, from string) error {
	part, lock, err := s.newPart()
	if err != nil {
		return err
	}
	defer unlock(lock)
	if err := s.build(part, from); err != nil {
		return errors.Join(err, s.drop(part))
	}
	if err := renameNew(part, s.path(name)); err != nil {
		return errors.Join(err, s.drop(part))
	}
	return nil
}

// renameNew renames a directory, over nothing. Zfs before 2.2 knows no flags of renameat2(2), on any kernel; there rename(2) refuses all that there may be but an empty directory,
// which no tree is.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if err != syscall.EINVAL {
		return err
	}
	if _, err := os.Lstat(to); err == nil {
		return syscall.EEXIST
	}
	if err = unix.Rename(from, to); err == syscall.ENOTEMPTY {
		err = syscall.EEXIST
	}
	return err
}

// newPart makes a directory and locks it. Between these two somebody may sweep it away.
func (s shelf) newPart() (part string, lock *os.File, err error) {
	for range 100 {
		part = s.path(".new-" + rand.Text())
		if err = os.Mkdir(part, 0o700); err != nil {
			return "", nil, err
		}
		if lock, err = lockSame(part); err == nil {
			return part, lock, nil
		}
	}
	return "", nil, err
}

func (s shelf) build(part, from string) error {
	if err := os.WriteFile(filepath.Join(part, parent), []byte(from), 0o600); err != nil {
		return err
	}
	above := ""
	if from != "" {
		above = s.path(from)
		if err := os.WriteFile(filepath.Join(above, sealed), nil, 0o600); err != nil {
			return err
		}
	}
	return s.way.fill(part, above)
}

func (s shelf) drop(dir string) error {
	if err := s.way.clear(dir); err != nil {
		return err
	}
	return copytree.RemoveAll(dir)
}

// sweep removes what others have left half made, or half removed, when they died: it is not locked.
func (s shelf) sweep() {
	left, _ := filepath.Glob(filepath.Join(s.dir, ".new-*"))
	for _, dir := range left {
		if lock, err := lockDir(dir); err == nil {
			s.drop(dir)
			unlock(lock)
		}
	}
}

func (s shelf) open(name string) (*Tree, error) {
	t, err := s.locked(name, func() error {
		if _, err := os.Lstat(filepath.Join(s.path(name), sealed)); err == nil {
			return syscall.EBUSY
		}
		return nil
	})
	return t, fail("open", name, err)
}

// look opens a tree only to be read, also one from which others have been made.
func (s shelf) look(name string) (*Tree, error) {
	t, err := s.locked(name, func() error { return nil })
	return t, fail("open", name, err)
}

// locked shows a tree that passes the check.
func (s shelf) locked(name string, check func() error) (*Tree, error) {
	lock, err := s.lock(name)
	if err != nil {
		return nil, err
	}
	var t *Tree
	if err = check(); err == nil {
		t, err = s.show(name)
	}
	if err != nil {
		unlock(lock)
		return nil, err
	}
	t.lock = lock
	return t, nil
}

func (s shelf) show(name string) (*Tree, error) {
	below, err := s.chain(name)
	if err != nil {
		return nil, err
	}
	at, shut, err := s.way.show(s.path(name), below)
	return &Tree{Path: at, shut: shut}, err
}

// chain gives the trees from which a tree was made.
func (s shelf) chain(name string) (below []string, err error) {
	for {
		b, err := os.ReadFile(filepath.Join(s.path(name), parent))
		if err != nil {
			return nil, err
		}
		if name = string(b); name == "" {
			return below, nil
		}
		if err := checkName(name); err != nil {
			return nil, err
		}
		if len(below) >= 500 {
			return nil, syscall.ELOOP
		}
		below = append(below, s.path(name))
	}
}

func (s shelf) remove(name string) error {
	lock, err := s.lock(name)
	if err != nil {
		return fail("remove", name, err)
	}
	defer unlock(lock)
	if busy, err := s.hasChildren(name); err != nil || busy {
		return fail("remove", name, errors.Join(err, syscall.EBUSY))
	}
	part := s.path(".new-" + rand.Text())
	if err := os.Rename(s.path(name), part); err != nil {
		return fail("remove", name, err)
	}
	return fail("remove", name, s.drop(part))
}

// hasChildren: no child can be made meanwhile, since the tree is locked.
func (s shelf) hasChildren(name string) (bool, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(s.path(e.Name()), parent))
		if err == nil && string(b) == name {
			return true, nil
		}
	}
	return false, nil
}

func (s shelf) lock(name string) (*os.File, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	return lockSame(s.path(name))
}

// lockSame locks what has the name: it may have been removed, and another one made, before we had the lock.
func lockSame(name string) (*os.File, error) {
	f, err := lockDir(name)
	if err != nil {
		return nil, err
	}
	ours, err := f.Stat()
	if err == nil {
		var now os.FileInfo
		if now, err = os.Lstat(name); err == nil && !os.SameFile(ours, now) {
			err = syscall.ENOENT
		}
	}
	if err != nil {
		unlock(f)
		return nil, err
	}
	return f, nil
}

// unlock says it: a program that another thread is just starting may have the descriptor as well, until it is executed.
func unlock(f *os.File) error {
	return errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_UN), f.Close())
}

func lockDir(name string) (*os.File, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		unix.Close(fd)
		if err == syscall.EWOULDBLOCK {
			err = syscall.EBUSY
		}
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
