//go:build linux

package overlay

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// Where the kernel cannot do what was asked for, it often mounts something less, and writes a line into its log. So it is tried before, or
// looked at afterwards.

// tryXattr: without extended attributes the kernel would mount all the same, and directories that have been removed and made anew would fail.
func (b *build) tryXattr(dir plan.Slot, hint string) []plan.Op {
	name := "trusted.overlay.caisson"
	if b.userxattr {
		name = "user.overlay.caisson"
	}
	return []plan.Op{
		enter(dir),
		plan.Call("lsetxattr", unix.SYS_LSETXATTR, plan.Str("."), plan.Str(name), plan.Str("y"), plan.Int(1), plan.Int(0)).
			Hint(syscall.EOPNOTSUPP, hint).Hint(syscall.EACCES, b.notOurs()).Hint(syscall.EPERM, b.notOurs()),
		plan.Call("lremovexattr", unix.SYS_LREMOVEXATTR, plan.Str("."), plan.Str(name)),
	}
}

// tryHandles: where one file system has no file handles (name_to_handle_at(2)), the kernel would leave out the index and write a line into its log.
func (b *build) tryHandles() (ops []plan.Op) {
	for _, l := range append(b.layers[:len(b.layers):len(b.layers)], layer{name: b.s.Upper, at: b.upper}) {
		ops = append(ops, plan.Call("name_to_handle_at", unix.SYS_NAME_TO_HANDLE_AT, plan.Saved(l.at), plan.Str(""), plan.Buffer(8), plan.Buffer(8),
			plan.Number(unix.AT_EMPTY_PATH, "AT_EMPTY_PATH")).Tolerate(syscall.EOVERFLOW). // there is one, larger than no bytes
			Hint(syscall.EOPNOTSUPP, fmt.Sprintf("the file system of %q has no file handles, which index and nfs_export need", l.name)))
	}
	return ops
}

func (b *build) notOurs() string {
	return fmt.Sprintf("Work %q must belong to who mounts, in the user namespace of the sandbox", b.s.Work)
}

// tryWrite: where the kernel cannot use the work directory, it mounts read-only and writes a line into its log.
func (b *build) tryWrite() plan.Op {
	return plan.Call("faccessat", unix.SYS_FACCESSAT, plan.Saved(b.mount), plan.Str("."), plan.Number(unix.W_OK, "W_OK")).Tolerate(syscall.EACCES).
		Hint(syscall.EROFS, fmt.Sprintf("the kernel could not make anything in Work %q, and made the stack read-only: it must belong to who mounts", b.s.Work))
}
