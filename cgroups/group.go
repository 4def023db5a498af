//go:build linux

package cgroups

import (
	"errors"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"

	"os"
)

// Leaf is the name of the group into which [Group.Vacate] moves processes.
const Leaf = "caisson-leaf"

// Group is a control group: one directory of version 2, or those of the same name in several hierarchies of version 1, or
// both. It holds their descriptors, so it must be closed. Its methods may be called concurrently, but for Close.
//
// A group that has been removed meanwhile is an [*Error] with ENOENT or ENODEV.
type Group struct {
	host *host
	all  layout // all hierarchies of the host
	dirs []dir  // that of version 2 first

	mu   sync.Mutex
	peak *os.File // memory.peak as reset by ResetPeak
}

// Own opens the group below which the caller may make its groups: its own, or the one above if its own is called [Leaf].
//
// In version 2 a group that is not the topmost has either processes or controllers for the groups below it, not both ("no internal
// processes", cgroups(7)). A caller in such a group, for example a service that systemd has given Delegate=yes, calls
// [Group.Vacate] on it once.
func Own() (*Group, error) { return realHost().openOwn() }

func (h *host) openOwn() (*Group, error) {
	all, err := h.look(0)
	if err != nil {
		return nil, err
	}
	g := &Group{host: h, all: all}
	for _, y := range all {
		own := y.own
		if path.Base(own) == Leaf {
			own = path.Dir(own)
		}
		if err := g.open(y, own); err != nil {
			g.Close()
			return nil, err
		}
	}
	return g, nil
}

// Of opens the group of a process, which must be the caller's child or otherwise known to be alive: this is how the group of a
// started sandbox is found. Only those hierarchies count in which the process has a group of the same name; in the others it is in
// a group of somebody else's, which a limit must not reach.
func Of(pid int) (*Group, error) { return realHost().openOf(pid) }

func (h *host) openOf(pid int) (*Group, error) {
	if pid < 0 {
		return nil, &Error{Op: "look for the group of a process", Err: syscall.EINVAL}
	}
	all, err := h.look(pid)
	if err != nil {
		return nil, err
	}
	name := all.name()
	g := &Group{host: h, all: all}
	for _, y := range all {
		if path.Base(y.own) != name {
			continue
		}
		if err := g.open(y, y.own); err != nil {
			g.Close()
			return nil, err
		}
	}
	return g, nil
}

// name is the name of the process's own group: that of version 2, or the deepest one.
func (l layout) name() string {
	best := ""
	for _, h := range l {
		if h.v2 && h.own != "/" {
			return path.Base(h.own)
		}
		if strings.Count(h.own, "/") > strings.Count(best, "/") || len(best) <= 1 {
			best = h.own
		}
	}
	return path.Base(best)
}

// Open opens an existing group by its path from the mount points of the hierarchies: "/batch/jobs". Those hierarchies
// count that have it.
func Open(p string) (*Group, error) { return realHost().openPath(p) }

func (h *host) openPath(p string) (*Group, error) {
	if err := checkPath(p); err != nil {
		return nil, err
	}
	all, err := h.look(0)
	if err != nil {
		return nil, err
	}
	g := &Group{host: h, all: all}
	var absent error
	for _, y := range all {
		switch err := g.open(y, p); {
		case errors.Is(err, syscall.ENOENT):
			absent = err
		case err != nil:
			g.Close()
			return nil, err
		}
	}
	if len(g.dirs) == 0 {
		return nil, absent
	}
	return g, nil
}

func (g *Group) open(h *hierarchy, p string) error {
	d, err := h.openDir(p)
	if err == nil {
		g.dirs = append(g.dirs, d)
	}
	return err
}

// Create makes a group with limits at a path from the mount points of the hierarchies; the groups above must exist. The limits' Parent and Name are
// not used. A group that cannot be given its limits is removed again. On version 1 it spans the hierarchies of memory, pids, cpu, and, where there is no
// version 2, cpuacct and freezer, as far as they are mounted and may be used, and those that the limits need.
func Create(p string, l Limits) (*Group, error) {
	if err := checkPath(p); err != nil {
		return nil, err
	}
	above, err := Open(path.Dir(p))
	if err != nil {
		return nil, err
	}
	defer above.Close()
	return above.Create(path.Base(p), l)
}

// Create makes a group below g, as the function [Create] does.
func (g *Group) Create(name string, l Limits) (*Group, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	writes, err := l.lower(g.all)
	if err != nil {
		return nil, err
	}
	made, err := g.make(name, l.needs(writes, g.all))
	if err != nil {
		return nil, err
	}
	if err := made.apply(writes, &l); err != nil {
		return nil, errors.Join(err, made.Delete())
	}
	return made, nil
}

// Open opens a group below g.
func (g *Group) Open(name string) (*Group, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	sub := &Group{host: g.host, all: g.all}
	var absent error
	for i := range g.dirs {
		d, err := g.dirs[i].child(name)
		switch {
		case err == nil:
			d.up = &g.dirs[i]
			sub.dirs = append(sub.dirs, d)
		case errors.Is(err, syscall.ENOENT):
			absent = err
		default:
			sub.Close()
			return nil, err
		}
	}
	if len(sub.dirs) == 0 {
		return nil, absent
	}
	return sub, nil
}

// Close closes the descriptors; the group stays.
func (g *Group) Close() error {
	for i := range g.dirs {
		g.dirs[i].f.Close()
	}
	if g.peak != nil {
		g.peak.Close()
	}
	return nil
}

// Path gives the group's path from the mount point, that of version 2 where there is one.
func (g *Group) Path() string { return g.dirs[0].path }

// Directories gives the group's directories on this machine, that of version 2 first.
func (g *Group) Directories() []string {
	var all []string
	for i := range g.dirs {
		all = append(all, g.dirs[i].String())
	}
	return all
}

// String gives the first directory.
func (g *Group) String() string { return g.dirs[0].String() }

// dir finds the group's directory for a controller.
func (g *Group) dir(controller string) (*dir, bool) {
	for i := range g.dirs {
		if controller == "cgroup" || slices.Contains(g.dirs[i].controllers, controller) {
			return &g.dirs[i], true
		}
	}
	return nil, false
}

// v2 gives the group's directory of version 2, or nil.
func (g *Group) v2() *dir {
	if len(g.dirs) > 0 && g.dirs[0].v2 {
		return &g.dirs[0]
	}
	return nil
}
