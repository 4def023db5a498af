//go:build linux

package cgroups

import (
	"errors"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// host is where control groups are looked for.
type host struct {
	kernel *kernel
	proc   func(name string) ([]byte, error) // reads a file of /proc
	v1     bool                              // as if no hierarchy of version 2 were mounted
}

func realHost() *host {
	return &host{kernel: realKernel(), proc: func(name string) ([]byte, error) { return os.ReadFile("/proc/" + name) }}
}

// hierarchy is one tree of groups, as it is mounted.
type hierarchy struct {
	kernel      *kernel
	mount       string   // mount point
	root        string   // which group of the hierarchy is mounted there; "/" is the whole
	v2          bool     //
	controllers []string // which act through this hierarchy
	own         string   // the group of the process that was asked for, below the mount point: "/a/b"; "/" is the mount point itself
}

// layout is all hierarchies, that of version 2 first.
type layout []*hierarchy

// find gives the hierarchy through which a controller acts.
func (l layout) find(controller string) *hierarchy {
	for _, h := range l {
		if slices.Contains(h.controllers, controller) {
			return h
		}
	}
	return nil
}

func (l layout) v2() *hierarchy {
	if len(l) > 0 && l[0].v2 {
		return l[0]
	}
	return nil
}

var errNone = &Error{Op: "look for control groups", Err: &reason{"no hierarchy is mounted in which the process has a group", errors.ErrUnsupported}}

// look finds the hierarchies and the groups of a process in them. It opens nothing that stays open.
func (h *host) look(pid int) (layout, error) {
	proc := "self"
	if pid != 0 {
		proc = strconv.Itoa(pid)
	}
	mounts, err := h.proc("self/mountinfo")
	if err != nil {
		return nil, &Error{Op: "look for control groups", Err: err}
	}
	groups, err := h.proc(proc + "/cgroup")
	if err != nil {
		return nil, &Error{Op: "look for the group of process " + proc, Err: err}
	}
	var all layout
	for line := range strings.Lines(string(mounts)) {
		if m := parseMount(line); m != nil && !(h.v1 && m.v2) {
			m.kernel = h.kernel
			all = all.add(m, string(groups))
		}
	}
	if len(all) == 0 {
		return nil, errNone
	}
	if v2 := all.v2(); v2 != nil {
		v2.controllers = v2.available()
		for _, old := range all[1:] { // a controller that has just gone over to version 1
			v2.controllers = slices.DeleteFunc(v2.controllers, func(c string) bool { return slices.Contains(old.controllers, c) })
		}
	}
	return all, nil
}

// add adds a mount in which the process has a group, unless the same hierarchy is there already.
func (l layout) add(h *hierarchy, groups string) layout {
	p, ok := groupIn(h, groups)
	if !ok || slices.ContainsFunc(l, func(o *hierarchy) bool { return o.v2 == h.v2 && slices.Equal(o.controllers, h.controllers) }) {
		return l
	}
	if h.own, ok = below(p, h.root); !ok {
		return l
	}
	if h.v2 {
		return slices.Insert(l, 0, h)
	}
	return append(l, h)
}

// parseMount reads a line of mountinfo (proc_pid_mountinfo(5)): nil for what is no hierarchy with controllers.
func parseMount(line string) *hierarchy {
	before, after, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
	f, tail := strings.Split(before, " "), strings.Split(after, " ")
	if len(f) < 6 || len(tail) < 3 || tail[0] != "cgroup" && tail[0] != "cgroup2" {
		return nil
	}
	h := &hierarchy{root: unescape(f[3]), mount: unescape(f[4]), v2: tail[0] == "cgroup2"}
	if h.v2 {
		return h
	}
	for o := range strings.SplitSeq(tail[2], ",") {
		if slices.Contains(legacyControllers, o) {
			h.controllers = append(h.controllers, o)
		}
	}
	if len(h.controllers) == 0 { // systemd's own, without controllers
		return nil
	}
	return h
}

var legacyControllers = []string{"blkio", "cpu", "cpuacct", "cpuset", "devices", "dmem", "freezer", "hugetlb", "memory", "misc",
	"net_cls", "net_prio", "perf_event", "pids", "rdma"}

// groupIn finds the process's group in the text of /proc/PID/cgroup (cgroups(7)).
func groupIn(h *hierarchy, groups string) (string, bool) {
	for line := range strings.Lines(groups) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) < 3 {
			continue
		}
		if h.v2 && f[0] == "0" || !h.v2 && slices.Contains(strings.Split(f[1], ","), h.controllers[0]) {
			return strings.TrimSuffix(f[2], " (deleted)"), true
		}
	}
	return "", false
}

// below gives the path from root to p. A path that leads out of our cgroup namespace begins with "/..".
func below(p, root string) (string, bool) {
	if strings.HasPrefix(p, "/..") || strings.HasPrefix(root, "/..") {
		return "", false
	}
	rest, ok := strings.CutPrefix(p, strings.TrimSuffix(root, "/"))
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	return path.Join("/", rest), true
}

// unescape undoes the octal numbers for space, tab, newline and backslash.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// available lists the controllers that the topmost group of version 2 has.
func (h *hierarchy) available() []string {
	d, err := h.openDir("/")
	if err != nil {
		return nil
	}
	defer d.f.Close()
	b, err := d.read("cgroup.controllers", make([]byte, 256))
	if err != nil {
		return nil
	}
	return strings.Fields(string(b))
}

// openDir opens a group's directory, and makes sure that it is one.
func (h *hierarchy) openDir(p string) (dir, error) {
	top, err := unix.Open(h.mount, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return dir{}, &Error{Op: "open", Group: h.mount, Err: err}
	}
	d := dir{hierarchy: h, path: p}
	if rest := strings.TrimPrefix(p, "/"); rest != "" {
		fd, err := h.kernel.open(top, rest, unix.O_PATH|unix.O_DIRECTORY)
		unix.Close(top)
		if err != nil {
			return dir{}, d.failed("open", "", "", err)
		}
		top = fd
	}
	d.f = os.NewFile(uintptr(top), d.String())
	if err := d.verify(); err != nil {
		d.f.Close()
		return dir{}, err
	}
	return d, nil
}

// verify looks at the file system's type: a directory that merely lies at the mount point would take all limits and enforce none.
func (d *dir) verify() error {
	want := int64(unix.CGROUP_SUPER_MAGIC)
	if d.v2 {
		want = unix.CGROUP2_SUPER_MAGIC
	}
	got, err := d.kernel.magic(d.fd())
	if err == nil && got != want {
		err = &reason{"this is no hierarchy of control groups", unix.EINVAL}
	}
	if err != nil {
		return d.failed("open", "", "", err)
	}
	return nil
}
