//go:build linux

package cgroups

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// Apply asks for the group, its limits, and for the command to be started in it.
func (l Limits) Apply(p *plan.Plan) error { return l.apply(p, realHost()) }

func (l Limits) apply(p *plan.Plan, h *host) error {
	if err := p.Claim("control group"); err != nil {
		return err
	}
	if l.Parent != "" {
		if err := checkPath(l.Parent); err != nil {
			return err
		}
		if l.Below != nil {
			return &LimitError{"Parent", l.Parent, "Below says the same thing"}
		}
	}
	all, err := h.look(0)
	if err != nil {
		return err
	}
	writes, err := l.lower(all)
	if err != nil {
		return err
	}
	if l.Devices != nil && all.find("devices") != nil {
		if _, err := legacyDevices(l.Devices); err != nil {
			return err
		}
	}
	s := &starter{host: h, limits: l, needed: l.needs(writes, all)}
	p.Before(plan.Action{Name: "mkdir " + s.text(all), Do: s.make, Undo: s.remove})
	for _, w := range writes {
		p.Before(plan.Action{Name: w.String(), Do: func(r *plan.Run) error { return groupOf(r).write(w) }})
	}
	if l.Devices != nil {
		p.Before(plan.Action{Name: fmt.Sprintf("refuse devices but %v", l.Devices), Do: func(r *plan.Run) error { return groupOf(r).setDevices(l.Devices) }})
	}
	s.enter(p, all)
	p.Late(func() error { return renewNamespace(p) })
	p.Observe(observe)
	return nil
}

// renewNamespace gives a new cgroup namespace the right root. The clone makes it with the group of the one who clones as its root,
// also where the child begins in another group, so the child makes a further one in its own group (cgroup_namespaces(7)). Where the
// child is cloned twice, to enter other namespaces, the second clone does it.
func renewNamespace(p *plan.Plan) error {
	if p.Cloned()&unix.CLONE_NEWCGROUP != 0 && p.Joined() == 0 {
		p.Child(plan.Cgroup, plan.Call("unshare", unix.SYS_UNSHARE, plan.Namespaces(unix.CLONE_NEWCGROUP)).Once())
	}
	return nil
}

// starter makes a group for each start of a plan.
type starter struct {
	host   *host
	limits Limits
	needed []string

	mu    sync.Mutex
	above *Group // opened by the first start: its descriptors serve all
}

type groupKey struct{}

func groupOf(r *plan.Run) *Group {
	g, _ := r.Value(groupKey{}).(*Group)
	return g
}

// text names the directories that are made.
func (s *starter) text(all layout) string {
	name := s.limits.Name
	if name == "" {
		name = "caisson-*"
	}
	var dirs []string
	for _, h := range s.spans(all) {
		dirs = append(dirs, fmt.Sprintf("%q", path.Join(s.aboveIn(h), name)))
	}
	return strings.Join(dirs, ", ")
}

// spans gives the hierarchies that the group is made in: those that the limits need, and for the accounts those that the caller may use.
func (s *starter) spans(all layout) layout {
	return slices.DeleteFunc(slices.Clone(all), func(h *hierarchy) bool {
		d := dir{hierarchy: h}
		if slices.ContainsFunc(s.needed, d.has) {
			return false
		}
		return !d.wanted(all.v2() != nil) || unix.Faccessat(unix.AT_FDCWD, s.aboveIn(h), unix.W_OK, unix.AT_EACCESS) != nil
	})
}

// aboveIn is the directory of the group above.
func (s *starter) aboveIn(h *hierarchy) string {
	above := h.own
	switch {
	case s.limits.Parent != "":
		above = s.limits.Parent
	case s.limits.Below != nil:
		d := s.limits.Below.at(h.mount)
		if d == nil {
			return ""
		}
		above = d.path
	case path.Base(above) == Leaf:
		above = path.Dir(above)
	}
	return path.Join(h.mount, above)
}

// parent opens the group above, once.
func (s *starter) parent() (*Group, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.above != nil {
		return s.above, nil
	}
	above, err := s.open()
	if err == nil {
		s.above = above
	}
	return above, err
}

func (s *starter) open() (*Group, error) {
	switch {
	case s.limits.Parent != "":
		return s.host.openPath(s.limits.Parent)
	case s.limits.Below != nil:
		return s.limits.Below, nil
	}
	return s.host.openOwn()
}

// forget drops the group above: it may have been removed and made again. Others may still use it, so it is left to be collected.
func (s *starter) forget(above *Group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.above == above {
		s.above = nil
	}
}

func (s *starter) make(r *plan.Run) error {
	name := s.limits.Name
	if name == "" {
		var b [8]byte
		rand.Read(b[:]) // it never fails
		name = "caisson-" + hex.EncodeToString(b[:])
	}
	for again := false; ; again = true {
		above, err := s.parent()
		if err != nil {
			return err
		}
		g, err := above.make(name, s.needed)
		if err == nil {
			r.Set(groupKey{}, g)
			return nil
		}
		s.forget(above)
		if again || !gone(err) {
			return err
		}
	}
}

func (s *starter) remove(r *plan.Run) error {
	g := groupOf(r)
	if g == nil {
		return nil
	}
	return g.Delete()
}

// enter has the child begin its life in the group. The files are opened for further commands in the running sandbox too, from the group
// that the first start has left in its values.
func (s *starter) enter(p *plan.Plan, all layout) {
	for _, h := range s.spans(all) {
		name := path.Base(h.mount) + " group"
		if h.v2 {
			p.IntoCgroup(p.Open("the "+name+" as "+name, func(r *plan.Run) (*os.File, error) { return entrance(r, h, ".") }))
			continue
		}
		f := p.Open("tasks of the "+name+" as "+name, func(r *plan.Run) (*os.File, error) { return entrance(r, h, "tasks") })
		// Into tasks, not cgroup.procs: only one thread is moved, which the kernel does without waiting for all processors. The child has but one.
		p.Child(plan.Cgroup, plan.Call("write", unix.SYS_WRITE, plan.FD(f), plan.Str("0"), plan.Int(1)).
			Hint(syscall.ENODEV, "the group has been removed").
			Hint(syscall.ENOSPC, "the cpuset above has no processors or no memory").
			Hint(syscall.EACCES, "the group has not been delegated to the user"))
	}
}

// entrance opens what the child enters the group by.
func entrance(r *plan.Run, h *hierarchy, name string) (*os.File, error) {
	g := groupOf(r)
	if g == nil || len(g.dirs) == 0 || g.dirs[0].f.Fd() == ^uintptr(0) {
		return nil, os.ErrProcessDone
	}
	for i := range g.dirs {
		d := &g.dirs[i]
		if d.mount != h.mount {
			continue
		}
		flags := unix.O_WRONLY
		if name == "." {
			flags = unix.O_PATH | unix.O_DIRECTORY
		}
		fd, err := d.kernel.open(d.fd(), name, flags)
		if err != nil {
			return nil, d.failed("open", name, "", err)
		}
		return os.NewFile(uintptr(fd), name), nil
	}
	return nil, &Error{Op: "enter the group", Group: h.mount, Err: syscall.EACCES, Hint: "the caller could make groups there when the sandbox was described, and no more"}
}

// observe adds to the result what the group has counted.
func observe(r *plan.Run, result *plan.Result) {
	g := groupOf(r)
	if g == nil {
		return
	}
	s, err := g.total()
	if err != nil {
		result.Detail = strings.TrimPrefix(result.Detail+", "+err.Error(), ", ")
	}
	result.MemoryPeak, result.CPUTime, result.PIDsPeak = max(s.Memory.Peak, 0), s.CPU.Usage, max(s.PIDs.Peak, 0)
	for _, io := range s.IO {
		result.IORead += io.ReadBytes
		result.IOWritten += io.WrittenBytes
	}
	switch {
	case s.Memory.Kills <= 0:
	case result.Reason == plan.Signaled && result.Signal == syscall.SIGKILL:
		result.Reason = plan.OutOfMemory
	default:
		result.Detail = strings.TrimPrefix(fmt.Sprintf("%s, processes inside were killed for lack of memory: %d", result.Detail, s.Memory.Kills), ", ")
	}
}
