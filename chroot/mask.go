//go:build linux

package chroot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/plan"
)

// Mask hides files and directories of the sandbox: an empty file, or an empty directory, which nobody can write to, covers each of
// them. What does not exist is passed over, as Docker does. The paths are absolute, in the sandbox.
//
// What covers comes from a file system of the sandbox's own and not from the root: /dev/null of a root may be anything. Below the [Proc] and
// [Sysfs] of the sandbox paths are taken from these mounts themselves, whatever the root's /proc and /sys are meanwhile. Elsewhere a mask covers what the path
// leads to when the sandbox starts. Root inside with CAP_SYS_ADMIN can unmount masks; see package caps.
type Mask []string

// DockerMasks are the paths that Docker masks by default.
func DockerMasks() Mask {
	return Mask{"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
		"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware"}
}

// ReadOnly makes files and directories of the sandbox read-only, with all that is mounted below them. What does not exist is passed
// over. The paths are absolute, in the sandbox, and resolved as those of a [Mask].
type ReadOnly []string

// DockerReadOnly are the paths that Docker makes read-only by default.
func DockerReadOnly() ReadOnly {
	return ReadOnly{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

func targets(names []string) (err error) {
	for _, name := range names {
		err = errors.Join(err, target(name))
		if own, rest, _ := strings.Cut(strings.TrimPrefix(name, "/proc/"), "/"); strings.HasPrefix(name, "/proc/") && perProcess(own) {
			err = errors.Join(err, fmt.Errorf("%q is of one process only, %q: %w", name, rest, syscall.EINVAL))
		}
	}
	return err
}

// perProcess reports whether a name in /proc belongs to one process.
func perProcess(name string) bool {
	return name == "self" || name == "thread-self" || strings.Trim(name, "0123456789") == ""
}

// Apply implements plan.Primitive.
func (m Mask) Apply(p *plan.Plan) error {
	if err := targets(m); err != nil {
		return err
	}
	private(p)
	v := viewOf(p)
	for _, name := range m {
		kind, known := hostKind(name)
		if err := v.mask(p, name, kind, known); err != nil {
			return err
		}
	}
	return nil
}

// hostKind tells what a path of the kernel's own file systems is: the host's /proc and /sys have the same names as the sandbox's. Where there
// is nothing now, something may come when a module is loaded.
func hostKind(name string) (mode fs.FileMode, known bool) {
	if !strings.HasPrefix(name, "/proc/") && !strings.HasPrefix(name, "/sys/") {
		return 0, false
	}
	st, err := os.Lstat(name)
	if err != nil {
		return 0, false
	}
	return st.Mode().Type(), true
}

const (
	emptyFile = "file"
	emptyDir  = "dir"
)

// emptyCopy makes a fresh copy of the empty file or directory.
func (v *view) emptyCopy(p *plan.Plan, which string) (plan.Arg, error) {
	store, err := v.store(p, &v.masks, func(s plan.Slot) {
		p.Child(plan.Sources,
			plan.Call("mknodat", unix.SYS_MKNODAT, plan.Saved(s), plan.Str(emptyFile), plan.Number(unix.S_IFREG|0o444, "S_IFREG|0444"), plan.Int(0)),
			mnt.Mkdir(s, emptyDir, 0o555),
			mnt.SetAttr(s, false, unix.MOUNT_ATTR_RDONLY, 0))
	})
	if err != nil {
		return plan.Arg{}, err
	}
	c := p.Slot()
	p.Child(plan.Root, mnt.CloneAt(plan.Saved(store), which, unix.AT_SYMLINK_NOFOLLOW).Save(c))
	return plan.Saved(c), nil
}

// mask covers name. In the file systems of the kernel it is known beforehand what is there, and if that should turn out to be wrong the start
// fails; elsewhere the child looks.
func (v *view) mask(p *plan.Plan, name string, kind fs.FileMode, known bool) error {
	var f, d plan.Arg
	var err, err2 error
	if !known || !kind.IsDir() {
		f, err = v.emptyCopy(p, emptyFile)
	}
	if !known || kind.IsDir() {
		d, err2 = v.emptyCopy(p, emptyDir)
	}
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	p.Late(func() error { // when it is known which mounts there are
		dir, rest, own := v.find(name)
		switch {
		case own && known && kind.IsDir():
			p.Child(plan.Seal, coverKnown(d, dir, rest))
		case own && known:
			p.Child(plan.Seal, coverKnown(f, dir, rest))
		case known && kind.IsDir():
			p.Child(plan.Seal, coverUnknown(p, d, d, dir, rest, resolveFor(name, own))...)
		case known:
			p.Child(plan.Seal, coverUnknown(p, f, f, dir, rest, resolveFor(name, own))...)
		default:
			p.Child(plan.Seal, coverUnknown(p, f, d, dir, rest, resolveFor(name, own))...)
		}
		return nil
	})
	return nil
}

// coverKnown covers what is there in one call. Nobody can replace names in a file system of the kernel's.
func coverKnown(empty, dir plan.Arg, name string) plan.Op {
	return mnt.AttachAt(empty, dir, name).Tolerate(syscall.ENOENT)
}

// coverUnknown opens what is there, so that it cannot be exchanged, and asks whether it is a directory.
func coverUnknown(p *plan.Plan, file, dir, at plan.Arg, name string, resolve uint64) []plan.Op {
	t := p.Slot()
	return []plan.Op{
		mnt.OpenPath(at, name, 0, resolve).Save(t).Tolerate(syscall.ENOENT).Skip(4).Hint(syscall.ELOOP, linkHint),
		mnt.OpenPath(plan.Saved(t), ".", unix.O_DIRECTORY, 0).Tolerate(syscall.ENOTDIR).Skip(2),
		mnt.AttachAt(dir, plan.Saved(t), ""),
		plan.Call("close", unix.SYS_CLOSE, plan.Int(-1)).Tolerate(syscall.EBADF).Skip(1), // go on behind the file
		mnt.AttachAt(file, plan.Saved(t), ""),
	}
}

const linkHint = "a symbolic link in /proc or /sys, a loop of links, or a way through /proc/PID/fd or the like"

// resolveFor: what is named in /proc and /sys must be the real thing.
func resolveFor(name string, own bool) uint64 {
	if own || strings.HasPrefix(name, "/proc/") || strings.HasPrefix(name, "/sys/") {
		return unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
	}
	return unix.RESOLVE_NO_MAGICLINKS
}

// Apply implements plan.Primitive.
func (r ReadOnly) Apply(p *plan.Plan) error {
	if err := targets(r); err != nil {
		return err
	}
	private(p)
	v := viewOf(p)
	p.Late(func() error {
		for _, name := range r {
			dir, rest, own := v.find(name)
			_, known := hostKind(name)
			if own && known {
				p.Child(plan.Seal, sealKnown(p, dir, rest)...)
			} else {
				p.Child(plan.Seal, sealUnknown(p, dir, rest, resolveFor(name, own))...)
			}
		}
		return nil
	})
	return nil
}

// sealKnown mounts what is there over itself, read-only.
func sealKnown(p *plan.Plan, dir plan.Arg, name string) []plan.Op {
	c := p.Slot()
	return []plan.Op{
		mnt.CloneAt(dir, name, unix.AT_RECURSIVE|unix.AT_SYMLINK_NOFOLLOW).Save(c).Tolerate(syscall.ENOENT).Skip(2),
		mnt.SetAttr(c, true, unix.MOUNT_ATTR_RDONLY, 0),
		mnt.AttachAt(plan.Saved(c), dir, name),
	}
}

func sealUnknown(p *plan.Plan, dir plan.Arg, name string, resolve uint64) []plan.Op {
	t, c := p.Slot(), p.Slot()
	return []plan.Op{
		mnt.OpenPath(dir, name, 0, resolve).Save(t).Tolerate(syscall.ENOENT).Skip(3).Hint(syscall.ELOOP, linkHint),
		mnt.CloneAt(plan.Saved(t), "", unix.AT_RECURSIVE).Save(c),
		mnt.SetAttr(c, true, unix.MOUNT_ATTR_RDONLY, 0),
		mnt.AttachAt(plan.Saved(c), plan.Saved(t), ""),
	}
}
