//go:build linux

// Package mnt lowers the calls of the mount API of Linux 5.2 to calls of a plan: mounts are descriptors until they are
// attached, so nothing has to be walked, parsed or looked up again.
package mnt

import (
	"encoding/binary"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

var attrs = []plan.Flag{{Bits: unix.MOUNT_ATTR_RDONLY, Name: "MOUNT_ATTR_RDONLY"}, {Bits: unix.MOUNT_ATTR_NOSUID, Name: "MOUNT_ATTR_NOSUID"},
	{Bits: unix.MOUNT_ATTR_NODEV, Name: "MOUNT_ATTR_NODEV"}, {Bits: unix.MOUNT_ATTR_NOEXEC, Name: "MOUNT_ATTR_NOEXEC"},
	{Bits: unix.MOUNT_ATTR_STRICTATIME, Name: "MOUNT_ATTR_STRICTATIME"}, {Bits: unix.MOUNT_ATTR_IDMAP, Name: "MOUNT_ATTR_IDMAP"}}

var treeFlags = []plan.Flag{{Bits: unix.OPEN_TREE_CLONE, Name: "OPEN_TREE_CLONE"}, {Bits: unix.OPEN_TREE_CLOEXEC, Name: "OPEN_TREE_CLOEXEC"},
	{Bits: unix.AT_RECURSIVE, Name: "AT_RECURSIVE"}, {Bits: unix.AT_EMPTY_PATH, Name: "AT_EMPTY_PATH"},
	{Bits: unix.AT_SYMLINK_NOFOLLOW, Name: "AT_SYMLINK_NOFOLLOW"}}

var moveFlags = []plan.Flag{{Bits: unix.MOVE_MOUNT_F_EMPTY_PATH, Name: "MOVE_MOUNT_F_EMPTY_PATH"},
	{Bits: unix.MOVE_MOUNT_T_EMPTY_PATH, Name: "MOVE_MOUNT_T_EMPTY_PATH"}}

var mountFlags = []plan.Flag{{Bits: unix.MS_REC, Name: "MS_REC"}, {Bits: unix.MS_PRIVATE, Name: "MS_PRIVATE"},
	{Bits: unix.MS_SLAVE, Name: "MS_SLAVE"}}

// call is a call that older kernels do not have.
func call(name, since string, trap uintptr, args ...plan.Arg) plan.Op {
	return plan.Call(name, trap, args...).Hint(syscall.ENOSYS, "needs Linux "+since+", or an outer filter of system calls hides it")
}

// CWD is AT_FDCWD.
func CWD() plan.Arg { return plan.Number(^uint64(99), "AT_FDCWD") }

// Private cuts all mounts of the child's namespace off from those of the host.
func Private() plan.Op {
	return plan.Call("mount", unix.SYS_MOUNT, plan.Null(), plan.Str("/"), plan.Null(),
		plan.Flags(unix.MS_REC|unix.MS_PRIVATE, mountFlags), plan.Null())
}

// Clone makes a detached copy of the mounts at and below path (open_tree(2)).
func Clone(path string) plan.Op {
	return call("open_tree", "5.2", unix.SYS_OPEN_TREE, CWD(), plan.Str(path),
		plan.Flags(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE, treeFlags)).
		Hint(syscall.EINVAL, "the path is not on a mount of this mount namespace").
		Hint(syscall.ENOENT, "what is to be mounted does not exist")
}

// SetAttr changes attributes of the mount behind a descriptor, and with recursive of those below it (mount_setattr(2), Linux 5.12).
func SetAttr(mount plan.Slot, recursive bool, set, clear uint64) plan.Op {
	return SetAttrOf(plan.Saved(mount), recursive, set, clear)
}

// SetAttrOf is SetAttr for a mount that may come from the parent.
func SetAttrOf(mount plan.Arg, recursive bool, set, clear uint64) plan.Op {
	const size = 32
	b := make([]byte, size)
	binary.NativeEndian.PutUint64(b, set)
	binary.NativeEndian.PutUint64(b[8:], clear)
	flags := uint64(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	text := "{set=" + plan.FlagText(set, attrs) + ", clear=" + plan.FlagText(clear, attrs) + "}"
	return call("mount_setattr", "5.12", unix.SYS_MOUNT_SETATTR, mount, plan.Str(""), plan.Flags(flags, treeFlags),
		plan.Bytes(text, b), plan.Int(size)).
		Hint(syscall.EPERM, "an attribute is locked by a more privileged mount namespace")
}

// Attributes are MOUNT_ATTR_... of a mount.
func Attributes(attr uint64) plan.Arg { return plan.Flags(attr, attrs) }

// Option is one parameter of a file system; an empty value makes it a flag.
type Option struct{ Key, Value string }

// New makes a detached mount of a fresh file system (fsopen(2), fsconfig(2), fsmount(2)) and leaves it in the slot.
func New(p *plan.Plan, fstype string, mount plan.Slot, attr uint64, options ...Option) []plan.Op {
	return NewBy(p.Slot(), fstype, mount, attr, options...)
}

// NewBy is New with a slot for what is on the way.
func NewBy(fs plan.Slot, fstype string, mount plan.Slot, attr uint64, options ...Option) []plan.Op {
	ops := []plan.Op{call("fsopen", "5.2", unix.SYS_FSOPEN, plan.Str(fstype), plan.Number(unix.FSOPEN_CLOEXEC, "FSOPEN_CLOEXEC")).Save(fs).
		Hint(syscall.ENODEV, "the kernel has no such file system")}
	for _, o := range options {
		ops = append(ops, set(fs, o))
	}
	return append(ops,
		call("fsconfig", "5.2", unix.SYS_FSCONFIG, plan.Saved(fs), plan.Number(unix.FSCONFIG_CMD_CREATE, "FSCONFIG_CMD_CREATE"),
			plan.Null(), plan.Null(), plan.Int(0)),
		call("fsmount", "5.2", unix.SYS_FSMOUNT, plan.Saved(fs), plan.Number(unix.FSMOUNT_CLOEXEC, "FSMOUNT_CLOEXEC"),
			Attributes(attr)).Save(mount))
}

// Freeze makes a file system read-only, and not one mount of it only. Who has CAP_SYS_ADMIN in the user namespace in which it was made can undo that. The
// slot is the one of NewBy.
func Freeze(fs plan.Slot) []plan.Op {
	return []plan.Op{set(fs, Option{Key: "ro"}), call("fsconfig", "5.2", unix.SYS_FSCONFIG, plan.Saved(fs),
		plan.Number(unix.FSCONFIG_CMD_RECONFIGURE, "FSCONFIG_CMD_RECONFIGURE"), plan.Null(), plan.Null(), plan.Int(0)).
		Hint(syscall.EBUSY, "a file in it is open for writing")}
}

func set(fs plan.Slot, o Option) plan.Op {
	if o.Value == "" {
		return call("fsconfig", "5.2", unix.SYS_FSCONFIG, plan.Saved(fs), plan.Number(unix.FSCONFIG_SET_FLAG, "FSCONFIG_SET_FLAG"),
			plan.Str(o.Key), plan.Null(), plan.Int(0))
	}
	return call("fsconfig", "5.2", unix.SYS_FSCONFIG, plan.Saved(fs), plan.Number(unix.FSCONFIG_SET_STRING, "FSCONFIG_SET_STRING"),
		plan.Str(o.Key), plan.Str(o.Value), plan.Int(0))
}

// CloneAt makes a detached copy of what is at name in the directory behind dir, with flags of AT_RECURSIVE and
// AT_SYMLINK_NOFOLLOW. An empty name is what is behind dir itself.
func CloneAt(dir plan.Arg, name string, flags uint64) plan.Op {
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	return call("open_tree", "5.2", unix.SYS_OPEN_TREE, dir, plan.Str(name),
		plan.Flags(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|flags, treeFlags)).
		Hint(syscall.EINVAL, "the path is not on a mount of this mount namespace")
}

// AttachAt puts a detached mount onto name in the directory behind dir, over no symbolic link in the last component. An
// empty name is what is behind dir itself.
func AttachAt(mount, dir plan.Arg, name string) plan.Op {
	flags := uint64(unix.MOVE_MOUNT_F_EMPTY_PATH)
	if name == "" {
		flags |= unix.MOVE_MOUNT_T_EMPTY_PATH
	}
	return attachAt(mount, dir, name, flags)
}

// OpenPath opens what is at name in the directory behind dir, as a place only (O_PATH, openat2(2)).
func OpenPath(dir plan.Arg, name string, flags, resolve uint64) plan.Op {
	return openat2(dir, name, flags, resolve).Hint(syscall.ENOSYS, "needs Linux 5.6, or an outer filter of system calls hides it")
}

func openat2(dir plan.Arg, name string, flags, resolve uint64) plan.Op {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC | flags, Resolve: resolve}
	size := int(unsafe.Sizeof(how))
	b := slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&how)), size))
	text := "{" + plan.FlagText(how.Flags, openFlags) + ", " + plan.FlagText(resolve, resolveFlags) + "}"
	return plan.Call("openat2", unix.SYS_OPENAT2, dir, plan.Str(name), plan.Struct(text, b), plan.Int(size))
}

var openFlags = []plan.Flag{{Bits: unix.O_PATH, Name: "O_PATH"}, {Bits: unix.O_DIRECTORY, Name: "O_DIRECTORY"},
	{Bits: unix.O_NOFOLLOW, Name: "O_NOFOLLOW"}, {Bits: unix.O_CLOEXEC, Name: "O_CLOEXEC"}}

var resolveFlags = []plan.Flag{{Bits: unix.RESOLVE_NO_MAGICLINKS, Name: "RESOLVE_NO_MAGICLINKS"},
	{Bits: unix.RESOLVE_NO_SYMLINKS, Name: "RESOLVE_NO_SYMLINKS"}, {Bits: unix.RESOLVE_NO_XDEV, Name: "RESOLVE_NO_XDEV"},
	{Bits: unix.RESOLVE_BENEATH, Name: "RESOLVE_BENEATH"}}

// Attach puts a detached mount onto the path. A symbolic link in the last component is not followed: /proc and /dev of a
// hostile root file system may be links.
func Attach(mount plan.Slot, path string) plan.Op {
	return AttachAt(plan.Saved(mount), CWD(), path)
}

func attachAt(mount, dir plan.Arg, name string, flags uint64) plan.Op {
	return moveMount(mount, dir, name, flags).
		Hint(syscall.EINVAL, "the mount point is a symbolic link, or one of source and mount point is a directory and the other is not").
		Hint(syscall.ENOTDIR, "the mount point is a symbolic link, or one of source and mount point is a directory and the other is not").
		Hint(syscall.ENOENT, "the mount point does not exist in the root")
}

func moveMount(mount, dir plan.Arg, name string, flags uint64) plan.Op {
	return call("move_mount", "5.2", unix.SYS_MOVE_MOUNT, mount, plan.Str(""), dir, plan.Str(name), plan.Flags(flags, moveFlags))
}

// Mkdir makes a directory in the directory behind the slot's descriptor.
func Mkdir(dir plan.Slot, name string, mode uint32) plan.Op {
	return plan.Call("mkdirat", unix.SYS_MKDIRAT, plan.Saved(dir), plan.Str(name), plan.Octal(mode))
}

// Symlink makes a symbolic link in the directory behind the slot's descriptor.
func Symlink(dir plan.Slot, target, name string) plan.Op {
	return plan.Call("symlinkat", unix.SYS_SYMLINKAT, plan.Str(target), plan.Saved(dir), plan.Str(name))
}
