//go:build linux

// Package copytree copies a tree of files with all that belongs to it: owners, modes, times, extended attributes, hard links, holes, devices,
// fifos and whiteouts. Where the file system can share data between files, nothing is copied (ioctl_ficlonerange(2)).
//
// Somebody hostile may change the tree meanwhile: no symbolic link is followed, no fifo or device opened, and no mount entered. The copy then has
// what was there at one time or another.
package copytree

import (
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/deep"
)

// Copy copies what is below the directory src into the directory dst, which is empty and the caller's own, and makes dst like src. keep says which
// extended attributes are copied; nil: all. security.selinux is left to the policy.
type Copy struct {
	Keep func(xattr string) bool

	src, dst int
	dev      uint64
	links    map[inode]string // where a file with several names has been copied to
	way      []place
	name     string // of what is being copied
	plain    bool   // it is no directory
	buffer   []byte
	noClone  bool // the file systems cannot share data
	copied   int64
}

type inode struct{ dev, ino uint64 }

// place is a directory of the copy on the way down, with what it is to become.
type place struct {
	fd   int // -1: closed for the sake of deeper ones
	from unix.Stat_t
	attr []attribute
}

// Run copies.
func (c *Copy) Run(src, dst *os.File) error {
	c.src, c.dst, c.links = int(src.Fd()), int(dst.Fd()), map[inode]string{}
	var st unix.Stat_t
	if err := unix.Fstat(c.src, &st); err != nil {
		return err
	}
	c.dev = uint64(st.Dev)
	attr, err := c.attributes(c.src)
	if err != nil {
		return err
	}
	c.way = []place{{fd: c.dst}}
	t := deep.Tree{Names: names, Open: c.open, Before: c.before, After: c.after}
	err = t.Walk(c.src)
	for i, p := range c.way {
		if i > 0 && p.fd >= 0 {
			unix.Close(p.fd)
		}
	}
	if err != nil {
		return err
	}
	return c.finish(c.dst, &st, attr)
}

// Shared reports whether no data had to be copied.
func (c *Copy) Shared() bool { return c.copied == 0 }

func (c *Copy) open(dir int, name string) (int, error) {
	c.name = name
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == syscall.ENOENT { // removed meanwhile
		return -1, nil
	}
	return fd, err
}

// before copies what is no directory, and makes a directory.
func (c *Copy) before(fd int, path deep.Path) (enter bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, err
	}
	if uint64(st.Dev) != c.dev {
		return false, syscall.EXDEV // something is mounted there
	}
	to, name := c.way[len(c.way)-1].fd, c.name
	if c.plain = st.Mode&unix.S_IFMT != unix.S_IFDIR; c.plain {
		return false, c.file(fd, &st, to, path)
	}
	attr, err := c.attributes(fd)
	if err != nil {
		return false, err
	}
	if err := unix.Mkdirat(to, name, 0o700); err != nil {
		return false, err
	}
	made, err := unix.Openat(to, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	c.way = append(c.way, place{made, st, attr})
	if i := len(c.way) - 1 - deep.Held; i > 0 {
		unix.Close(c.way[i].fd)
		c.way[i].fd = -1
	}
	return true, nil
}

// after goes back up, when a directory has all that is in it.
func (c *Copy) after(int, string) error {
	if c.plain {
		c.plain = false
		return nil
	}
	last := c.way[len(c.way)-1]
	above := &c.way[len(c.way)-2]
	var err error
	if above.fd < 0 {
		above.fd, err = unix.Openat(last.fd, "..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if err == nil {
		err = c.finish(last.fd, &last.from, last.attr)
	}
	unix.Close(last.fd)
	c.way = c.way[:len(c.way)-1]
	return err
}

func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
