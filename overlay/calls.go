//go:build linux

package overlay

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/plan"
)

// set gives a parameter to the file system that is being made.
func set(fs plan.Slot, key, value string) plan.Op {
	return plan.Call("fsconfig", unix.SYS_FSCONFIG, plan.Saved(fs), plan.Number(unix.FSCONFIG_SET_STRING, "FSCONFIG_SET_STRING"),
		plan.Str(key), plan.Str(value), plan.Int(0))
}

func setFlag(fs plan.Slot, key string) plan.Op {
	return plan.Call("fsconfig", unix.SYS_FSCONFIG, plan.Saved(fs), plan.Number(unix.FSCONFIG_SET_FLAG, "FSCONFIG_SET_FLAG"),
		plan.Str(key), plan.Null(), plan.Int(0))
}

func enter(dir plan.Slot) plan.Op { return plan.Call("fchdir", unix.SYS_FCHDIR, plan.Saved(dir)) }

// jump passes over the n following calls: there is no descriptor -1.
func jump(n int) plan.Op {
	return plan.Call("close", unix.SYS_CLOSE, plan.Int(-1)).Tolerate(syscall.EBADF).Skip(n)
}

// unsupported fails with EOPNOTSUPP, which is errors.ErrUnsupported. The child has nothing but an errno to say what is
// wrong, and the kernel says EINVAL of an option that it does not know. No file knows mode 0x40000000; the arguments are right with 32 bits,
// too.
func unsupported(fs plan.Slot, what string) plan.Op {
	return plan.Call("fallocate", unix.SYS_FALLOCATE, plan.Saved(fs), plan.Number(0x40000000, "0x40000000"), plan.Int(0), plan.Int(1), plan.Int(1), plan.Int(0)).
		Hint(syscall.EOPNOTSUPP, "overlayfs of this kernel has no "+what)
}

// require makes the EINVAL of a call an EOPNOTSUPP.
func require(fs plan.Slot, op plan.Op, what string) []plan.Op {
	return []plan.Op{op.Tolerate(syscall.EINVAL).Skip(1), jump(1), unsupported(fs, what)}
}

// openDir opens a layer as a place. Where it has been replaced by a symbolic link, it is not followed.
func openDir(name string, at plan.Slot) plan.Op {
	return mnt.OpenPath(mnt.CWD(), name, unix.O_DIRECTORY|unix.O_NOFOLLOW, unix.RESOLVE_NO_MAGICLINKS).Save(at).
		Hint(syscall.ENOENT, "there is no such layer").
		Hint(syscall.ENOTDIR, "a layer is a directory, and not a symbolic link to one").
		Hint(syscall.ELOOP, "the way to the layer is a loop of symbolic links, or leads through /proc/PID/fd or the like")
}

// bind copies the mount of the directory behind at, and attaches the copy at name in the store.
func (b *build) bind(at plan.Slot, name, shown string) (copied plan.Slot, ops []plan.Op) {
	copied = b.p.Slot()
	return copied, []plan.Op{
		mnt.Mkdir(*b.store, name, 0o700),
		mnt.CloneAt(plan.Saved(at), "", 0).Save(copied).
			Hint(syscall.EINVAL, fmt.Sprintf("%q is in another mount namespace, or something is mounted in it that may not be taken away", shown)),
		mnt.AttachAt(plan.Saved(copied), plan.Saved(*b.store), name),
	}
}

// mapIDs makes a mount show other owners (mount_setattr(2), MOUNT_ATTR_IDMAP).
func (b *build) mapIDs(mount plan.Slot, shown string) plan.Op {
	const size, userns = 32, 24
	attr := binary.NativeEndian.AppendUint64(nil, unix.MOUNT_ATTR_IDMAP)
	attr = append(attr, make([]byte, size-len(attr))...)
	return plan.Call("mount_setattr", unix.SYS_MOUNT_SETATTR, plan.Saved(mount), plan.Str(""), plan.Number(unix.AT_EMPTY_PATH, "AT_EMPTY_PATH"),
		plan.Struct("{set=MOUNT_ATTR_IDMAP, "+plan.FD(*b.idmap).String()+"}", attr, plan.Field{Offset: userns, Size: 8, Arg: plan.FD(*b.idmap)}), plan.Int(size)).
		Hint(syscall.EINVAL, fmt.Sprintf("the file system of %q cannot be mounted with other ids", shown)).
		Hint(syscall.EPERM, "needs CAP_SYS_ADMIN on the host, and the namespace must not be the host's own user namespace")
}
