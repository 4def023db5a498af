//go:build linux

package chroot

import (
	"errors"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/plan"
)

// view is what the parts of one plan know of each other.
type view struct {
	// own are mounts of the sandbox's own by their place: /proc, /sys, /dev. What is put into them later goes by their
	// descriptor and not by their path: whoever can write to the directory that is the root may rename a mount point, also while it is
	// mounted on in this mount namespace, and put something else in its place.
	own map[string]plan.Slot

	masks, files *plan.Slot // file systems with the sources of masks and files
	masked       []string   // all paths of the masks
	pidOnly      bool       // /proc shows processes only
	rooted       bool       // the calls that change the root have been recorded
}

type viewKey struct{}

func viewOf(p *plan.Plan) *view {
	v, ok := p.Value(viewKey{}).(*view)
	if !ok {
		v = &view{own: map[string]plan.Slot{}}
		p.Set(viewKey{}, v)
	}
	return v
}

// find gives the directory from which name is to be resolved, and the rest of the name: the innermost mount of the sandbox's
// own above name, or the root.
func (v *view) find(name string) (dir plan.Arg, rest string, own bool) {
	for at := path.Dir(name); at != "/"; at = path.Dir(at) {
		if slot, ok := v.own[at]; ok {
			return plan.Saved(slot), name[len(at)+1:], true
		}
	}
	return mnt.CWD(), name, false
}

// put remembers a mount of the sandbox's own.
func (v *view) put(name string, mount plan.Slot) {
	v.cover(name)
	v.own[name] = mount
}

// cover forgets the mounts that a new one at name hides.
func (v *view) cover(name string) {
	for at := range v.own {
		if at == name || strings.HasPrefix(at, name+"/") {
			delete(v.own, at)
		}
	}
}

// place is a mount point: a name in the directory behind a descriptor.
type place struct {
	make []plan.Op // make it, as far as it is missing
	dir  plan.Arg
	name string
}

// kind of mount point.
type pointKind bool

const (
	directory pointKind = true
	file      pointKind = false
)

// place finds target, and makes what is missing of it. A symbolic link of the root is followed, which ends inside, but never a magic
// link: /proc/PID/fd/N and /proc/PID/root lead to what others have open, also the host's.
func (v *view) place(p *plan.Plan, target string, kind pointKind) place {
	dir, rest, _ := v.find(target)
	parents := strings.Split(strings.TrimPrefix(rest, "/"), "/")
	last := len(parents) - 1
	where := place{dir: dir, name: rest[:len(rest)-len(strings.TrimPrefix(rest, "/"))] + parents[0]}
	for i := range parents {
		if i > 0 {
			above := rest[:len(rest)-len(strings.Join(parents[i:], "/"))-1]
			at := p.Slot()
			where.make = append(where.make, mnt.OpenPath(dir, above, unix.O_DIRECTORY, unix.RESOLVE_NO_MAGICLINKS).Save(at).
				Hint(syscall.ENOENT, "a symbolic link on the way to the mount point leads nowhere").
				Hint(syscall.ENOTDIR, "a file is on the way to the mount point").
				Hint(syscall.ELOOP, "the way to the mount point is a loop of symbolic links, or leads through /proc/PID/fd or the like"))
			where.dir, where.name = plan.Saved(at), parents[i]
		}
		where.make = append(where.make, makePoint(where.dir, where.name, kind == directory || i < last))
	}
	return where
}

func makePoint(dir plan.Arg, name string, isDir bool) plan.Op {
	op := plan.Call("mkdirat", unix.SYS_MKDIRAT, dir, plan.Str(name), plan.Octal(0o755))
	if !isDir {
		op = plan.Call("mknodat", unix.SYS_MKNODAT, dir, plan.Str(name), plan.Number(unix.S_IFREG|0o644, "S_IFREG|0644"), plan.Int(0))
	}
	return op.Tolerate(syscall.EEXIST).
		Hint(syscall.EROFS, readOnlyHint).Hint(syscall.EACCES, readOnlyHint).Hint(syscall.EPERM, readOnlyHint)
}

const readOnlyHint = "the mount point does not exist and cannot be made; mount below a Tmpfs, or use a root directory of your own"

// store makes a file system for the sources of masks or files. It has to be attached to something, since the mounts that it is for are
// copies, and only what is attached can be copied (open_tree(2); until Linux 6.15): to /proc of the host's tree,
// which is unmounted with all that is attached to it when the root has changed.
func (v *view) store(p *plan.Plan, kept **plan.Slot, fill func(store plan.Slot)) (plan.Slot, error) {
	if v.rooted {
		return plan.Slot{}, errors.New("applied when the root had been decided")
	}
	if *kept == nil {
		s := p.Slot()
		*kept = &s
		p.Child(plan.Sources, mnt.New(p, "tmpfs", s, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC,
			mnt.Option{Key: "mode", Value: "755"})...)
		if fill != nil {
			fill(s)
		}
		p.Child(plan.Root, mnt.Attach(s, "/proc").Hint(syscall.ENOENT, "the host has no /proc"))
	}
	return **kept, nil
}
