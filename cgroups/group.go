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

// accounts are the controllers that a group has even if no limit needs them, for its statistics and later limits.
var accounts = []string{"memory", "pids", "cpu", "cpuacct", "io"}

// needs lists the controllers without which the limits cannot be set.
func needs(writes []setting, l *Limits) (all []string) {
	for _, w := range writes {
		if w.controller != "cgroup" && !slices.Contains(all, w.controller) {
			all = append(all, w.controller)
		}
	}
	if l.Devices != nil {
		all = append(all, "devices")
	}
	return all
}

// needs is what the limits need on a host with these hierarchies. An empty list of IO asks for the accounts alone.
func (l *Limits) needs(writes []setting, at layout) []string {
	all := needs(writes, l)
	if l.IO != nil && !slices.Contains(all, "io") && !slices.Contains(all, "blkio") {
		all = append(all, either(at.isV2("io"), "io", "blkio"))
	}
	return all
}

// make makes the directories of a group below g, all or none.
func (g *Group) make(name string, needed []string) (*Group, error) {
	made := &Group{host: g.host, all: g.all}
	if err := g.checkNeeds(needed); err != nil {
		return nil, err
	}
	var refused error
	for i := range g.dirs {
		d := &g.dirs[i]
		must := slices.ContainsFunc(needed, d.has)
		if !must && !d.wanted(g.v2() != nil) {
			continue
		}
		sub, err := d.makeFor(name, needed)
		switch {
		case err == nil:
			sub.up = d
			made.dirs = append(made.dirs, sub)
		case !must && forbidden(err):
			refused = err
		default:
			made.unmake()
			return nil, err
		}
	}
	if len(made.dirs) == 0 {
		if refused == nil {
			refused = errNone
		}
		return nil, refused
	}
	return made, nil
}

func (g *Group) unmake() {
	for i := range g.dirs {
		g.dirs[i].remove()
	}
	g.Close()
}

func (g *Group) checkNeeds(needed []string) error {
	for _, c := range needed {
		_, ok := g.dir(c)
		if c == "devices" && g.v2() != nil { // a program does it
			ok = true
		}
		if !ok {
			return missing("create a group", "", c, g.String(), "the kernel does not have the controller, it is not mounted, or the group above has no directory there")
		}
	}
	return nil
}

// forbidden: what is only for the accounts is left out where the caller may not have it.
func forbidden(err error) bool {
	return errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EROFS)
}

func (d *dir) has(controller string) bool {
	return slices.Contains(d.controllers, controller) || controller == "devices" && d.v2
}

// wanted reports whether the directory is part of each group. That of version 2 is, even without controllers: it can kill and
// freeze, and counts CPU time.
func (d *dir) wanted(haveV2 bool) bool {
	return d.v2 || slices.ContainsFunc(accounts, func(c string) bool { return d.has(c) && (c != "cpuacct" || !haveV2) }) ||
		!haveV2 && d.has("freezer")
}

// makeFor makes the directory, and has the controllers of version 2 act in it.
func (d *dir) makeFor(name string, needed []string) (dir, error) {
	if d.v2 {
		var must, may []string
		for _, c := range d.controllers {
			switch {
			case slices.Contains(needed, c):
				must = append(must, c)
			case slices.Contains(accounts, c):
				may = append(may, c)
			}
		}
		err := d.enable(append(slices.Clone(must), may...))
		// Of a group with processes the kernel would take pids and cpu yet, and make all groups below it unfit for processes.
		if err != nil && (len(must) == 0 || !errors.Is(err, syscall.EBUSY)) {
			err = d.enable(must)
		}
		if err != nil {
			return dir{}, err
		}
	}
	return d.make(name)
}

// Set changes limits of the group, also while processes run in it. It stops at the first file that refuses its value; what has been
// written before stays. Memory below what is in use makes the kernel reclaim, and then kill.
func (g *Group) Set(l Limits) error {
	writes, err := l.lower(g.all)
	if err != nil {
		return err
	}
	needed := needs(writes, &l)
	if err := g.checkNeeds(needed); err != nil {
		return err
	}
	if d := g.v2(); d != nil {
		if err := d.enableAbove(slices.DeleteFunc(needed, func(c string) bool { return !slices.Contains(d.controllers, c) })); err != nil {
			return err
		}
	}
	return g.apply(writes, &l)
}

// enableAbove has the group above give controllers to this one.
func (d *dir) enableAbove(controllers []string) error {
	if len(controllers) == 0 || d.path == "/" {
		return nil
	}
	lack, err := d.lacking("cgroup.controllers", controllers)
	if err != nil || len(lack) == 0 {
		return err
	}
	parent, err := d.openDir(path.Dir(d.path))
	if err != nil {
		return err
	}
	defer parent.f.Close()
	return parent.enable(lack)
}

// apply writes the settings.
func (g *Group) apply(writes []setting, l *Limits) error {
	for i, w := range writes {
		err := g.write(w)
		// Version 1 keeps the limit of memory below that of memory and swap, so the two are raised in one order and lowered in the other.
		if i+1 < len(writes) && w.file == "memory.limit_in_bytes" && errors.Is(err, syscall.EINVAL) && writes[i+1].field == "Swap" {
			if g.write(writes[i+1]) == nil {
				err = g.write(w)
			}
		}
		if err != nil {
			return err
		}
	}
	return g.setDevices(l.Devices)
}

func (g *Group) write(w setting) error {
	d, ok := g.dir(w.controller)
	if !ok {
		return missing("set", w.field, w.controller, g.String(), "the group has no directory in the controller's hierarchy")
	}
	err := d.write(w.file, w.value)
	if w.alt != "" && errors.Is(err, syscall.ENOENT) {
		if alt := d.write(w.alt, strings.TrimPrefix(w.value, "default ")); !errors.Is(alt, syscall.ENOENT) {
			err = alt
		}
	}
	var e *Error
	if errors.As(err, &e) && gone(e.Err) {
		d.explain(e, w)
	}
	return err
}

// explain tells a file that this kernel lacks from a group that is gone.
func (d *dir) explain(e *Error, w setting) {
	if _, err := d.read("cgroup.procs", make([]byte, 16)); gone(err) {
		e.Hint = "the group has been removed"
	} else if e.Err == syscall.ENOENT {
		e.Err = &reason{"this kernel has no such file", errors.Join(e.Err, errors.ErrUnsupported)}
	}
}
