//go:build linux

package cgroups

import (
	"cmp"
	"errors"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

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
		if alt := d.write(w.alt, cmp.Or(w.altValue, w.value)); !errors.Is(alt, syscall.ENOENT) {
			err = alt
		}
	}
	var e *Error
	if errors.As(err, &e) && gone(e.Err) {
		d.explain(e, w)
	}
	if err == nil && d.v2 && w.controller == "cpuset" {
		return d.verifySet(w)
	}
	return err
}

// verifySet looks at what has become of the value: version 2 takes processors that the group above does not have, and gives those of the group above instead; and
// a partition that cannot be one, and calls it invalid.
func (d *dir) verifySet(w setting) error {
	file := w.file + ".effective"
	if w.file == "cpuset.cpus.partition" {
		file = w.file
	}
	if file != w.file && w.file != "cpuset.cpus" && w.file != "cpuset.mems" {
		return nil
	}
	b, err := d.read(file, make([]byte, 256))
	if err != nil {
		return err
	}
	got := strings.TrimSpace(string(b))
	switch {
	case file == w.file && got != w.value:
		return d.failed("write", w.file, w.value, &reason{"the kernel takes it as " + strconv.Quote(got), syscall.EINVAL})
	case file != w.file && isList(got) && !within(bitmap(got), bitmap(w.value)):
		return d.failed("write", w.file, w.value, &reason{"the group above has none of them, and so this one would have " + got, syscall.EINVAL})
	}
	return nil
}

// within reports whether all bits of a are bits of b.
func within(a, b []byte) bool {
	for i := range a {
		if i >= len(b) && a[i] != 0 || i < len(b) && a[i]&^b[i] != 0 {
			return false
		}
	}
	return true
}

// explain tells a file that this kernel lacks from a group that is gone.
func (d *dir) explain(e *Error, w setting) {
	if _, err := d.read("cgroup.procs", make([]byte, 16)); gone(err) {
		e.Hint = "the group has been removed"
	} else if e.Err == syscall.ENOENT {
		e.Err = &reason{"this kernel has no such file", errors.Join(e.Err, errors.ErrUnsupported)}
	}
}
