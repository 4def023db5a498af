//go:build linux

package mnt

import (
	"fmt"
	"path"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// begun is what the first part that mounts claims: the mount namespace and the umask are set up once.
const begun = "mount namespace of its own"

// Begin records what must come before any mount: a mount namespace of the sandbox's own, which is cut off from the
// host's, and a umask that leaves modes as they are.
func Begin(p *plan.Plan) {
	if p.Has(begun) {
		return
	}
	p.Claim(begun)
	p.Clone(unix.CLONE_NEWNS)
	umask := p.Slot()
	p.Child(plan.Sources, Private().Early(), plan.Call("umask", unix.SYS_UMASK, plan.Octal(0)).Save(umask))
	p.Late(func() error {
		p.Child(plan.Seal, plan.Call("umask", unix.SYS_UMASK, plan.Saved(umask)))
		return needsRoot(p)
	})
}

// needsRoot: without a root of the sandbox's own, what is mounted would cover the host's tree in the sandbox only, but
// the rest of the host would stay writable. That is no sandbox, and most likely a mistake.
func needsRoot(p *plan.Plan) error {
	if !p.Has(plan.RootDir) {
		return fmt.Errorf("mounts need a root: add Host or Pivot: %w", syscall.EINVAL)
	}
	return nil
}

// ChangeRoot records the change of the root by f, after what others copy while the host's tree is still there: also those that do so
// in a late decision.
func ChangeRoot(p *plan.Plan, f func()) {
	p.Late(func() error {
		p.Late(func() error {
			v := ViewOf(p)
			v.Rooted = true
			v.restrict(p)
			f()
			return nil
		})
		return nil
	})
}

// Enter makes a detached tree the root. It is mounted over the old one and both are then exchanged:
// pivot_root(".", ".") needs no directory for the old root, and leaves it on top, where it is unmounted.
func Enter(tree plan.Arg) []plan.Op {
	return []plan.Op{
		AttachAt(tree, CWD(), "/"),
		plan.Call("fchdir", unix.SYS_FCHDIR, tree),
		plan.Call("pivot_root", unix.SYS_PIVOT_ROOT, plan.Str("."), plan.Str(".")).
			Hint(syscall.EINVAL, "the host's root is the initial ramfs, which cannot be left by pivot_root"),
		plan.Call("umount2", unix.SYS_UMOUNT2, plan.Str("."), plan.Number(unix.MNT_DETACH, "MNT_DETACH")),
		plan.Call("chdir", unix.SYS_CHDIR, plan.Str("/")),
	}
}

// Target checks a path inside the root.
func Target(name string) error {
	if !path.IsAbs(name) || path.Clean(name) != name || name == "/" {
		return fmt.Errorf("%q is not a clean absolute path below /: %w", name, syscall.EINVAL)
	}
	return nil
}
