//go:build linux

package cgroups

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/deep"
)

// Procs lists the processes in the group and below it, by their pids in the caller's pid namespace.
func (g *Group) Procs() ([]int, error) {
	d := &g.dirs[0]
	pids, more, err := d.kernel.procs(d.fd(), nil)
	if err != nil {
		return nil, d.failed("read", "cgroup.procs", "", err)
	}
	if more {
		t := d.tree()
		t.Before = func(dir int, _ deep.Path) (below bool, err error) {
			pids, below, err = d.kernel.procs(dir, pids)
			return below, inWalk("read", "cgroup.procs", ignoringGone(err))
		}
		if err := d.walk(t); err != nil {
			return nil, err
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// procs appends a directory's processes, and says whether there may be others below it. In a threaded group of version 2 they are listed at its
// head only. After an error pids are as they were.
func (k *kernel) procs(dir int, pids []int) (all []int, more bool, err error) {
	b, err := k.readFile(dir, "cgroup.procs", make([]byte, 1024))
	if err != nil {
		if errors.Is(err, syscall.EOPNOTSUPP) {
			err = nil
		}
		return pids, false, err
	}
	all = pids
	for line := range strings.Lines(string(b)) {
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			return pids, false, err
		}
		if pid > 0 { // 0 is a process of another pid namespace
			all = append(all, pid)
		}
	}
	return all, true, nil
}

// Subgroups lists the names of the groups below.
func (g *Group) Subgroups() ([]string, error) {
	var all []string
	for i := range g.dirs {
		names, err := g.dirs[i].names()
		if err != nil {
			return nil, err
		}
		all = append(all, names...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// Add moves a process into the group. It waits for all processors once, some 10 ms; a sandbox that is started with [Limits] does not. What
// the process has used so far stays with the group it comes from. In version 2 a group that gives controllers to others takes none (EBUSY).
func (g *Group) Add(pid int) error {
	if pid <= 0 {
		return g.dirs[0].failed("add a process", "", strconv.Itoa(pid), syscall.EINVAL)
	}
	for i := range g.dirs {
		if err := g.dirs[i].write("cgroup.procs", strconv.Itoa(pid)); err != nil {
			return err
		}
	}
	return nil
}

// Move moves all processes of the group itself to another one. Those that are made meanwhile are moved too.
func (g *Group) Move(to *Group) error {
	for i := range g.dirs {
		d := &g.dirs[i]
		target := to.at(d.mount)
		if target == nil {
			continue
		}
		if err := d.move(target); err != nil {
			return err
		}
	}
	return nil
}

// at finds the group's directory in the hierarchy that is mounted somewhere.
func (g *Group) at(mount string) *dir {
	for i := range g.dirs {
		if g.dirs[i].mount == mount {
			return &g.dirs[i]
		}
	}
	return nil
}

func (d *dir) move(to *dir) error {
	for {
		pids, _, err := d.kernel.procs(d.fd(), nil)
		if err != nil {
			return d.failed("read", "cgroup.procs", "", err)
		}
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			if err := to.write("cgroup.procs", strconv.Itoa(pid)); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
		}
	}
}

// Vacate moves all processes of the group itself into a group [Leaf] below it, so that the group may give its controllers to others: see
// [Own]. It concerns version 2 only, and does nothing without it.
func (g *Group) Vacate() error {
	d := g.v2()
	if d == nil {
		return nil
	}
	leaf, err := d.make(Leaf)
	if errors.Is(err, syscall.EEXIST) {
		leaf, err = d.child(Leaf)
	}
	if err != nil {
		return err
	}
	defer leaf.f.Close()
	return d.move(&leaf)
}

// Delegate gives the group to a user, who may then make groups below it and move processes between them, but not change the group's own limits
// (cgroups(7), Cgroups delegation). A user's own systemd gives such a group, too. How many groups he makes is only bounded by Descendants and Depth of
// the group's [Limits].
func (g *Group) Delegate(uid, gid int) error {
	if uid < 0 || gid < 0 {
		return g.dirs[0].failed("delegate", "", strconv.Itoa(min(uid, gid)), syscall.EINVAL)
	}
	if err := g.notTop("delegate"); err != nil {
		return err
	}
	for i := range g.dirs {
		if err := g.dirs[i].delegate(uid, gid); err != nil {
			return err
		}
	}
	return nil
}

func (d *dir) delegate(uid, gid int) error {
	files := []string{".", "cgroup.procs", "tasks"}
	if d.v2 {
		files = []string{".", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"}
	}
	for _, name := range files {
		fd, err := d.kernel.open(d.fd(), name, unix.O_RDONLY)
		if err == nil {
			err = unix.Fchown(fd, uid, gid)
			unix.Close(fd)
		}
		if err != nil {
			return d.failed("delegate", name, strconv.Itoa(uid), err)
		}
	}
	return nil
}
