//go:build linux

package chroot

import (
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/plan"
)

// Tmpfs mounts a fresh file system in memory (tmpfs(5)), which ends with the sandbox.
type Tmpfs struct {
	Path   string      // absolute, in the sandbox; made when it is missing
	Size   int64       // bytes; zero leaves the kernel's default, half of the memory
	Mode   os.FileMode // permission bits and os.ModeSticky; zero is 1777, as for /tmp
	Inodes int64       // files and directories at most; zero leaves the kernel's default
	NoExec bool        // programs in it cannot be executed
}

// Apply implements plan.Primitive.
func (t Tmpfs) Apply(p *plan.Plan) error {
	if err := target(t.Path); err != nil {
		return err
	}
	options, err := t.options()
	if err != nil {
		return err
	}
	private(p)
	v, m := viewOf(p), p.Slot()
	attr := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
	if t.NoExec {
		attr |= unix.MOUNT_ATTR_NOEXEC
	}
	p.Child(plan.Sources, mnt.New(p, "tmpfs", m, attr, options...)...)
	at := v.place(p, t.Path, directory)
	v.cover(t.Path)
	p.Child(plan.Mounts, at.Onto(p, plan.Saved(m))...)
	return nil
}

func (t Tmpfs) options() ([]mnt.Option, error) {
	if t.Size < 0 {
		return nil, fmt.Errorf("size of %d bytes: %w", t.Size, syscall.EINVAL)
	}
	if t.Inodes < 0 {
		return nil, fmt.Errorf("%d inodes: %w", t.Inodes, syscall.EINVAL)
	}
	if bad := t.Mode &^ (os.ModePerm | os.ModeSticky); bad != 0 {
		return nil, fmt.Errorf("mode %v of a directory: %w", t.Mode, syscall.EINVAL)
	}
	var options []mnt.Option
	if t.Mode != 0 { // without it the kernel takes 1777
		options = append(options, mnt.Option{Key: "mode", Value: strconv.FormatUint(uint64(modeBits(t.Mode)), 8)})
	}
	if t.Size > 0 {
		options = append(options, mnt.Option{Key: "size", Value: strconv.FormatInt(t.Size, 10)})
	}
	if t.Inodes > 0 {
		options = append(options, mnt.Option{Key: "nr_inodes", Value: strconv.FormatInt(t.Inodes, 10)})
	}
	return options, nil
}

// modeBits gives the mode as the kernel has it.
func modeBits(m os.FileMode) uint32 {
	bits := uint32(m.Perm())
	for _, b := range []struct {
		mode os.FileMode
		bit  uint32
	}{{os.ModeSticky, unix.S_ISVTX}, {os.ModeSetgid, unix.S_ISGID}, {os.ModeSetuid, unix.S_ISUID}} {
		if m&b.mode != 0 {
			bits |= b.bit
		}
	}
	return bits
}

// Proc mounts a fresh /proc (proc(5)). It shows the processes of the sandbox's pid namespace. The sandbox needs one of its own, or a user namespace:
// through /proc/PID/root of a process outside it would get at the host's files. A pid namespace that is joined counts as its own. Who wants the host's processes all the same binds the host's /proc. /proc
// of the root must be a directory: a symbolic link is refused.
type Proc struct {
	HidePID HidePID // which processes a user sees; zero leaves the kernel's default, all of them
	PIDOnly bool    // only processes: no /proc/sys, no /proc/kcore and the like (subset=pid, Linux 5.8)
}

// HidePID says which processes of others a user without CAP_SYS_PTRACE sees in /proc (proc(5), the mount option hidepid; by
// these words since Linux 5.8).
type HidePID string

// The kinds of hiding.
const (
	NoAccess   HidePID = "noaccess"   // sees that they are there
	Invisible  HidePID = "invisible"  // does not see them
	Ptraceable HidePID = "ptraceable" // sees those that it may trace, root included
)

// Apply implements plan.Primitive.
func (r Proc) Apply(p *plan.Plan) error {
	options, err := r.options()
	if err != nil {
		return err
	}
	private(p)
	m := p.Slot()
	ops := mnt.New(p, "proc", m, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, options...)
	for i := range options {
		ops[i+1] = ops[i+1].Hint(syscall.EINVAL, "needs Linux 5.8")
	}
	last := len(ops) - 1
	ops[last] = ops[last].Hint(syscall.EPERM, "without privilege /proc needs namespaces.PID, and a host whose /proc is not covered in parts")
	p.Child(plan.Sources, ops...)
	p.Child(plan.Mounts, makeDir("/proc"), mnt.Attach(m, "/proc"))
	v := viewOf(p)
	v.put("/proc", m)
	v.pidOnly = r.PIDOnly
	afterOthers(p, func() error { return needsPIDs(p) })
	return nil
}

func (r Proc) options() (o []mnt.Option, err error) {
	switch r.HidePID {
	case "":
	case NoAccess, Invisible, Ptraceable:
		o = append(o, mnt.Option{Key: "hidepid", Value: string(r.HidePID)})
	default:
		return nil, fmt.Errorf("hidepid %q: %w", string(r.HidePID), syscall.EINVAL)
	}
	if r.PIDOnly {
		o = append(o, mnt.Option{Key: "subset", Value: "pid"})
	}
	return o, nil
}
