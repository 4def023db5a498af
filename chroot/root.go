//go:build linux

package chroot

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/plan"
)

// Pivot makes a directory the root of the sandbox (pivot_root(2)), with the mounts below it. Mount points that the
// other parts need are made in it when they are missing, as docker run does. Without a user namespace a procfs that the host has mounted below Dir
// is covered by an empty directory, as for [Host].
//
// Dir belongs below a directory that only its owner may enter (mode 0700): set-user-ID programs of an image work on the host, too, and files that the
// sandbox makes writable for everybody are writable for everybody there.
type Pivot struct {
	Dir      string // of the host; must exist
	ReadOnly bool   // the directory and the mounts below it; what other parts mount is not concerned

	// Propagation of the root. Slave: what the host mounts below Dir later appears in the sandbox, too; it needs CAP_SYS_ADMIN on the
	// host, and a Dir on a shared mount. Shared: the root and all that is mounted in it is shared with the mount namespaces that
	// are made inside, never with the host.
	Propagation Propagation
}

// Apply implements plan.Primitive.
func (r Pivot) Apply(p *plan.Plan) error {
	if r.Dir == "" {
		return fmt.Errorf("Pivot needs a directory: %w", syscall.EINVAL)
	}
	if err := r.Propagation.later(r.ReadOnly && r.Propagation == Slave); err != nil {
		return err
	}
	p.Before(plan.Action{Name: fmt.Sprintf("stat %q", r.Dir), Do: func(*plan.Run) error { return isDirectory(r.Dir) }})
	if !r.ReadOnly {
		return pivot(p, r.Dir, r.Propagation, mnt.Tree{})
	}
	// The topmost mount stays writable until the mount points have been made.
	return pivot(p, r.Dir, r.Propagation, mnt.Tree{Set: unix.MOUNT_ATTR_RDONLY, KeepTop: !readOnly(r.Dir)})
}

// Chroot makes a directory the root of the sandbox by the historic call, chroot(2). It is not isolation: the call changes what "/" means to
// a process and nothing else. Root inside leaves it with three calls (it makes another chroot below and walks up from its working directory),
// and so does whoever gets hold of a descriptor from outside; all mounts of the host stay where they are. Take [Pivot], unless
// the historic behaviour is what you are after: an installer, a rescue system.
//
// Needs CAP_SYS_CHROOT, or a user namespace. It implies no mount namespace; mounts of other parts do.
type Chroot struct {
	Dir string // of the host; must exist
}

// Apply implements plan.Primitive.
func (c Chroot) Apply(p *plan.Plan) error {
	if c.Dir == "" {
		return fmt.Errorf("Chroot needs a directory: %w", syscall.EINVAL)
	}
	if err := p.Claim(plan.RootDir); err != nil {
		return err
	}
	mnt.ChangeRoot(p, func() {
		p.Child(plan.Root,
			plan.Call("chroot", unix.SYS_CHROOT, plan.Str(c.Dir)).
				Hint(syscall.EPERM, "needs CAP_SYS_CHROOT, or namespaces.User").
				Hint(syscall.ENOTDIR, "the root is not a directory"),
			plan.Call("chdir", unix.SYS_CHDIR, plan.Str("/")))
	})
	return nil
}

// readOnly reports whether a directory is on a read-only mount: that stays so.
func readOnly(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Flags&unix.ST_RDONLY != 0
}

func isDirectory(name string) error {
	st, err := os.Stat(name)
	if err == nil && !st.IsDir() {
		err = &os.PathError{Op: "stat", Path: name, Err: syscall.ENOTDIR}
	}
	return err
}

// pivot records the change of the root.
func pivot(p *plan.Plan, dir string, kind Propagation, attributes mnt.Tree) error {
	if err := p.Claim(plan.RootDir); err != nil {
		return err
	}
	if err := kind.check(); err != nil {
		return err
	}
	private(p)
	tree := clone(p, source{path: dir, recursive: true, slave: kind == Slave, early: dir == "/", isDir: true, target: "/"}, attributes)
	if attributes.Set == unix.MOUNT_ATTR_RDONLY {
		mnt.ViewOf(p).SealTop(p, tree)
	}
	hideProcesses(p, tree, func() string { return dir }, "/")
	mnt.ChangeRoot(p, func() {
		p.Child(plan.Root, mnt.Enter(tree)...)
		if kind == Shared {
			p.Child(plan.Seal, makeShared())
		}
	})
	return nil
}

// private records what must come before any mount.
func private(p *plan.Plan) { mnt.Begin(p) }

// target checks a path inside the root.
func target(name string) error { return mnt.Target(name) }

// makeDir makes a directory of the root.
func makeDir(name string) plan.Op { return mnt.MakePoint(mnt.CWD(), name, true) }
