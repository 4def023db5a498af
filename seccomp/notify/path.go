//go:build linux

package notify

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Path is a file name that the target gave, and where the target would look for it. It is to be closed.
//
// Open and Parent walk it as the target would, in its root directory and its mount namespace, but with the rights of the
// supervisor, and whatever the target does to its memory meanwhile. Links are followed inside that root; those of /proc/PID/fd and the like are not, and nothing
// on procfs is given, where /proc/self would be the supervisor. The
// target can still rename directories and exchange links: who decides by a path must decide by the file that Open gave, not by Name.
type Path struct {
	Name string   // as it was given
	Base *os.File // the directory from which the target walks: its root, its working directory, or that of dirfd (O_PATH)
	Root *os.File // the target's root directory (O_PATH)
}

// Path reads a file name from the target's memory, relative to dirfd as openat(2) has it: AT_FDCWD is the working
// directory, as it is for calls that have no dirfd. An empty name is ENOENT. Needs /proc, and the right to trace the target.
func (r *Request) Path(dirfd, address uint64) (*Path, error) {
	const most = unix.PathMax - 1
	name, err := r.Text(address, most)
	if err != nil {
		return nil, err
	}
	if name == "" {
		return nil, fail(syscall.ENOENT, "path of %d", r.PID)
	}
	p := &Path{Name: name}
	if p.Root, err = r.directory("root"); err == nil {
		p.Base, err = r.base(int32(dirfd), name)
	}
	if err == nil {
		err = r.Valid() // the directories are the target's
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Working is AT_FDCWD for [Request.Path].
const Working = ^uint64(99) // -100

// base gives the directory that a name begins at.
func (r *Request) base(dirfd int32, name string) (*os.File, error) {
	switch {
	case path.IsAbs(name):
		return r.directory("root")
	case dirfd == unix.AT_FDCWD:
		return r.directory("cwd")
	}
	return r.File(int(dirfd))
}

func (r *Request) directory(name string) (*os.File, error) {
	fd, err := unix.Open(r.proc(name), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, r.confirmed(&Error{Op: "open " + r.proc(name), Err: err, Hint: hintFor(err, syscall.EACCES, notTraced)})
	}
	return os.NewFile(uintptr(fd), r.proc(name)), nil
}

// Close closes Base and Root.
func (p *Path) Close() error {
	var err error
	for _, f := range []*os.File{p.Base, p.Root} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// Absolute is the name from the target's root on, "." and ".." in it not resolved. A base that cannot be reached from the root, or has been
// removed, is an error.
func (p *Path) Absolute() (string, error) {
	if path.IsAbs(p.Name) {
		return p.Name, nil
	}
	base, err := p.where()
	if err != nil {
		return "", err
	}
	return base + "/" + p.Name, nil
}

// where is the path of Base below Root. What the kernel prints is a guess from another mount namespace, so it is walked, and has
// to lead to Base.
func (p *Path) where() (string, error) {
	base, err := printed(p.Base)
	if err != nil {
		return "", err
	}
	root, err := printed(p.Root)
	if err != nil {
		return "", err
	}
	if root != "/" {
		base = strings.TrimPrefix(base, root)
	}
	f, err := p.open("/"+base, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return "", fail(err, "find the directory of %q", p.Name)
	}
	defer f.Close()
	if same, err := sameFile(f, p.Base); err != nil || !same {
		return "", fail(errors.Join(syscall.EXDEV, err), "find the directory of %q", p.Name)
	}
	return strings.TrimSuffix(base, "/"), nil
}

func printed(f *os.File) (string, error) {
	s, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
	return s, fail(err, "path of a directory")
}

// sameFile compares also the mounts, where the kernel tells them (Linux 5.8).
func sameFile(a, b *os.File) (bool, error) {
	var st [2]unix.Statx_t
	for i, f := range []*os.File{a, b} {
		if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_MNT_ID, &st[i]); err != nil {
			return false, err
		}
	}
	x, y := &st[0], &st[1]
	return x.Ino == y.Ino && x.Dev_major == y.Dev_major && x.Dev_minor == y.Dev_minor && x.Mnt_id == y.Mnt_id, nil
}

// Parent opens the directory that the last element of the name is in (O_PATH), for calls such as mkdirat(2), and gives that element. It is not
// resolved: a call that follows links there follows them in the supervisor's root. A name that ends with "." or ".." is EINVAL. A directory on procfs is refused
// ([ErrRefused], EACCES): it can be the supervisor's.
func (p *Path) Parent() (*os.File, string, error) {
	name, err := p.Absolute()
	if err != nil {
		return nil, "", err
	}
	dir, last := path.Split(strings.TrimRight(name, "/"))
	if last == "" || last == "." || last == ".." {
		return nil, "", fail(syscall.EINVAL, "parent of %q", p.Name)
	}
	f, err := p.find(dir, unix.O_DIRECTORY)
	return f, last, fail(err, "parent of %q", p.Name)
}

// open walks a path from the root that no link leads out of.
func (p *Path) open(name string, flags int, mode uint32) (*os.File, error) {
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Mode: uint64(mode), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if flags&unix.O_CREAT == 0 {
		how.Mode = 0
	}
	const tries = 100 // EAGAIN: something was renamed while ".." was walked
	var fd int
	err := error(unix.EAGAIN)
	for n := 0; n < tries && err == unix.EAGAIN; n++ {
		fd, err = ignoringEINTR(func() (int, error) { return unix.Openat2(int(p.Root.Fd()), name, &how) })
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// String gives the name, quoted.
func (p *Path) String() string { return fmt.Sprintf("%q", p.Name) }
