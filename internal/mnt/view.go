//go:build linux

package mnt

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// View is what the parts of one plan know of each other's mounts.
type View struct {
	// own are mounts of the sandbox's own by their place: /proc, /sys, /dev. What is put into them later goes by their
	// descriptor and not by their path: whoever can write to the directory that is the root may rename a mount point, also while it is
	// mounted on in this mount namespace, and put something else in its place.
	own map[string]plan.Slot

	Rooted bool // the calls that change the root have been recorded

	lacks  lacking  // what the kernel does not have
	trees  []Tree   // to be restricted without mount_setattr
	wanted []string // mount points
}

type viewKey struct{}

// ViewOf gives the view of the plan.
func ViewOf(p *plan.Plan) *View {
	v, ok := p.Value(viewKey{}).(*View)
	if !ok {
		v = &View{own: map[string]plan.Slot{}, lacks: probe()}
		p.Set(viewKey{}, v)
	}
	return v
}

// Find gives the directory from which name is to be resolved, and the rest of the name: the innermost mount of the sandbox's
// own above name, or the root.
func (v *View) Find(name string) (dir plan.Arg, rest string, own bool) {
	for at := path.Dir(name); at != "/"; at = path.Dir(at) {
		if slot, ok := v.own[at]; ok {
			return plan.Saved(slot), name[len(at)+1:], true
		}
	}
	return CWD(), name, false
}

// Put remembers a mount of the sandbox's own.
func (v *View) Put(name string, mount plan.Slot) {
	v.Cover(name)
	v.own[name] = mount
}

// Cover forgets the mounts that a new one at name hides.
func (v *View) Cover(name string) {
	for at := range v.own {
		if at == name || strings.HasPrefix(at, name+"/") {
			delete(v.own, at)
		}
	}
}

// Want notes that there has to be a mount point at name. Place does it too; this is for who decides late where it is.
func (v *View) Want(name string) { v.wanted = append(v.wanted, name) }

// Wanted are the mount points that the parts have wanted so far.
func (v *View) Wanted() []string { return v.wanted }

// Place is a mount point: a name in the directory behind a descriptor.
type Place struct {
	Make []plan.Op // make it, as far as it is missing
	Dir  plan.Arg
	Name string

	target string // the whole path
	view   *View
}

// Place finds target, and makes what is missing of it: a directory, or a file. A symbolic link of the root is followed, which ends
// inside, but never a magic link: /proc/PID/fd/N and /proc/PID/root lead to what others have open, also the host's.
func (v *View) Place(p *plan.Plan, target string, isDir bool) Place {
	v.Want(target)
	dir, rest, _ := v.Find(target)
	parents := strings.Split(strings.TrimPrefix(rest, "/"), "/")
	last := len(parents) - 1
	where := Place{target: target, view: v, Dir: dir, Name: rest[:len(rest)-len(strings.TrimPrefix(rest, "/"))] + parents[0]}
	for i := range parents {
		if i > 0 {
			above := rest[:len(rest)-len(strings.Join(parents[i:], "/"))-1]
			at := p.Slot()
			where.Make = append(where.Make, v.Open(p, Lookup{Dir: dir, Name: above, Flags: unix.O_DIRECTORY, Resolve: unix.RESOLVE_NO_MAGICLINKS, Into: at, Hints: wayHints})...)
			where.Dir, where.Name = plan.Saved(at), parents[i]
		}
		where.Make = append(where.Make, MakePoint(where.Dir, where.Name, isDir || i < last))
	}
	return where
}

func wayHints(o plan.Op) plan.Op {
	return o.Hint(syscall.ENOENT, "a symbolic link on the way to the mount point leads nowhere").
		Hint(syscall.ENOTDIR, "a file is on the way to the mount point").
		Hint(syscall.ELOOP, "the way to the mount point is a loop of symbolic links, or leads through /proc/PID/fd or the like")
}

// Onto makes the mount point and puts a detached mount onto it. The last word may be a symbolic link of the root, too, and no magic link: so it is
// opened, and what has been opened is mounted on.
func (at Place) Onto(p *plan.Plan, mount plan.Arg) []plan.Op {
	t := p.Slot()
	wrongKind := fmt.Sprintf("one of %q and what is mounted there is a directory and the other is not", at.target)
	open := at.view.Open(p, Lookup{Dir: at.Dir, Name: at.Name, Resolve: unix.RESOLVE_NO_MAGICLINKS, Into: t, Hints: func(o plan.Op) plan.Op {
		return o.Hint(syscall.ENOENT, "the mount point is a symbolic link that leads nowhere").
			Hint(syscall.ELOOP, "the mount point is a loop of symbolic links, or leads through /proc/PID/fd or the like")
	}})
	return append(slices.Concat(at.Make, open),
		moveMount(mount, plan.Saved(t), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH).
			Hint(syscall.EINVAL, wrongKind).Hint(syscall.ENOTDIR, wrongKind))
}

// MakePoint makes a directory, or an empty file, to mount on; one that is there is left as it is.
func MakePoint(dir plan.Arg, name string, isDir bool) plan.Op {
	op := plan.Call("mkdirat", unix.SYS_MKDIRAT, dir, plan.Str(name), plan.Octal(0o755))
	if !isDir {
		op = plan.Call("mknodat", unix.SYS_MKNODAT, dir, plan.Str(name), plan.Number(unix.S_IFREG|0o644, "S_IFREG|0644"), plan.Int(0))
	}
	return op.Tolerate(syscall.EEXIST).
		Hint(syscall.EROFS, ReadOnlyHint).Hint(syscall.EACCES, ReadOnlyHint).Hint(syscall.EPERM, ReadOnlyHint)
}

// ReadOnlyHint is for a mount point that cannot be made.
const ReadOnlyHint = "the mount point does not exist and cannot be made; mount below a Tmpfs, or use a root directory of your own"
