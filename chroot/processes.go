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

// hideProcesses covers each procfs of the host's below a directory that is shown at target.
func hideProcesses(p *plan.Plan, tree plan.Arg, directory, target string) {
	v := viewOf(p)
	before := len(v.mounted)
	if target == "/" { // whatever the order of the parts
		before = 0
	}
	afterOthers(p, func() error {
		if hasUser(p) {
			return nil
		}
		names, err := v.procMounts(directory)
		for _, name := range names {
			if !covers(v.mounted[before:], filepath.Join(target, name)) {
				p.Child(plan.Seal, v.hide(p, tree, name, directory == "/")...)
			}
		}
		return err
	})
}

// hide puts an empty directory over what is at name in the tree. In a directory that others may write to, one that has gone may have been renamed.
func (v *view) hide(p *plan.Plan, tree plan.Arg, name string, mayGo bool) []plan.Op {
	m, t := p.Slot(), p.Slot()
	p.Child(plan.Sources, mnt.New(p, "tmpfs", m, noFiles|unix.MOUNT_ATTR_RDONLY, mnt.Option{Key: "mode", Value: "555"})...)
	find := mnt.Lookup{Dir: tree, Name: name, Resolve: unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS, Into: t, Hints: func(o plan.Op) plan.Op {
		return o.Hint(syscall.ENOENT, "the procfs that the host had mounted there when the plan was made has gone: make the plan anew")
	}}
	if mayGo {
		find.Absent = 1
	}
	return append(v.Open(p, find), mnt.AttachAt(plan.Saved(m), plan.Saved(t), ""))
}

// procMounts gives the places below a directory on which the host has mounted procfs; not the directory itself, which is shown on purpose, and nothing
// below another one.
func (v *view) procMounts(directory string) (names []string, err error) {
	if directory, err = filepath.EvalSymlinks(directory); err != nil {
		return nil, nil // it is not there: the start says so
	}
	if !v.looked {
		v.looked = true
		if v.procs, err = allProcMounts(); err != nil {
			return nil, err
		}
	}
	for _, at := range v.procs {
		name, below := strings.CutPrefix(at, strings.TrimSuffix(directory, "/")+"/")
		if below && !covers(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// allProcMounts gives those that are above others first.
func allProcMounts() (names []string, err error) {
	all, err := Mounts(os.Getpid())
	if err != nil {
		return nil, err
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
