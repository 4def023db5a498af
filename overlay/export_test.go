package overlay

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/plan"
)

// MountOld mounts as on a kernel that takes layers in one text only. Parts that say what else the kernel lacks come first.
func MountOld(s Stack, first ...plan.Primitive) (*os.File, error) {
	p := plan.Build(append(first, plan.Func(func(p *plan.Plan) error {
		p.Child(plan.Sources, mnt.Private())
		b := build{p: p, s: s, top: rootOf(s.Lower[0]), mount: p.Slot()}
		p.Child(plan.Sources, b.open()...)
		p.Child(plan.Sources, mnt.OpenPath(mnt.CWD(), "/", 0, 0).Save(b.mount))
		if s.scratch() || b.padded() {
			p.Child(plan.Root, b.makeStore()...)
		}
		fs := p.Slot()
		p.Child(plan.Root, plan.Call("fsopen", unix.SYS_FSOPEN, plan.Str("overlay"), plan.Int(unix.FSOPEN_CLOEXEC)).Save(fs))
		p.Child(plan.Root, b.old(fs)...)
		p.Child(plan.Root, plan.Call("fcntl", unix.SYS_FCNTL, plan.Saved(b.mount), plan.Int(unix.F_DUPFD_CLOEXEC), plan.Int(3)))
		return nil
	}))...)
	if p.Err() != nil {
		return nil, p.Err()
	}
	return performOnThread(p, "old")
}

// OldText is the data of mount(2).
func OldText(s Stack) string {
	b := build{p: plan.Build(), s: s}
	b.open()
	return b.text()
}
