//go:build linux

package notify

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/procfs"
)

// Open opens the file as the target would with flags and mode (open(2)), with the rights of the supervisor. The file is found first (O_PATH) and judged, and what was
// judged is opened: nothing that the target puts in its place. These are refused ([ErrRefused], EACCES), unless flags has O_PATH:
//
//   - fifos and sockets: to open a fifo waits for its other end, which the target may never open;
//   - devices, as their drivers obey the supervisor's rights, but for /dev/null, zero, full, random and urandom, which are known by their numbers.
//
// And these in any case:
//
//   - what lies on procfs, since /proc/self is the supervisor there, with its memory and environment;
//   - to create a set-user-ID or set-group-ID file: it would be the supervisor's, with contents by the target.
//
// A terminal never becomes the controlling one (O_NOCTTY). A link to a file that does not exist is EEXIST for O_CREAT, and a file of which somebody holds a
// lease is EAGAIN (fcntl(2), F_SETLEASE). The umask is the supervisor's. A file system in user space (FUSE) that the target has mounted can still make Open wait.
//
// It needs /proc and Linux 5.6 (openat2(2)).
func (p *Path) Open(flags int, mode uint32) (*os.File, error) {
	const all = 0o7777
	name, err := p.Absolute()
	if err != nil {
		return nil, err
	}
	f, err := p.file(name, int(uint32(flags)), mode&all) // the kernel takes an int
	return f, fail(err, "open %q", p.Name)
}

const temporary = unix.O_TMPFILE &^ unix.O_DIRECTORY

func (p *Path) file(name string, flags int, mode uint32) (*os.File, error) {
	create := flags & unix.O_CREAT
	switch {
	case flags&unix.O_PATH != 0:
		return p.find(name, flags)
	case create != 0 && flags&unix.O_DIRECTORY != 0:
		return nil, syscall.EINVAL
	case flags&(unix.O_CREAT|temporary) != 0 && mode&(unix.S_ISUID|unix.S_ISGID) != 0:
		return nil, refused("a set-user-ID or set-group-ID file of the supervisor's", syscall.EACCES)
	case create != 0:
		return p.create(name, flags, mode)
	}
	return p.existing(name, flags, mode)
}

// create opens a file that there is, or else makes one, a regular one, which is exclusive: without O_EXCL the kernel would open
// whatever has appeared meanwhile.
func (p *Path) create(name string, flags int, mode uint32) (*os.File, error) {
	const tries = 10 // files come and go
	exclusive := flags&unix.O_EXCL != 0
	for range tries {
		if !exclusive {
			if f, err := p.existing(name, flags, mode); !errors.Is(err, syscall.ENOENT) {
				return f, err
			}
		}
		if f, err := p.open(name, flags|unix.O_EXCL|unix.O_NOCTTY, mode); exclusive || err != syscall.EEXIST {
			return f, err
		}
	}
	return nil, syscall.EEXIST
}

// existing finds the file, judges it, and opens what it has found.
func (p *Path) existing(name string, flags int, mode uint32) (*os.File, error) {
	found, err := p.find(name, flags)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	if flags&temporary != 0 {
		fd, err := ignoringEINTR(func() (int, error) { return unix.Openat(int(found.Fd()), ".", flags|unix.O_CLOEXEC, mode) })
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), name), nil
	}
	if err := openable(found, flags); err != nil {
		return nil, err
	}
	return reopen(found, flags)
}

// reopen opens what the descriptor has found. It does not wait: not for who holds a lease either.
func reopen(found *os.File, flags int) (*os.File, error) {
	proc, err := procfs.OpenAt("/proc")
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	const not = unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW
	f, err := proc.Reopen(int(found.Fd()), flags&^not|unix.O_NOCTTY|unix.O_NONBLOCK)
	if err != nil || flags&unix.O_NONBLOCK != 0 {
		return f, err
	}
	if err := unix.SetNonblock(int(f.Fd()), false); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// find opens by O_PATH, which does nothing to the file, and refuses what lies on procfs: /proc/self is an ordinary link there, which no flag of
// openat2(2) forbids alone, and leads to the supervisor.
func (p *Path) find(name string, flags int) (*os.File, error) {
	f, err := p.open(name, unix.O_PATH|flags&(unix.O_DIRECTORY|unix.O_NOFOLLOW), 0)
	if err != nil {
		return nil, err
	}
	var fs unix.Statfs_t
	if err = unix.Fstatfs(int(f.Fd()), &fs); err == nil && fs.Type == unix.PROC_SUPER_MAGIC {
		err = refused("it lies on procfs, where it can be the supervisor's", syscall.EACCES)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openable judges a file by its type.
func openable(f *os.File, flags int) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return nil
	case unix.S_IFDIR:
		if flags&unix.O_CREAT != 0 {
			return syscall.EISDIR
		}
		return nil
	case unix.S_IFLNK: // O_NOFOLLOW
		return syscall.ELOOP
	case unix.S_IFCHR:
		const memory = 1 // null, zero, full, random and urandom of Documentation/admin-guide/devices.txt
		d := uint64(st.Rdev)
		if unix.Major(d) == memory && slices.Contains([]uint32{3, 5, 7, 8, 9}, unix.Minor(d)) {
			return nil
		}
		return refused(fmt.Sprintf("character device %d:%d", unix.Major(d), unix.Minor(d)), syscall.EACCES)
	case unix.S_IFBLK:
		return refused("a block device", syscall.EACCES)
	}
	return refused("a fifo or a socket", syscall.EACCES)
}
