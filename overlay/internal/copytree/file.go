//go:build linux

package copytree

import (
	"errors"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/deep"
)

// file copies what is no directory.
func (c *Copy) file(fd int, st *unix.Stat_t, to int, path deep.Path) error {
	key := inode{uint64(st.Dev), st.Ino}
	if st.Nlink > 1 {
		if first, ok := c.links[key]; ok {
			return unix.Linkat(c.dst, first, to, c.name, 0)
		}
	}
	if err := c.make(fd, st, to); err != nil {
		return err
	}
	if st.Nlink > 1 {
		if p := path.String(); len(p) < unix.PathMax { // the name of a link must be one that can be used; else it becomes a file of its own
			c.links[key] = p
		}
	}
	return nil
}

func (c *Copy) make(fd int, st *unix.Stat_t, to int) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return c.regular(fd, st, to)
	case unix.S_IFLNK:
		return c.symlink(fd, st, to)
	}
	if err := unix.Mknodat(to, c.name, st.Mode&unix.S_IFMT|0o600, int(st.Rdev)); err != nil {
		return err
	}
	made, err := unix.Openat(to, c.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(made)
	attr, err := c.attributes(fd)
	if err != nil {
		return err
	}
	return c.finish(made, st, attr)
}

func (c *Copy) symlink(fd int, st *unix.Stat_t, to int) error {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", b)
	if err != nil {
		return err
	}
	if err := unix.Symlinkat(string(b[:n]), to, c.name); err != nil {
		return err
	}
	if err := c.own(st, func(uid, gid int) error { return unix.Fchownat(to, c.name, uid, gid, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		return err
	}
	return unix.UtimesNanoAt(to, c.name, times(st), unix.AT_SYMLINK_NOFOLLOW)
}

func (c *Copy) regular(fd int, st *unix.Stat_t, to int) error {
	src, err := reopen(fd, st)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	dst, err := unix.Openat(to, c.name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	attr, err := c.attributes(src)
	if err == nil {
		err = c.data(src, dst, st.Size)
	}
	if err == nil {
		err = c.finish(dst, st, attr)
	}
	return errors.Join(err, unix.Close(dst))
}

// reopen opens for reading what has been judged, and nothing that has been put in its place.
func reopen(fd int, st *unix.Stat_t) (int, error) {
	n, err := unix.Open(procPath(fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var now unix.Stat_t
	if err := unix.Fstat(n, &now); err != nil || now.Ino != st.Ino || now.Dev != st.Dev {
		unix.Close(n)
		return -1, errors.Join(err, syscall.ESTALE)
	}
	return n, nil
}

type attribute struct {
	name  string
	value []byte
}

// attributes reads the extended attributes; of a symbolic link there are none that concern us. A descriptor of O_PATH has none itself, so it goes by
// way of /proc.
func (c *Copy) attributes(fd int) (all []attribute, err error) {
	list, err := sized(func(b []byte) (int, error) { return unix.Listxattr(procPath(fd), b) })
	if err == syscall.EOPNOTSUPP {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		if name == "" || name == "security.selinux" || c.Keep != nil && !c.Keep(name) {
			continue
		}
		value, err := sized(func(b []byte) (int, error) { return unix.Getxattr(procPath(fd), name, b) })
		if err == syscall.ENODATA { // removed meanwhile
			continue
		}
		if err != nil {
			return nil, &os.SyscallError{Syscall: "getxattr " + name, Err: err}
		}
		all = append(all, attribute{name, value})
	}
	return all, nil
}

// sized calls f with a buffer that is large enough.
func sized(f func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := f(nil)
		if n <= 0 || err != nil {
			return nil, err
		}
		b := make([]byte, n)
		if n, err = f(b); err != syscall.ERANGE {
			return b[:max(n, 0)], err
		}
	}
}

// finish gives the copy its owner, which takes away set-user-ID and capabilities, then its mode, attributes and times.
func (c *Copy) finish(fd int, st *unix.Stat_t, attr []attribute) error {
	at := procPath(fd)
	if err := c.own(st, func(uid, gid int) error { return unix.Chown(at, uid, gid) }); err != nil {
		return err
	}
	if err := unix.Chmod(at, st.Mode&0o7777); err != nil {
		return err
	}
	for _, a := range attr {
		if err := unix.Setxattr(at, a.name, a.value, 0); err != nil {
			return &os.SyscallError{Syscall: "setxattr " + a.name, Err: err}
		}
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, at, times(st), 0)
}

// own changes the owner. An ordinary user cannot, and need not where the files are his.
func (c *Copy) own(st *unix.Stat_t, chown func(uid, gid int) error) error {
	err := chown(int(st.Uid), int(st.Gid))
	if err == syscall.EPERM && int(st.Uid) == unix.Geteuid() && int(st.Gid) == unix.Getegid() {
		return nil
	}
	return err
}

func times(st *unix.Stat_t) []unix.Timespec { return []unix.Timespec{st.Atim, st.Mtim} }
