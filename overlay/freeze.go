//go:build linux

package overlay

import (
	"crypto/rand"
	"errors"
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/overlay/internal/copytree"
)

// Freeze copies the upper directory of a sandbox that runs to a new directory, layer: a layer to be put on the same Lower. Where the file system can share data
// between files (btrfs, xfs), only names are copied. The layer is complete or absent, and on the disk, when Freeze returns.
//
// The sandbox does not notice. It should be paused meanwhile (Cmd.Pause), for the layer to be what there was at one moment; else each file is
// what it was at some moment. A scratch upper has no path: see [Scratch]. Nothing that the sandbox does makes Freeze follow a link, open a device or leave the directory.
func Freeze(upper, layer string) error {
	src, err := openPlain(upper)
	if err != nil {
		return err
	}
	defer src.Close()
	return freeze(src, layer)
}

// publish fills a directory and gives it its name, or removes it.
func publish(src *os.File, part, layer string) error {
	err := fill(src, part)
	if err != nil {
		err = &Error{Op: "freeze", Path: src.Name(), Err: err}
	} else {
		err = rename(part, layer)
	}
	if err != nil {
		copytree.RemoveAll(part)
	}
	return err
}

func fill(src *os.File, part string) error {
	dst, err := openPlain(part)
	if err != nil {
		return err
	}
	defer dst.Close()
	c := copytree.Copy{Keep: keep}
	return errors.Join(c.Run(src, dst), unix.Syncfs(int(dst.Fd())))
}

// keep leaves out what the kernel notes about an upper directory and its relation to this stack.
func keep(xattr string) bool {
	for _, prefix := range []string{"trusted.overlay.", "user.overlay."} {
		if name, ok := strings.CutPrefix(xattr, prefix); ok {
			switch name {
			case "origin", "impure", "nlink", "upper", "uuid", "protattr":
				return false
			}
		}
	}
	return true
}

// Take makes the upper directory of a sandbox that has ended a layer, to be put on the same Lower: it is renamed, and an empty one with the same
// owner and mode takes its place. Nothing is copied, and what was written is on the disk when Take returns. work is emptied.
//
// upper, work and layer must be on one file system, and layer must not exist. An upper directory in use is an EBUSY.
func Take(upper, work, layer string) error {
	lock, err := lockDir(work)
	if err != nil {
		return err
	}
	defer lock.Close()
	src, err := openPlain(upper)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := unix.Syncfs(int(src.Fd())); err != nil {
		return &Error{Op: "sync", Path: upper, Err: err}
	}
	fresh, err := newDir(layer)
	if err != nil {
		return err
	}
	if err := exchange(src, upper, fresh, layer); err != nil {
		os.Remove(fresh)
		return err
	}
	return errors.Join(emptyDir(work), syncDir(path.Dir(layer)), syncDir(path.Dir(upper)))
}

// exchange puts the fresh directory in the place of upper at once: there is an upper directory at any time.
func exchange(src *os.File, upper, fresh, layer string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return &Error{Op: "look at", Path: upper, Err: err}
	}
	if err := errors.Join(unix.Lchown(fresh, int(st.Uid), int(st.Gid)), unix.Chmod(fresh, st.Mode&0o7777)); err != nil {
		return &Error{Op: "make", Path: fresh, Err: err}
	}
	if _, err := os.Lstat(layer); err == nil {
		return &Error{Op: "make", Path: layer, Err: syscall.EEXIST}
	}
	if err := unix.Renameat2(unix.AT_FDCWD, upper, unix.AT_FDCWD, fresh, unix.RENAME_EXCHANGE); err != nil {
		return &Error{Op: "rename", Path: upper, Err: err, Hint: hintFor(err, syscall.EXDEV, "the layer must be on the file system of the upper directory; Freeze copies")}
	}
	if err := rename(fresh, layer); err != nil {
		return errors.Join(err, unix.Renameat2(unix.AT_FDCWD, upper, unix.AT_FDCWD, fresh, unix.RENAME_EXCHANGE))
	}
	return nil
}

// openPlain opens a directory that is no symbolic link.
func openPlain(name string) (*os.File, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &Error{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// newDir makes a directory beside name, which is to become it.
func newDir(name string) (string, error) {
	part := path.Clean(name) + ".part-" + rand.Text()
	if err := unix.Mkdir(part, 0o700); err != nil {
		return "", &Error{Op: "make", Path: name, Err: err}
	}
	return part, nil
}

// rename never replaces anything.
func rename(from, to string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE); err != nil {
		return &Error{Op: "make", Path: to, Err: err}
	}
	return nil
}

func syncDir(name string) error {
	f, err := openPlain(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return &Error{Op: "sync", Path: name, Err: err}
	}
	return nil
}

func emptyDir(name string) error {
	if err := copytree.Empty(name); err != nil {
		return &Error{Op: "empty", Path: name, Err: err}
	}
	return nil
}
