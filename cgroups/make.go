//go:build linux

package cgroups

import (
	"errors"
	"os"
	"slices"
	"syscall"
)

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
