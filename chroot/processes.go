//go:build linux

package chroot

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/plan"
)

// A procfs that shows processes outside is a way out of any root: /proc/PID/root and /proc/PID/cwd are their directories. The kernel asks who follows
// them for the right to trace the process (ptrace(2), PTRACE_MODE_READ), which has who is the same user and has all of its capabilities; but in a
// user namespace of its own nobody has it over those outside.

// afterOthers decides when the other parts have taken their late decisions: one of them may have asked for the namespace.
func afterOthers(p *plan.Plan, f func() error) {
	p.Late(func() error {
		p.Late(f)
		return nil
	})
}

// needsPIDs refuses a fresh procfs that would show the processes of the host.
func needsPIDs(p *plan.Plan) error {
	if (p.Cloned()|p.Joined())&(unix.CLONE_NEWPID|unix.CLONE_NEWUSER) == 0 {
		return fmt.Errorf("Proc needs namespaces.PID, or namespaces.User: through /proc/PID/root of a process outside the root would be left: %w", syscall.EINVAL)
	}
	return nil
}

// shown is a tree of the host's that is shown at target, with what the host has mounted in it.
type shown struct {
	tree      plan.Arg
	directory func() string // where it is now
	target    string
	before    int // how many of the view's mounts have come before
}

// hideProcesses covers each procfs of the host's in a tree.
func hideProcesses(p *plan.Plan, tree plan.Arg, directory func() string, target string) {
	v := viewOf(p)
	s := shown{tree, directory, target, len(v.mounted)}
	if target == "/" { // whatever the order of the parts
		s.before = 0
	}
	afterOthers(p, func() error {
		if hasUser(p) {
			return nil
		}
		if err := v.look(); err != nil {
			return err
		}
		known := v.procsIn(s, v.procs)
		for _, name := range known {
			v.hide(p, s, name)
		}
		if v.shown = append(v.shown, s); len(v.shown) == 1 {
			p.Late(func() error {
				v.hideLater(p)
				return nil
			})
		}
		return nil
	})
}

// hide puts an empty directory over what is at name in the tree, where it still is when the sandbox begins.
func (v *view) hide(p *plan.Plan, s shown, name string) {
	m, t := p.Slot(), p.Slot()
	p.Child(plan.Sources, mnt.New(p, "tmpfs", m, noFiles|unix.MOUNT_ATTR_RDONLY, emptyDir)...)
	ops := append(v.findProc(p, s, name, t), mnt.AttachAt(plan.Saved(m), plan.Saved(t), ""))
	text := ops[len(ops)-2].String() + ", " + ops[len(ops)-1].String()
	p.Child(plan.Seal, plan.Calls(text, func(r *plan.Run) ([]plan.Op, error) {
		now, err := v.current(r)
		if err != nil || !slices.Contains(v.procsIn(s, now), name) {
			return nil, err
		}
		return ops, nil
	}).Hint(syscall.ENOENT, goneHint))
}

var emptyDir = mnt.Option{Key: "mode", Value: "555"}

const goneHint = "a procfs of the host's has gone from its place in this moment: start again"

// findProc goes over no link. In a directory that others may write to, what has gone may have been renamed: so that is an error.
func (v *view) findProc(p *plan.Plan, s shown, name string, t plan.Slot) []plan.Op {
	return v.Open(p, mnt.Lookup{Dir: s.tree, Name: name, Resolve: unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS, Into: t})
}

// hideLater covers what the host has mounted, or moved, between plan and start.
func (v *view) hideLater(p *plan.Plan) {
	fs, m, t, other := p.Slot(), p.Slot(), p.Slot(), p.Slot()
	known := make([][]string, len(v.shown))
	for i, s := range v.shown {
		known[i] = v.procsIn(s, v.procs)
	}
	p.Child(plan.Seal, plan.Calls("cover each procfs that the host has mounted since", func(r *plan.Run) (ops []plan.Op, err error) {
		now, err := v.current(r)
		for i, s := range v.shown {
			for _, name := range v.procsIn(s, now) {
				if !slices.Contains(known[i], name) {
					ops = append(ops, mnt.NewBy(fs, "tmpfs", m, noFiles|unix.MOUNT_ATTR_RDONLY, emptyDir)...)
					ops = append(ops, v.OpenBy(other, mnt.Lookup{Dir: s.tree, Name: name, Resolve: unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS, Into: t})...)
					ops = append(ops, mnt.AttachAt(plan.Saved(m), plan.Saved(t), ""))
				}
			}
		}
		return ops, err
	}).Hint(syscall.ENOENT, goneHint))
}

// look finds where the host has mounted procfs, once for a plan.
func (v *view) look() (err error) {
	if v.looked {
		return nil
	}
	v.looked, v.seen = true, mnt.See()
	if v.procs, err = allProcMounts(); err != nil {
		return err
	}
	for _, at := range v.procs {
		v.seen.Watch(at)
	}
	return nil
}

// current are those that the host has when a start begins.
func (v *view) current(r *plan.Run) ([]string, error) {
	if list, ok := r.Value(currentKey{v}).([]string); ok {
		return list, nil
	}
	list := v.procs
	if !v.seen.Unchanged() {
		var err error
		if list, err = allProcMounts(); err != nil {
			return nil, err
		}
	}
	r.Set(currentKey{v}, list)
	return list, nil
}

type currentKey struct{ v *view }

// procsIn gives those below the tree's directory, by their names in it; not the directory itself, which is shown on purpose, nothing below another one, and nothing that a part covers.
func (v *view) procsIn(s shown, all []string) (names []string) {
	directory, err := filepath.EvalSymlinks(s.directory())
	if err != nil {
		return nil // it is not there: the start says so
	}
	for _, at := range all {
		name, below := strings.CutPrefix(at, strings.TrimSuffix(directory, "/")+"/")
		if below && !covers(names, name) {
			names = append(names, name)
		}
	}
	return slices.DeleteFunc(names, func(name string) bool { return covers(v.mounted[s.before:], filepath.Join(s.target, name)) })
}

// allProcMounts gives those that are above others first.
func allProcMounts() (names []string, err error) {
	all, err := mnt.OwnTable()
	if err != nil {
		return nil, &Error{Op: "read the mount table", Err: err}
	}
	for _, m := range all {
		if m.FSType != "proc" {
			continue
		}
		if st, err := os.Stat(m.Mountpoint); err == nil && st.IsDir() {
			names = append(names, m.Mountpoint)
		}
	}
	slices.Sort(names)
	return names, nil
}

// covers reports whether one of the mounts is at name or above it.
func covers(mounts []string, name string) bool {
	return slices.ContainsFunc(mounts, func(at string) bool { return name == at || strings.HasPrefix(name, at+"/") })
}
