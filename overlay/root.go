//go:build linux

package overlay

import (
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/plan"
)

// Root is a [Stack] that is the root of the sandbox (pivot_root(2)). What chroot.Pivot is for a directory, it is for layers: the other parts of package
// chroot are mounted in it, and mount points that are missing are made in its upper directory, never in a layer.
//
// The same Root may be the root of any number of sandboxes at once, as long as it has no Upper of its own: they share the layers and their
// pages in memory.
type Root Stack

// Apply implements plan.Primitive.
func (r Root) Apply(p *plan.Plan) error {
	s := Stack(r)
	if err := s.check(); err != nil {
		return err
	}
	if err := p.Claim(plan.RootDir); err != nil {
		return err
	}
	sealed := s.ReadOnly
	s.ReadOnly = false // it stays writable until the mount points have been made
	mnt.Begin(p)
	tree := s.record(p)
	mnt.ChangeRoot(p, func() { p.Child(plan.Root, mnt.Enter(tree)...) })
	if sealed {
		mnt.ViewOf(p).SealTop(p, tree)
	}
	return nil
}

// Mount is a [Stack] at a path of the sandbox's root. The path is made when it is missing.
type Mount struct {
	Path string // absolute, in the sandbox
	Stack
}

// Apply implements plan.Primitive.
func (m Mount) Apply(p *plan.Plan) error {
	if err := mnt.Target(m.Path); err != nil {
		return err
	}
	if err := m.check(); err != nil {
		return err
	}
	mnt.Begin(p)
	here := p.Slot() // where the child is, which matters to a chroot(2) to a relative path
	p.Child(plan.Sources, mnt.OpenPath(mnt.CWD(), ".", unix.O_DIRECTORY, 0).Save(here).Tolerate(syscall.EACCES))
	tree := m.record(p)
	p.Late(func() error {
		p.Child(plan.Root, enter(here).Tolerate(syscall.EBADF))
		return nil
	})
	v := mnt.ViewOf(p)
	at := v.Place(p, m.Path, true)
	v.Cover(m.Path)
	p.Child(plan.Mounts, at.Onto(p, tree)...)
	return nil
}

// record records all that makes the mount, which is left detached.
func (s Stack) record(p *plan.Plan) plan.Arg {
	top := rootOf(s.Lower[0])
	s.lock(p)
	s.recordKeep(p)
	if s.IDMap != nil { // the sandbox may not say who owns what on the host
		f := p.Open(s.name()+" as overlay", func(*plan.Run) (*os.File, error) { return s.mountDetached(top) })
		p.Spent(f)
		return plan.FD(f)
	}
	mount := p.Slot()
	p.Late(func() error { // a part that is applied later may ask for a user namespace
		b := build{p: p, s: s, top: top, mount: mount, userxattr: s.UserXattr || hasUser(p) || !inFirst()}
		if hasUser(p) { // what the owner is there cannot be said, but that root inside is to be it
			b.top.uid, b.top.gid = 0, 0
		}
		return b.record()
	})
	return plan.Saved(mount)
}

func (s Stack) name() string {
	text := "an overlay of " + strconv.Quote(s.Lower[0])
	if n := len(s.Lower) + len(s.Data); n > 1 {
		text += fmt.Sprintf(" and %d more", n-1)
	}
	return text
}

func hasUser(p *plan.Plan) bool { return (p.Cloned()|p.Joined())&unix.CLONE_NEWUSER != 0 }

// inFirst reports whether the caller is in the first user namespace, whose number is fixed (PROC_USER_INIT_INO).
func inFirst() bool {
	var st unix.Stat_t
	return unix.Stat("/proc/self/ns/user", &st) == nil && st.Ino == 0xEFFFFFFD
}

// root is what the root directory of the stack is to be like.
type root struct{ mode, uid, gid uint32 }

// rootOf looks at the topmost layer. If it is not there, to mount it will fail.
func rootOf(dir string) root {
	var st unix.Stat_t
	if unix.Lstat(dir, &st) != nil {
		return root{mode: 0o755}
	}
	return root{mode: st.Mode & 0o7777, uid: st.Uid, gid: st.Gid}
}

func id(n uint32) plan.Arg { return plan.Number(uint64(n), strconv.FormatUint(uint64(n), 10)) }
