//go:build linux

package chroot

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/plan"
)

const noFiles = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

// Sysfs mounts a fresh /sys (sysfs(5)), read-only. It shows the devices of the machine, and of the network those of the sandbox's
// network namespace; a sandbox with a user namespace needs namespaces.Net for it. /sys of the root must be a directory: a symbolic link
// is refused.
type Sysfs struct {
	Writable bool // who has the rights may write; of a machine's devices no namespace is a copy
}

// Apply implements plan.Primitive.
func (s Sysfs) Apply(p *plan.Plan) error {
	private(p)
	m := p.Slot()
	attr := uint64(noFiles | unix.MOUNT_ATTR_RDONLY)
	if s.Writable {
		attr = noFiles
	}
	ops := mnt.New(p, "sysfs", m, attr)
	for i := range ops {
		ops[i] = ops[i].Hint(syscall.EPERM, "without privilege /sys needs namespaces.Net, and a host whose /sys is not covered in parts")
	}
	p.Child(plan.Sources, ops...)
	p.Child(plan.Mounts, makeDir("/sys"), mnt.Attach(m, "/sys"))
	viewOf(p).put("/sys", m)
	return nil
}

// Mqueue mounts /dev/mqueue, where the POSIX message queues of the sandbox's ipc namespace are files (mq_overview(7)). A sandbox
// without namespaces.IPC sees those of the host.
type Mqueue struct{}

// Apply implements plan.Primitive.
func (Mqueue) Apply(p *plan.Plan) error {
	private(p)
	m := p.Slot()
	p.Child(plan.Sources, mnt.New(p, "mqueue", m, noFiles)...)
	return putInto(p, m, "/dev/mqueue")
}

// Devpts mounts a fresh /dev/pts: pseudoterminals of the sandbox's own (pts(4)). [Dev] has one already.
type Devpts struct{}

// Apply implements plan.Primitive.
func (Devpts) Apply(p *plan.Plan) error {
	if err := p.Claim(plan.Devpts); err != nil {
		return err
	}
	private(p)
	m := p.Slot()
	p.Late(func() error { // a part that is applied later may ask for a user namespace
		p.Child(plan.Sources, mnt.New(p, "devpts", m, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, ptsOptions(hasUser(p))...)...)
		return nil
	})
	return putInto(p, m, "/dev/pts")
}

func hasUser(p *plan.Plan) bool { return (p.Cloned()|p.Joined())&unix.CLONE_NEWUSER != 0 }

// putInto attaches a mount below /dev when all parts that provide /dev have done so.
func putInto(p *plan.Plan, m plan.Slot, name string) error {
	viewOf(p).Want(name)
	p.Late(func() error {
		at := viewOf(p).place(p, name, directory)
		p.Child(plan.Mounts, at.Make...)
		p.Child(plan.Mounts, mnt.AttachAt(plan.Saved(m), at.Dir, at.Name))
		return nil
	})
	return nil
}

// Cgroupfs mounts the control groups at /sys/fs/cgroup, read-only (cgroups(7)). The sandbox needs a cgroup namespace of its own, or one that it
// has joined: only then what it sees begins at its own group, and nothing above can be reached even by who mounts it writable. Where the
// host has the hierarchies of version 1, each of them is mounted at a directory of its name, as Docker does.
type Cgroupfs struct {
	// Writable lets who has the rights change the sandbox's own group, its limits included where they are set there. The sandbox must
	// have a group of its own, on version 2 (package cgroups): else the group would be the caller's, and who could freeze it would
	// freeze the caller. On version 1 it is an error that wraps errors.ErrUnsupported.
	Writable bool
}

// Apply implements plan.Primitive.
func (c Cgroupfs) Apply(p *plan.Plan) error {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	private(p)
	afterOthers(p, func() error { return errors.Join(needsCgroupNamespace(p), c.needsOwnGroup(p)) })
	attr := uint64(noFiles | unix.MOUNT_ATTR_RDONLY)
	if c.Writable {
		attr = noFiles
	}
	root, hierarchies := p.Slot(), hierarchiesOf(string(b))
	if c.Writable && len(hierarchies) > 0 {
		return fmt.Errorf("a writable Cgroupfs of version 1 would hand out the caller's own groups: %w", errors.ErrUnsupported)
	}
	if len(hierarchies) == 0 {
		p.Child(plan.Sources, mnt.New(p, "cgroup2", root, attr)...)
	} else {
		p.Child(plan.Sources, mnt.New(p, "tmpfs", root, noFiles, mnt.Option{Key: "mode", Value: "755"})...)
	}
	at := viewOf(p).place(p, "/sys/fs/cgroup", directory)
	p.Child(plan.Mounts, at.Make...)
	p.Child(plan.Mounts, mnt.AttachAt(plan.Saved(root), at.Dir, at.Name))
	viewOf(p).cover("/sys/fs/cgroup")
	for _, h := range hierarchies {
		h.record(p, root, attr)
	}
	if len(hierarchies) > 0 {
		mnt.ViewOf(p).SealTop(p, plan.Saved(root))
	}
	return nil
}

func needsCgroupNamespace(p *plan.Plan) error {
	if (p.Cloned()|p.Joined())&unix.CLONE_NEWCGROUP == 0 {
		return fmt.Errorf("Cgroupfs needs namespaces.Cgroup, else the sandbox would see the groups of the host: %w", syscall.EINVAL)
	}
	return nil
}

func (c Cgroupfs) needsOwnGroup(p *plan.Plan) error {
	if c.Writable && !p.OwnCgroup() {
		return fmt.Errorf("a writable Cgroupfs needs a group of the sandbox's own, as cgroups.Limits makes one: %w", syscall.EINVAL)
	}
	return nil
}

// hierarchy is one of version 1: its controllers, or its name.
type hierarchy struct {
	controllers []string
	name        string
}

// hierarchiesOf reads /proc/PID/cgroup: lines like 4:cpu,cpuacct:/path, 1:name=systemd:/ and, for version 2, 0::/.
func hierarchiesOf(text string) (all []hierarchy) {
	for line := range strings.Lines(text) {
		fields := strings.SplitN(line, ":", 3)
		if len(fields) < 3 || fields[1] == "" {
			continue
		}
		if name, ok := strings.CutPrefix(fields[1], "name="); ok {
			all = append(all, hierarchy{name: name})
			continue
		}
		all = append(all, hierarchy{controllers: strings.Split(fields[1], ",")})
	}
	return all
}

// record mounts the hierarchy in the directory behind root.
func (h hierarchy) record(p *plan.Plan, root plan.Slot, attr uint64) {
	dir, options := h.name, []mnt.Option{{Key: "name", Value: h.name}}
	if h.name == "" {
		dir, options = strings.Join(h.controllers, ","), nil
		for _, c := range h.controllers {
			options = append(options, mnt.Option{Key: c})
		}
	}
	m := p.Slot()
	p.Child(plan.Sources, mnt.New(p, "cgroup", m, attr, options...)...)
	p.Child(plan.Sources, mnt.Mkdir(root, dir, 0o755))
	p.Child(plan.Mounts, mnt.AttachAt(plan.Saved(m), plan.Saved(root), dir))
	for _, c := range h.controllers {
		if len(h.controllers) > 1 {
			p.Child(plan.Sources, mnt.Symlink(root, dir, c))
		}
	}
}
