//go:build linux

package overlay

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Quota limits what a directory, such as that in which Upper and Work are, may hold on the disk, with all that is made in it later: a project quota of ext4 or
// xfs. The file system must be mounted with the option prjquota, else the error wraps errors.ErrUnsupported. What exceeds it is ENOSPC or EDQUOT to
// whoever writes. For a scratch upper there is Stack.Size.
//
// It needs CAP_SYS_ADMIN on the host, and Linux 5.14 (quotactl_fd, quotactl(2)). Owners of files in the first user namespace may take them
// out of the project again: the command should be in a namespace of its own, or its system calls be filtered.
type Quota struct {
	Project uint32 // the number of the project, not 0: the limits belong to it, so each directory takes one of its own
	Bytes   int64  // in steps of 1024, rounded up; zero is no limit
	Inodes  int64  // files and directories; zero is no limit
}

// Usage is what a project has on the disk.
type Usage struct{ Bytes, Inodes int64 }

// Set puts an empty directory into the project, and sets the limits. For a directory that is in the project already it changes the limits.
func (q Quota) Set(dir string) error {
	if q.Project == 0 || q.Bytes < 0 || q.Inodes < 0 {
		return &Error{Op: "set a quota for", Path: dir, Err: invalid("project %d, %d bytes, %d inodes", q.Project, q.Bytes, q.Inodes)}
	}
	f, err := openPlain(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, step := range []func(*os.File) error{enforced, q.join, q.limit} {
		if err := step(f); err != nil {
			return &Error{Op: "set a quota for", Path: dir, Err: err, Hint: hintFor(err, syscall.ENOTEMPTY, "what is in it would not be counted") +
				hintFor(err, syscall.EPERM, "needs CAP_SYS_ADMIN on the host")}
		}
	}
	return nil
}

// Used tells what the project of a directory has on the disk.
func Used(dir string) (Usage, error) {
	f, err := openPlain(dir)
	if err != nil {
		return Usage{}, err
	}
	defer f.Close()
	var a fsxattr
	var d dqblk
	err = a.get(f)
	if err == nil {
		err = quotactl(f, getQuota, a.project, unsafe.Pointer(&d))
	}
	if err != nil {
		return Usage{}, &Error{Op: "read the quota of", Path: dir, Err: err}
	}
	return Usage{int64(d.space), int64(d.inodes)}, nil
}

// fsxattr is struct fsxattr of linux/fs.h.
type fsxattr struct {
	flags, extsize, nextents, project, cowextsize uint32
	pad                                           [8]byte
}

const (
	getXattr       = 0x801c581f // FS_IOC_FSGETXATTR
	setXattr       = 0x401c5820 // FS_IOC_FSSETXATTR
	projectInherit = 0x200      // FS_XFLAG_PROJINHERIT
)

func (a *fsxattr) get(f *os.File) error { return a.ioctl(f, getXattr) }

func (a *fsxattr) ioctl(f *os.File, call uintptr) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), call, uintptr(unsafe.Pointer(a))); e != 0 {
		if e == syscall.ENOTTY {
			return fmt.Errorf("the file system has no projects: %w, %w", errors.ErrUnsupported, e)
		}
		return os.NewSyscallError("ioctl", e)
	}
	return nil
}

// join puts the directory into the project, and with it what is made in it later.
func (q Quota) join(f *os.File) error {
	var a fsxattr
	if err := a.get(f); err != nil {
		return err
	}
	if a.project == q.Project && a.flags&projectInherit != 0 {
		return nil
	}
	if names, _ := f.Readdirnames(1); len(names) > 0 {
		return syscall.ENOTEMPTY
	}
	a.project, a.flags = q.Project, a.flags|projectInherit
	return a.ioctl(f, setXattr)
}

// dqblk is struct if_dqblk of linux/quota.h.
type dqblk struct {
	hard, soft, space            uint64 // limits in units of 1024 bytes, usage in bytes
	inodeHard, inodeSoft, inodes uint64
	spaceGrace, inodeGrace       uint64
	valid                        uint32
	_                            uint32
}

// The commands of quotactl(2) for projects: QCMD(command, PRJQUOTA).
const (
	getQuota = 0x800007<<8 | 2
	setQuota = 0x800008<<8 | 2
	getState = 0x5805<<8 | 2 // Q_XGETQSTAT

	enforcedBit = 1 << 5 // FS_QUOTA_PDQ_ENFD
	limits      = 1 | 4  // QIF_BLIMITS|QIF_ILIMITS
)

func (q Quota) limit(f *os.File) error {
	blocks := (uint64(q.Bytes) + 1023) / 1024
	d := dqblk{hard: blocks, soft: blocks, inodeHard: uint64(q.Inodes), inodeSoft: uint64(q.Inodes), valid: limits}
	return quotactl(f, setQuota, q.Project, unsafe.Pointer(&d))
}

// enforced refuses a file system that would count and not limit.
func enforced(f *os.File) error {
	var state struct { // struct fs_quota_stat begins with them
		version int8
		_       int8
		flags   uint16
		_       [124]byte
	}
	if err := quotactl(f, getState, 0, unsafe.Pointer(&state)); err != nil {
		return err
	}
	if state.flags&enforcedBit == 0 {
		return fmt.Errorf("the file system is not mounted with prjquota: %w", errors.ErrUnsupported)
	}
	return nil
}

func quotactl(f *os.File, command uintptr, id uint32, arg unsafe.Pointer) error {
	_, _, e := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), command, uintptr(id), uintptr(arg), 0, 0)
	switch e {
	case 0:
		return nil
	case syscall.ESRCH, syscall.ENOSYS, syscall.ENOTSUP: // no quota is on, or the kernel has none
		return fmt.Errorf("the file system is not mounted with prjquota, or the kernel has no quotas: %w, %w", errors.ErrUnsupported, e)
	}
	return os.NewSyscallError("quotactl_fd", e)
}
