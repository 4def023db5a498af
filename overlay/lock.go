//go:build linux

package overlay

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// lockKey keeps the lock of a work directory in a start.
type lockKey string

// lock records that the upper directory is this sandbox's only: two mounts that write to one make a mess of it, and the kernel only writes
// a warning into its log.
func (s Stack) lock(p *plan.Plan) {
	if s.Upper == "" {
		return
	}
	key := lockKey(s.Work)
	p.Before(plan.Action{
		Name: fmt.Sprintf("lock %q", s.Work),
		Do: func(r *plan.Run) error {
			f, err := s.use()
			if err == nil {
				r.Set(key, f)
			}
			return err
		},
		Undo: func(r *plan.Run) error {
			if f, ok := r.Value(key).(*os.File); ok {
				return f.Close()
			}
			return nil
		},
	})
}

// use looks at upper and work, and locks work. The lock ends when the file is closed.
func (s Stack) use() (*os.File, error) {
	var upper, work unix.Statx_t
	for _, d := range []struct {
		name string
		st   *unix.Statx_t
	}{{s.Upper, &upper}, {s.Work, &work}} {
		if err := unix.Statx(unix.AT_FDCWD, d.name, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_TYPE|unix.STATX_MNT_ID, d.st); err != nil {
			return nil, &Error{Op: "look at", Path: d.name, Err: err}
		}
		if d.st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return nil, &Error{Op: "look at", Path: d.name, Err: syscall.ENOTDIR, Hint: hintLink(d.st.Mode)}
		}
	}
	if upper.Dev_major != work.Dev_major || upper.Dev_minor != work.Dev_minor || upper.Mnt_id != work.Mnt_id {
		return nil, &Error{Op: "use as Work", Path: s.Work, Err: syscall.EXDEV, Hint: fmt.Sprintf("it must be on the same mount as Upper %q", s.Upper)}
	}
	if err := s.canBeUpper(); err != nil {
		return nil, err
	}
	return lockDir(s.Work)
}

func hintLink(mode uint16) string {
	if mode&unix.S_IFMT == unix.S_IFLNK {
		return "a symbolic link is not followed"
	}
	return ""
}

func lockDir(name string) (*os.File, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &Error{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if err == syscall.EWOULDBLOCK {
			err = syscall.EBUSY
		}
		return nil, &Error{Op: "lock", Path: name, Err: err, Hint: hintFor(err, syscall.EBUSY, "the upper directory is in use by another sandbox")}
	}
	return f, nil
}

// canBeUpper names the file systems that the kernel would answer EINVAL to.
func (s Stack) canBeUpper() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(s.Upper, &fs); err != nil {
		return &Error{Op: "look at", Path: s.Upper, Err: err}
	}
	if fs.Flags&unix.ST_RDONLY != 0 {
		return &Error{Op: "use as Upper", Path: s.Upper, Err: syscall.EROFS}
	}
	if name, bad := notUpper[uint32(fs.Type)]; bad {
		return &Error{Op: "use as Upper", Path: s.Upper, Err: syscall.EINVAL, Hint: "a directory on " + name + " cannot be one"}
	}
	return nil
}

// notUpper are the magic numbers of file systems on which nothing can be whited out, or whose names change by themselves (statfs(2)).
var notUpper = map[uint32]string{unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", unix.NFS_SUPER_MAGIC: "NFS", unix.MSDOS_SUPER_MAGIC: "FAT",
	unix.PROC_SUPER_MAGIC: "procfs", unix.SYSFS_MAGIC: "sysfs", unix.CGROUP2_SUPER_MAGIC: "cgroup2", unix.SQUASHFS_MAGIC: "squashfs", unix.ISOFS_SUPER_MAGIC: "ISO 9660"}
