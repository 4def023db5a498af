//go:build linux

package chroot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
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
	first := len(v.masked) == 0
	v.masked = append(v.masked, m...)
	if first && len(m) > 0 {
		p.Late(func() error { return v.maskAll(p) })
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

// empty is where the copies of the empty file, or directory, come from.
type empty struct {
	name string
	seed *plan.Slot // a copy that is attached first: what is attached can be copied
}

// source gives a copy of the file or directory, and the calls that make it. Copies that are made for nothing are dear: the kernel waits for
// all processors when it closes one (dissolve_on_fput). So they are made from the seed once that is attached, when it is known that they are needed.
func (e *empty) source(p *plan.Plan, store plan.Slot) (plan.Slot, []plan.Op) {
	c := p.Slot()
	if e.seed != nil {
		return c, []plan.Op{mnt.CloneAt(plan.Saved(*e.seed), "", 0).Save(c).
			Hint(syscall.EINVAL, "the first path to be masked has vanished since the plan was made")}
	}
	p.Child(plan.Root, mnt.CloneAt(plan.Saved(store), e.name, unix.AT_SYMLINK_NOFOLLOW).Save(c))
	return c, nil
}

// maskAll covers all paths that are to be masked, when it is known which mounts there are. Those come first of which it is known what
// they are.
func (v *view) maskAll(p *plan.Plan) error {
	store, err := v.store(p, &v.masks, func(s plan.Slot) {
		p.Child(plan.Sources,
			plan.Call("mknodat", unix.SYS_MKNODAT, plan.Saved(s), plan.Str("file"), plan.Number(unix.S_IFREG|0o444, "S_IFREG|0444"), plan.Int(0)),
			mnt.Mkdir(s, "dir", 0o555))
		if !v.NoSetAttr() {
			p.Child(plan.Sources, mnt.SetAttr(s, false, unix.MOUNT_ATTR_RDONLY, 0))
		}
	})
	if err != nil {
		return err
	}
	if v.NoSetAttr() { // it is attached now
		p.Child(plan.Root, mnt.RemountIn(p, store, ".", noFiles|unix.MOUNT_ATTR_RDONLY)...)
	}
	file, dir := &empty{name: "file"}, &empty{name: "dir"}
	var unknown []string
	for _, name := range v.masked {
		kind, known := v.ownKind(name)
		switch {
		case !known:
			unknown = append(unknown, name)
		case kind.IsDir():
			v.maskKnown(p, store, dir, name)
		default:
			v.maskKnown(p, store, file, name)
		}
	}
	for _, name := range unknown {
		at, rest, own := v.find(name)
		f, makeFile := file.source(p, store)
		d, makeDir := dir.source(p, store)
		p.Child(plan.Seal, v.coverUnknown(p, makeFile, makeDir, at, rest, resolveFor(name, own), f, d)...)
	}
	return nil
}

// ownKind tells what a path in the sandbox's own /proc or /sys is.
func (v *view) ownKind(name string) (mode fs.FileMode, known bool) {
	if _, _, own := v.find(name); !own || v.pidOnly && strings.HasPrefix(name, "/proc/") {
		return 0, false
	}
	return hostKind(name)
}

// maskKnown covers what is there in one call: nobody can replace names in a file system of the kernel's. The first copy has to find its
// place, since the others are made from it.
func (v *view) maskKnown(p *plan.Plan, store plan.Slot, e *empty, name string) {
	at, rest, _ := v.find(name)
	c, ops := e.source(p, store)
	attach := mnt.AttachAt(plan.Saved(c), at, rest)
	if e.seed == nil {
		e.seed = &c
		attach = attach.Hint(syscall.ENOENT, "the path has vanished since the plan was made")
	} else {
		attach = attach.Tolerate(syscall.ENOENT)
	}
	p.Child(plan.Seal, append(ops, attach)...)
}

// coverUnknown opens what is there, so that it cannot be exchanged, and asks whether it is a directory.
func (v *view) coverUnknown(p *plan.Plan, file, dir []plan.Op, at plan.Arg, name string, resolve uint64, f, d plan.Slot) []plan.Op {
	t := p.Slot()
	file = append(file, mnt.AttachAt(plan.Saved(f), plan.Saved(t), ""))
	dir = append(dir, mnt.AttachAt(plan.Saved(d), plan.Saved(t), ""),
		plan.Call("close", unix.SYS_CLOSE, plan.Int(-1)).Tolerate(syscall.EBADF).Skip(len(file))) // go on behind the file
	look := v.Open(p, mnt.Lookup{Dir: at, Name: name, Resolve: resolve, Into: t, Absent: 1 + len(dir) + len(file), Hints: linkHints})
	return slices.Concat(look, []plan.Op{v.IsDirectory(plan.Saved(t)).Tolerate(syscall.ENOTDIR).Skip(len(dir))}, dir, file)
}

func linkHints(o plan.Op) plan.Op { return o.Hint(syscall.ELOOP, linkHint) }

const linkHint = "a symbolic link in /proc or /sys, a loop of links, or a way through /proc/PID/fd or the like"

// resolveFor: what is named in /proc and /sys must be the real thing.
func resolveFor(name string, own bool) uint64 {
	if own || strings.HasPrefix(name, "/proc/") || strings.HasPrefix(name, "/sys/") {
		return unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
	}
	return unix.RESOLVE_NO_MAGICLINKS
}
