//go:build linux

package overlay

import (
	"fmt"
	"syscall"

	"github.com/caisson-dev/caisson/plan"
)

// hints says what the answers of the kernel to the whole stack mean; it has one EINVAL for many things.
func hints(s Stack, op plan.Op) plan.Op {
	what := "the layers"
	if s.Upper != "" {
		what = fmt.Sprintf("Upper %q and Work %q must be on one mount, of a file system that can be an upper one (not overlay, NFS, FAT), and not be left "+
			"from a volatile use that has not ended well; or the layers", s.Upper, s.Work)
	}
	return op.
		Hint(syscall.EINVAL, what+" are on file systems that overlayfs does not take, or options contradict each other; the kernel's log says more").
		Hint(syscall.ELOOP, "a layer lies in another one, or in Upper or Work, by way of a link or a mount").
		Hint(syscall.EBUSY, fmt.Sprintf("Upper %q or Work %q is in use by another mount", s.Upper, s.Work)).
		Hint(syscall.ESTALE, fmt.Sprintf("Upper %q has been used with other layers, and has an index of those", s.Upper)).
		Hint(syscall.EROFS, fmt.Sprintf("Upper %q is on a read-only mount", s.Upper)).
		Hint(syscall.EPERM, "needs CAP_SYS_ADMIN, or namespaces.User; and Upper and Work must belong to ids that the user namespace has")
}

// hintUpper adds the hints to the calls that name upper and work.
func hintUpper(s Stack, ops ...plan.Op) []plan.Op {
	if s.Upper == "" {
		return ops
	}
	for i := range ops {
		ops[i] = ops[i].Hint(syscall.EINVAL, fmt.Sprintf("Upper %q or Work %q is on a file system that cannot be an upper one (overlay, NFS, FAT)", s.Upper, s.Work)).
			Hint(syscall.EROFS, fmt.Sprintf("Upper %q or Work %q is on a read-only mount", s.Upper, s.Work))
	}
	return ops
}
