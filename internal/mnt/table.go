//go:build linux

package mnt

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/sys/mountinfo"

	"github.com/caisson-dev/caisson/internal/procfs"
)

// Table is the mount table of a process, in the order of mounting (proc_pid_mountinfo(5)).
type Table []mountinfo.Info

// TableOf reads the table of the process.
func TableOf(pid int) (Table, error) { return tableOf(strconv.Itoa(pid)) }

// OwnTable reads that of the calling thread, which may be in a mount namespace of its own.
func OwnTable() (Table, error) { return tableOf("thread-self") }

func tableOf(process string) (Table, error) {
	text, err := readProc(process + "/mountinfo")
	if err != nil {
		return nil, err
	}
	list, err := mountinfo.GetMountsFromReader(strings.NewReader(text), nil)
	if err != nil {
		return nil, err
	}
	all := make(Table, len(list))
	for i, m := range list {
		all[i] = *m
	}
	return all, nil
}

// readProc reads a file of the procfs at /proc, which is verified, and has to be that of our pid namespace. To make one of our own, as root can, takes five times as long, and is for where
// that does not do. Before Linux 5.8 nothing tells whether somebody has mounted something over a file; who may do that is root of the host.
func readProc(name string) (text string, err error) {
	for _, open := range []func() (*procfs.FS, error){ownProc, procfs.Open} {
		proc, err := open()
		if err != nil {
			continue
		}
		text, err = proc.Read(name)
		proc.Close()
		if !errors.Is(err, errors.ErrUnsupported) {
			return text, err
		}
	}
	b, err := os.ReadFile("/proc/" + name)
	return string(b), err
}

func ownProc() (*procfs.FS, error) {
	proc, err := procfs.OpenAt("/proc")
	if err != nil {
		return nil, err
	}
	if text, err := proc.Read("self/stat"); err != nil || !strings.HasPrefix(text, strconv.Itoa(os.Getpid())+" ") {
		proc.Close()
		return nil, errors.ErrUnsupported
	}
	return proc, nil
}

// Visible are the mounts to which a path leads, those above others first.
func (t Table) Visible() (all []mountinfo.Info) {
	there := map[int]bool{}
	for _, m := range t {
		there[m.ID] = true
	}
	tops := slices.DeleteFunc(slices.Clone(t), func(m mountinfo.Info) bool { return m.Parent != m.ID && there[m.Parent] })
	return t.among(tops)
}

// At are the visible ones at and below the mount.
func (t Table) At(top mountinfo.Info) []mountinfo.Info {
	children := slices.DeleteFunc(slices.Clone(t), func(m mountinfo.Info) bool { return m.Parent != top.ID || m.ID == top.ID })
	for _, c := range children {
		if c.Mountpoint == top.Mountpoint { // all of it is covered
			return t.At(c)
		}
	}
	return append([]mountinfo.Info{top}, t.among(children)...)
}

// among are the visible ones of the mounts: of those on one and the same mount one that is above another has come later, and covers it.
func (t Table) among(siblings []mountinfo.Info) (all []mountinfo.Info) {
	for _, m := range siblings {
		if !slices.ContainsFunc(siblings, func(other mountinfo.Info) bool {
			return other.Parent == m.Parent && below(m.Mountpoint, other.Mountpoint)
		}) {
			all = append(all, t.At(m)...)
		}
	}
	return all
}

// Under gives the mount on which the path is, and the visible ones below the path.
func (t Table) Under(path string) (on mountinfo.Info, rest []mountinfo.Info) {
	for _, m := range t.Visible() {
		switch {
		case below(m.Mountpoint, path):
			rest = append(rest, m)
		case (m.Mountpoint == path || below(path, m.Mountpoint)) && len(m.Mountpoint) >= len(on.Mountpoint):
			on = m
		}
	}
	return on, rest
}

// below reports whether name is strictly below dir.
func below(name, dir string) bool {
	rest, ok := strings.CutPrefix(name, strings.TrimSuffix(dir, "/"))
	return ok && strings.HasPrefix(rest, "/") && rest != "/"
}

// Below are the visible mounts of a process below the mount behind a descriptor, with mount points that begin there.
func Below(pid int, f *os.File) ([]mountinfo.Info, error) {
	id, err := mountID(f)
	if err != nil {
		return nil, err
	}
	table, err := TableOf(pid)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(table, func(m mountinfo.Info) bool { return m.ID == id })
	if i < 0 {
		return nil, fmt.Errorf("the mount is not to be seen in the table of mounts: %w", syscall.ENOENT)
	}
	all := table.At(table[i])[1:]
	for k := range all {
		all[k].Mountpoint = strings.TrimPrefix(all[k].Mountpoint, strings.TrimSuffix(table[i].Mountpoint, "/"))
	}
	return all, nil
}
