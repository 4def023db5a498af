//go:build linux

package chroot

import (
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/procfs"
)

// Root is a directory that is used as if it were the root of a file system, while somebody hostile writes to it: an absolute symbolic link begins
// in it, ".." ends at it, and nothing that is done by way of it reaches anything outside (openat2(2), RESOLVE_IN_ROOT; by
// hand before Linux 5.6). Links of /proc that lead to what a process has open are refused with ELOOP.
//
// os.Root refuses what leads outside, as every absolute link seems to; a Root follows it as a process inside would. All methods work by descriptor, and the
// Root stays the same directory when it is renamed. Names may begin with a slash or not.
//
// Files are opened only if they are regular ones, or directories: a fifo, a socket or a device is a [*RefusedError]. A Root may
// be used by several goroutines at once. Errors are [*Error].
type Root struct {
	dir  *os.File // O_PATH
	proc *procfs.FS
	walk bool // as if there were no openat2
}

// Open opens a directory of the host as a Root. The host's /proc is needed. To be closed by the caller.
func Open(dir string) (*Root, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &Error{Op: "open", Path: dir, Err: err}
	}
	proc, err := procfs.Open()
	if err != nil {
		unix.Close(fd)
		return nil, &Error{Op: "open", Path: dir, Err: err, Hint: "needs /proc"}
	}
	return &Root{dir: os.NewFile(uintptr(fd), dir), proc: proc, walk: !haveOpenat2()}, nil
}

// haveOpenat2 asks for a resolution that cannot fail for any other reason than that the call is not there, or forbidden by a filter.
func haveOpenat2() bool {
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// Close closes the Root. What has been opened by way of it stays open.
func (r *Root) Close() error {
	r.proc.Close()
	return r.dir.Close()
}

// Name gives the directory as it was given to Open.
func (r *Root) Name() string { return r.dir.Name() }

func (r *Root) fail(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Path: name, Err: err}
}

// lookup opens what name leads to as a place only (O_PATH); with O_NOFOLLOW also a symbolic link itself.
func (r *Root) lookup(name string, flags int) (*os.File, error) { return r.find(name, flags, false) }

// find is lookup, and if strict follows no symbolic link at all.
func (r *Root) find(name string, flags int, strict bool) (*os.File, error) {
	open := r.openat2
	if r.walk {
		open = r.walkTo
	}
	fd, err := open(name, flags|unix.O_PATH|unix.O_CLOEXEC, strict)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openat2 is tried again when something has been renamed meanwhile, which the kernel cannot tell from an escape: EAGAIN.
func (r *Root) openat2(name string, flags int, strict bool) (fd int, err error) {
	if name == "" || strings.IndexByte(name, 0) >= 0 {
		return -1, emptyOrNUL(name)
	}
	how := unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if strict {
		how.Resolve |= unix.RESOLVE_NO_SYMLINKS
	}
	for range 1000 {
		fd, err = unix.Openat2(int(r.dir.Fd()), name, &how)
		if err != syscall.EAGAIN && err != syscall.EINTR {
			return fd, err
		}
	}
	return -1, err
}

func emptyOrNUL(name string) error {
	if name == "" {
		return syscall.ENOENT
	}
	return syscall.EINVAL
}

// parent opens the directory of name, and gives the last word of name, which is not resolved.
func (r *Root) parent(name string) (*os.File, string, error) { return r.parentOf(name, false) }

func (r *Root) parentOf(name string, strict bool) (*os.File, string, error) {
	trimmed := strings.TrimRight(name, "/")
	dir, base := path.Split(trimmed)
	if base == "" || base == "." || base == ".." {
		return nil, "", syscall.EINVAL // the root, or a name of something else
	}
	if dir == "" {
		dir = "/"
	}
	f, err := r.find(dir, unix.O_DIRECTORY, strict)
	return f, base, err
}

// Open opens a file or directory for reading.
func (r *Root) Open(name string) (*os.File, error) {
	f, err := r.lookup(name, 0)
	if err != nil {
		return nil, r.fail("open", name, err)
	}
	defer f.Close()
	opened, err := r.reopen(f, unix.O_RDONLY, true)
	return opened, r.fail("open", name, err)
}

// reopen opens the file behind a place, if it is one that can be opened without anything happening.
func (r *Root) reopen(place *os.File, flags int, dirs bool) (*os.File, error) {
	st, err := place.Stat()
	if err != nil {
		return nil, err
	}
	if why := judge(st.Mode()); why != 0 && !(why == IsDirectory && dirs) {
		return nil, &RefusedError{why}
	}
	// Nonblocking: a lease that somebody holds would make us wait.
	f, err := r.proc.Reopen(int(place.Fd()), flags|unix.O_NONBLOCK|unix.O_NOCTTY)
	switch err {
	case nil:
		return f, nil
	case syscall.EWOULDBLOCK:
		return nil, &RefusedError{IsBusy}
	case syscall.EXDEV:
		return nil, &RefusedError{IsReplaced}
	}
	return nil, err
}

// judge says why a file is not to be opened; 0 for a regular one.
func judge(m fs.FileMode) Refusal {
	switch m.Type() {
	case 0:
		return 0
	case fs.ModeDir:
		return IsDirectory
	case fs.ModeSymlink:
		return IsSymlink
	case fs.ModeNamedPipe:
		return IsFIFO
	case fs.ModeSocket:
		return IsSocket
	}
	return IsDevice
}

// Create opens a regular file for reading and writing, emptied; it is made with mode perm, less the umask, where it is
// missing. A symbolic link at its place is followed, also where it leads to nothing yet. A file with a further hard link is a [*RefusedError], and not
// written to: the other name may be one outside.
func (r *Root) Create(name string, perm fs.FileMode) (*os.File, error) {
	f, err := r.create(name, perm)
	return f, r.fail("create", name, err)
}

func (r *Root) create(name string, perm fs.FileMode) (*os.File, error) {
	var links int
	for range 1000 { // rounds lost to somebody who makes and removes the file
		place, err := r.lookup(name, 0)
		if err == nil {
			defer place.Close()
			return r.emptied(place)
		}
		if err != syscall.ENOENT || strings.HasSuffix(name, "/") {
			return nil, err
		}
		f, next, err := r.createNew(name, perm)
		if err == nil {
			return f, nil
		}
		if err != syscall.EEXIST {
			return nil, err
		}
		if next != "" {
			name = next
			if links++; links > maxLinks {
				return nil, syscall.ELOOP
			}
		}
	}
	return nil, syscall.EAGAIN
}

// emptied opens what is there to be written to. It is looked at once more before it is emptied: a name may have come meanwhile.
func (r *Root) emptied(place *os.File) (*os.File, error) {
	if err := oneName(place); err != nil {
		return nil, err
	}
	f, err := r.reopen(place, unix.O_RDWR, false)
	if err != nil {
		return nil, err
	}
	if err = oneName(f); err == nil {
		err = unix.Ftruncate(int(f.Fd()), 0)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// createNew makes the file, or gives EEXIST and, where name is a symbolic link, what it leads to.
func (r *Root) createNew(name string, perm fs.FileMode) (f *os.File, target string, err error) {
	dir, base, err := r.parent(name)
	if err != nil {
		return nil, "", err
	}
	defer dir.Close()
	const flags = unix.O_RDWR | unix.O_CREAT | unix.O_EXCL | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK
	fd, err := unix.Openat(int(dir.Fd()), base, flags, modeBits(perm))
	if err == nil {
		return os.NewFile(uintptr(fd), name), "", nil
	}
	if err == syscall.EEXIST {
		if to, e := readlinkat(int(dir.Fd()), base); e == nil {
			target = to
			if !path.IsAbs(to) {
				target = name[:len(name)-len(base)] + to
			}
		}
	}
	return nil, target, err
}

func readlinkat(dir int, name string) (string, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, b)
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}

// ReadFile gives the contents of a regular file. The limit is in bytes; [NoLimit] is none.
func (r *Root) ReadFile(name string, limit int64) ([]byte, error) {
	place, err := r.lookup(name, 0)
	if err != nil {
		return nil, r.fail("read", name, err)
	}
	defer place.Close()
	f, err := r.reopen(place, unix.O_RDONLY, false)
	if err != nil {
		return nil, r.fail("read", name, err)
	}
	defer f.Close()
	b, err := readLimited(f, limit)
	return b, r.fail("read", name, err)
}

// WriteFile replaces the contents of a regular file, as Create does. [Root.CopyIn] puts a new file in its place instead.
func (r *Root) WriteFile(name string, data []byte, perm fs.FileMode) error {
	f, err := r.create(name, perm)
	if err != nil {
		return r.fail("write", name, err)
	}
	_, err = f.Write(data)
	if e := f.Close(); err == nil {
		err = e
	}
	return r.fail("write", name, err)
}
