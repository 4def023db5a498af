//go:build linux

package chroot

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/plan"
)

// ReadOnly makes files and directories of the sandbox read-only, with all that is mounted below them. What does not exist is passed
// over. The paths are absolute, in the sandbox, and resolved as those of a [Mask].
type ReadOnly []string

// DockerReadOnly are the paths that Docker makes read-only by default.
func DockerReadOnly() ReadOnly {
	return ReadOnly{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// Apply implements plan.Primitive.
func (r ReadOnly) Apply(p *plan.Plan) error {
	if err := targets(r); err != nil {
		return err
	}
	private(p)
	v := viewOf(p)
	p.Late(func() error {
		old := sealer{p: p, v: v}
		for _, name := range r {
			dir, rest, own := v.find(name)
			switch _, known := v.ownKind(name); {
			case v.NoSetAttr():
				old.seal(name, dir, rest, resolveFor(name, own))
			case known:
				p.Child(plan.Seal, sealKnown(p, dir, rest)...)
			default:
				p.Child(plan.Seal, v.sealUnknown(p, dir, rest, resolveFor(name, own))...)
			}
		}
		old.end()
		return nil
	})
	return nil
}

// sealKnown mounts what is there over itself, read-only.
func sealKnown(p *plan.Plan, dir plan.Arg, name string) []plan.Op {
	c := p.Slot()
	return []plan.Op{
		mnt.CloneAt(dir, name, unix.AT_RECURSIVE|unix.AT_SYMLINK_NOFOLLOW).Save(c).Tolerate(syscall.ENOENT).Skip(2),
		mnt.SetAttr(c, true, unix.MOUNT_ATTR_RDONLY, 0),
		mnt.AttachAt(plan.Saved(c), dir, name),
	}
}

func (v *view) sealUnknown(p *plan.Plan, dir plan.Arg, name string, resolve uint64) []plan.Op {
	t, c := p.Slot(), p.Slot()
	return append(v.Open(p, mnt.Lookup{Dir: dir, Name: name, Resolve: resolve, Into: t, Absent: 3, Hints: linkHints}),
		mnt.CloneAt(plan.Saved(t), "", unix.AT_RECURSIVE).Save(c),
		mnt.SetAttr(c, true, unix.MOUNT_ATTR_RDONLY, 0),
		mnt.AttachAt(plan.Saved(c), plan.Saved(t), ""))
}

// sealer does it without mount_setattr(2), by remounting: with all flags that the mount has, which nobody but the parent can tell, and where it is attached to a file system of
// the child's own, in which nobody else can replace names.
type sealer struct {
	p    *plan.Plan
	v    *view
	area *plan.Slot // that file system, with a directory "dir" and a file "file"
}

func (s *sealer) begin() {
	p, area := s.p, s.p.Slot()
	s.area = &area
	p.Child(plan.Sources, mnt.New(p, "tmpfs", area, noFiles, mnt.Option{Key: "mode", Value: "700"})...)
	p.Child(plan.Sources, mnt.MakePoint(plan.Saved(area), "dir", true), mnt.MakePoint(plan.Saved(area), "file", false))
	p.Child(plan.Seal, mnt.Attach(area, "/"))
}

func (s *sealer) end() {
	if s.area != nil {
		s.p.Child(plan.Seal, mnt.Chdir(plan.Saved(*s.area)))
		s.p.Child(plan.Seal, mnt.Detach(".")...)
		s.p.Child(plan.Seal, plan.Call("chdir", unix.SYS_CHDIR, plan.Str("/")))
	}
}

// seal mounts what is there over itself, read-only.
func (s *sealer) seal(shown string, dir plan.Arg, name string, resolve uint64) {
	if s.area == nil {
		s.begin()
	}
	p, t, c := s.p, s.p.Slot(), s.p.Slot()
	const staged = 7 // calls of stage
	p.Child(plan.Seal, s.v.Open(p, mnt.Lookup{Dir: dir, Name: name, Resolve: resolve, Into: t, Absent: 2*staged + 4, Hints: linkHints})...)
	p.Child(plan.Seal, mnt.CloneAt(plan.Saved(t), "", unix.AT_RECURSIVE).Save(c),
		s.v.IsDirectory(plan.Saved(t)).Tolerate(syscall.ENOTDIR).Skip(staged+1))
	s.stage(shown, c, "dir")
	p.Child(plan.Seal, plan.Call("close", unix.SYS_CLOSE, plan.Int(-1)).Tolerate(syscall.EBADF).Skip(staged)) // go on behind the file
	s.stage(shown, c, "file")
	p.Child(plan.Seal, mnt.AttachAt(plan.Saved(c), plan.Saved(t), ""))
}

// stage makes the copy read-only.
func (s *sealer) stage(shown string, c plan.Slot, at string) {
	p, area, flags := s.p, plan.Saved(*s.area), s.p.Slot()
	p.Child(plan.Seal, mnt.AttachAt(plan.Saved(c), area, at))
	p.AskAt(plan.Seal, mnt.Duplicate(plan.Saved(c)), flags, func(r *plan.Run, f *os.File) (uintptr, error) {
		defer f.Close()
		if err := onlyReadOnlyBelow(r.PID, f, shown); err != nil {
			return 0, err
		}
		return mnt.ReadOnlyFlags(f)
	})
	p.Child(plan.Seal, mnt.Chdir(area), mnt.Remount(at, plan.Saved(flags)),
		mnt.CloneAt(area, at, unix.AT_RECURSIVE|unix.AT_SYMLINK_NOFOLLOW).Save(c))
	p.Child(plan.Seal, mnt.Detach(at)...)
}

// onlyReadOnlyBelow refuses a mount below which something is mounted that can be written to.
func onlyReadOnlyBelow(pid int, f *os.File, shown string) error {
	all, err := mnt.Below(pid, f)
	for _, m := range all {
		if !strings.HasPrefix(m.Options+",", "ro,") {
			return &unsupported{fmt.Sprintf("what is mounted at %q cannot be made read-only without mount_setattr (Linux 5.12)", shown+m.Mountpoint), errors.ErrUnsupported}
		}
	}
	return err
}
