//go:build linux

package mnt

import (
	"path"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// lacking says which calls are not to be had: the kernel is older, or an outer filter of system calls refuses them.
type lacking struct {
	setAttr bool // mount_setattr, Linux 5.12
	openat2 bool // Linux 5.6
}

// probe asks with a structure of no size, which both calls refuse before they look at anything else.
func probe() lacking {
	absent := func(trap uintptr) bool {
		_, _, e := unix.RawSyscall6(trap, ^uintptr(0), 0, 0, 0, 0, 0)
		return e == syscall.ENOSYS || e == syscall.EPERM
	}
	return lacking{absent(unix.SYS_MOUNT_SETATTR), absent(unix.SYS_OPENAT2)}
}

// Old makes the plan one for a kernel without mount_setattr(2) and openat2(2). It is a part, the first one, for tests.
func Old(p *plan.Plan) error {
	ViewOf(p).lacks = lacking{true, true}
	return nil
}

// NoSetAttr reports whether attributes of mounts can be changed by remounting only.
func (v *View) NoSetAttr() bool { return v.lacks.setAttr }

// Remount gives what is mounted at name in the working directory other flags of mount(2). Those that are left out are cleared; how access times are kept is
// left alone.
func Remount(name string, flags plan.Arg) plan.Op {
	return plan.Call("mount", unix.SYS_MOUNT, plan.Null(), plan.Str(name), plan.Null(), flags, plan.Null()).
		Hint(syscall.EPERM, "an attribute is locked by a more privileged mount namespace")
}

// RemountFlags are flags for Remount, from MOUNT_ATTR_...
func RemountFlags(attr uint64) plan.Arg {
	return plan.Flags(unix.MS_REMOUNT|unix.MS_BIND|flagsOf(attr), remountFlags)
}

var remountFlags = []plan.Flag{{Bits: unix.MS_REMOUNT, Name: "MS_REMOUNT"}, {Bits: unix.MS_BIND, Name: "MS_BIND"}, {Bits: unix.MS_RDONLY, Name: "MS_RDONLY"},
	{Bits: unix.MS_NOSUID, Name: "MS_NOSUID"}, {Bits: unix.MS_NODEV, Name: "MS_NODEV"}, {Bits: unix.MS_NOEXEC, Name: "MS_NOEXEC"}, {Bits: noSymFollow, Name: "MS_NOSYMFOLLOW"}}

const noSymFollow = 0x100 // MS_NOSYMFOLLOW, Linux 5.10

// flagsOf turns MOUNT_ATTR_... into MS_...: these four have the same bits.
func flagsOf(attr uint64) uint64 {
	return attr & (unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC)
}

// Chdir makes the directory behind a descriptor the working directory.
func Chdir(dir plan.Arg) plan.Op { return plan.Call("fchdir", unix.SYS_FCHDIR, dir) }

// Duplicate gives a further descriptor, for the parent.
func Duplicate(fd plan.Arg) plan.Op {
	return plan.Call("fcntl", unix.SYS_FCNTL, fd, plan.Number(unix.F_DUPFD_CLOEXEC, "F_DUPFD_CLOEXEC"), plan.Int(0))
}

// Lookup opens a place; see OpenPath.
type Lookup struct {
	Dir            plan.Arg
	Name           string
	Flags, Resolve uint64
	Into           plan.Slot
	Absent         int // where it is positive: so many further calls are skipped where there is nothing
	Hints          func(plan.Op) plan.Op
}

// Open gives the calls for a lookup. Without openat2(2) the words of the name are opened one after the other, and no symbolic link is followed: where there is
// one, openat2 is called all the same, and its ENOSYS is the error.
func (v *View) Open(p *plan.Plan, l Lookup) []plan.Op {
	if !v.lacks.openat2 {
		return v.OpenBy(plan.Slot{}, l)
	}
	return v.OpenBy(p.Slot(), l)
}

// OpenBy is Open with a slot for what is on the way.
func (v *View) OpenBy(other plan.Slot, l Lookup) []plan.Op {
	if l.Hints == nil {
		l.Hints = func(o plan.Op) plan.Op { return o }
	}
	op := l.Hints(OpenPath(l.Dir, l.Name, l.Flags, l.Resolve).Save(l.Into))
	if !v.lacks.openat2 {
		if l.Absent > 0 {
			op = op.Tolerate(syscall.ENOENT).Skip(l.Absent)
		}
		return []plan.Op{op}
	}
	const link = "a symbolic link is on the way: to follow it safely needs openat2 (Linux 5.6), or an outer filter of system calls hides that"
	return l.walk(openat2(l.Dir, l.Name, l.Flags, l.Resolve).Save(l.Into).Hint(syscall.ENOSYS, link).Hint(syscall.EPERM, link), other)
}

// Look is Open for what is not used afterwards.
func (v *View) Look(p *plan.Plan, l Lookup) []plan.Op {
	if !v.lacks.openat2 {
		return []plan.Op{l.Hints(OpenPath(l.Dir, l.Name, l.Flags, l.Resolve))}
	}
	l.Into = p.Slot()
	return v.Open(p, l)
}

// walk opens one word after the other. Each is left in one of two slots, the last one in Into.
func (l Lookup) walk(link plan.Op, other plan.Slot) (ops []plan.Op) {
	at, name := l.Dir, l.Name
	words := strings.Split(strings.TrimPrefix(name, "/"), "/")
	slot := func(i int) plan.Slot { return map[bool]plan.Slot{true: l.Into, false: other}[(len(words)-i)%2 == 1] }
	if path.IsAbs(name) {
		ops = append(ops, openWord(CWD(), "/", unix.O_DIRECTORY).Save(slot(-1)))
		at = plan.Saved(slot(-1))
	}
	end := len(ops) + 3*len(words) // how many calls there are
	if l.Flags&unix.O_DIRECTORY != 0 {
		end++
	}
	for i, word := range words {
		find := l.Hints(openWord(at, word, unix.O_NOFOLLOW).Save(slot(i)))
		if l.Absent > 0 {
			find = find.Tolerate(syscall.ENOENT).Skip(end - len(ops) - 1 + l.Absent)
		}
		here, refuse := plan.Saved(slot(i)), link
		if l.Resolve&unix.RESOLVE_NO_SYMLINKS != 0 { // ELOOP
			refuse = l.Hints(plan.Call("openat", unix.SYS_OPENAT, at, plan.Str(word), plan.Number(unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, "O_NOFOLLOW|O_NONBLOCK|O_CLOEXEC"), plan.Int(0)).
				Hint(syscall.ELOOP, strconv.Quote(l.Name)+" is, or leads over, a symbolic link in /proc or /sys"))
		}
		ops = append(ops, find,
			plan.Call("readlinkat", unix.SYS_READLINKAT, here, plan.Str(""), plan.Buffer(8), plan.Int(8)).Tolerate(syscall.ENOENT).Skip(1), refuse)
		at = here
	}
	if l.Flags&unix.O_DIRECTORY != 0 {
		isDir := openWord(at, ".", unix.O_DIRECTORY).Save(l.Into).Hint(syscall.ENOTDIR, strconv.Quote(l.Name)+" is no directory")
		ops = append(ops, l.Hints(isDir))
	}
	return ops
}

func openWord(dir plan.Arg, word string, flags uint64) plan.Op {
	return plan.Call("openat", unix.SYS_OPENAT, dir, plan.Str(word), plan.Flags(unix.O_PATH|unix.O_CLOEXEC|flags, openFlags), plan.Int(0))
}

// IsDirectory fails with ENOTDIR where the descriptor is none of a directory.
func (v *View) IsDirectory(fd plan.Arg) plan.Op {
	if v.lacks.openat2 {
		return openWord(fd, ".", unix.O_DIRECTORY)
	}
	return OpenPath(fd, ".", unix.O_DIRECTORY, 0)
}

// RemountIn gives what is mounted at name in the directory behind dir other flags, and goes back to where the child was.
func RemountIn(p *plan.Plan, dir plan.Slot, name string, attr uint64) []plan.Op {
	here := p.Slot()
	return []plan.Op{
		openWord(CWD(), ".", unix.O_DIRECTORY).Save(here).Tolerate(syscall.EACCES),
		Chdir(plan.Saved(dir)),
		Remount(name, RemountFlags(attr)),
		Chdir(plan.Saved(here)).Tolerate(syscall.EBADF),
	}
}
