//go:build linux

package chroot

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/plan"
)

// view is what the parts of one plan know of each other.
type view struct {
	*mnt.View
	masks, files *plan.Slot // file systems with the sources of masks and files
	masked       []string   // all paths of the masks
	mounted      []string   // where parts mount something
	procs        []string   // where the host has mounted procfs, when looked
	looked       bool
	seen         mnt.Seen // of the host's mounts, when looked
	shown        []shown
	pidOnly      bool // /proc shows processes only
}

type viewKey struct{}

func viewOf(p *plan.Plan) *view {
	v, ok := p.Value(viewKey{}).(*view)
	if !ok {
		v = &view{View: mnt.ViewOf(p)}
		p.Set(viewKey{}, v)
	}
	return v
}

// find gives the directory from which name is to be resolved, and the rest of the name.
func (v *view) find(name string) (dir plan.Arg, rest string, own bool) { return v.Find(name) }

// put remembers a mount of the sandbox's own.
func (v *view) put(name string, mount plan.Slot) {
	v.mounted = append(v.mounted, name)
	v.Put(name, mount)
}

// cover forgets the mounts that a new one at name hides.
func (v *view) cover(name string) {
	v.mounted = append(v.mounted, name)
	v.Cover(name)
}

// kind of mount point.
type pointKind bool

const (
	directory pointKind = true
	file      pointKind = false
)

// place finds target, and makes what is missing of it.
func (v *view) place(p *plan.Plan, target string, kind pointKind) mnt.Place {
	return v.Place(p, target, bool(kind))
}

const readOnlyHint = mnt.ReadOnlyHint

// store makes a file system for the sources of masks or files. It has to be attached to something, since the mounts that it is for are
// copies, and only what is attached can be copied (open_tree(2); until Linux 6.15): to /proc of the host's tree,
// which is unmounted with all that is attached to it when the root has changed.
func (v *view) store(p *plan.Plan, kept **plan.Slot, fill func(store plan.Slot)) (plan.Slot, error) {
	if v.Rooted {
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
