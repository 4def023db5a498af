//go:build linux

package chroot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/plan"
)

// Bind shows a file or directory of the host in the sandbox, with the mounts below it (mount(2), MS_BIND). Device nodes and
// set-user-ID programs in it do not work (nodev, nosuid), unless Dev and SUID say so. Without a user namespace a procfs that the host has mounted below
// Source is covered by an empty directory, as for [Host]; one that is Source itself is shown.
type Bind struct {
	// Source is a path of the host, and must exist. It is resolved at each start, as root where the caller is: where others may write to a
	// directory on the way, they decide what is shown. File does not have that.
	Source   string
	Target   string // absolute, in the sandbox; made when it is missing
	ReadOnly bool   // with all mounts below it (mount_setattr(2))

	// File is shown instead of Source, whatever its name leads to meanwhile: a directory or a file, opened in any way, also with
	// O_PATH. It stays the caller's, and must be open at each start. It needs CAP_SYS_ADMIN on the host.
	File *os.File

	NonRecursive bool // without the mounts below it
	NoExec       bool // programs in it cannot be executed
	Dev          bool // device nodes in it work
	SUID         bool // set-user-ID and set-group-ID bits and file capabilities in it count

	// IDMap is a user namespace (/proc/PID/ns/user, package namespaces). Who owns a file is then said by its id map: what belongs to
	// id 0 on the disk is shown as belonging to the host's id that 0 inside the namespace stands for. It needs CAP_SYS_ADMIN on the host,
	// and file systems that can do it, else the error is errors.ErrUnsupported (idmapped mounts, mount_setattr(2), Linux 5.12).
	IDMap *os.File

	// Propagation of the mounts below Source. Slave and Shared need CAP_SYS_ADMIN on the host, and a Source on a shared mount. Shared
	// lets the sandbox mount on the host. With either, ReadOnly and NoExec are errors that wrap errors.ErrUnsupported, and nodev and nosuid hold
	// for what is mounted at the start: later mounts come with flags of their own.
	Propagation Propagation
}

// Apply implements plan.Primitive.
func (b Bind) Apply(p *plan.Plan) error {
	if err := errors.Join(target(b.Target), b.Propagation.check(), b.Propagation.later(b.ReadOnly || b.NoExec)); err != nil {
		return err
	}
	isDir, err := b.isDir()
	if err != nil {
		return err
	}
	private(p)
	v := viewOf(p)
	tree := clone(p, source{path: b.Source, file: b.File, recursive: !b.NonRecursive, slave: b.Propagation == Slave,
		shared: b.Propagation == Shared, idmap: b.IDMap, isDir: isDir, target: b.Target}, mnt.Tree{Set: b.attributes()})
	at := v.place(p, b.Target, pointKind(isDir))
	v.cover(b.Target)
	p.Child(plan.Mounts, at.Onto(p, tree)...)
	if !b.NonRecursive {
		hideProcesses(p, tree, source{path: b.Source, file: b.File}.now, b.Target)
	}
	return nil
}

func (b Bind) isDir() (bool, error) {
	if (b.File == nil) == (b.Source == "") {
		return false, fmt.Errorf("Bind needs either Source or File: %w", syscall.EINVAL)
	}
	st, err := os.Stat(b.Source)
	if b.File != nil {
		st, err = b.File.Stat()
	}
	if err != nil {
		return false, err
	}
	if st.Mode()&fs.ModeSymlink != 0 { // only File can be one
		return false, fmt.Errorf("%q is a symbolic link: %w", b.File.Name(), syscall.ELOOP)
	}
	return st.IsDir(), nil
}

func (b Bind) attributes() (attr uint64) {
	for _, a := range []struct {
		on  bool
		bit uint64
	}{{b.ReadOnly, unix.MOUNT_ATTR_RDONLY}, {!b.SUID, unix.MOUNT_ATTR_NOSUID}, {!b.Dev, unix.MOUNT_ATTR_NODEV}, {b.NoExec, unix.MOUNT_ATTR_NOEXEC}} {
		if a.on {
			attr |= a.bit
		}
	}
	return attr
}

// Optional is a [Bind] that is left out where its Source does not exist when the plan is made. The plan then shows no step of it. Any other
// failure is an error as for Bind.
//
//	chroot.Optional(chroot.Bind{Source: "/lib64", Target: "/lib64", ReadOnly: true})
type Optional Bind

// Apply implements plan.Primitive.
func (o Optional) Apply(p *plan.Plan) error {
	_, err := Bind(o).isDir()
	if o.File == nil && errors.Is(err, fs.ErrNotExist) {
		return target(o.Target)
	}
	return Bind(o).Apply(p)
}

// Device shows a device of the host in the sandbox, at the same path or another one. It is mounted read-only, which does not concern reading and writing of the device: but who owns it inside
// cannot change its mode, owner or times, which are the host's. Whether it may be used is also for the device controller of the sandbox's control group to say. A part [Dev] comes first, whatever the order of the parts.
type Device struct {
	Path   string // of the host: /dev/fuse
	Target string // absolute, in the sandbox; "" is Path
}

// Apply implements plan.Primitive.
func (d Device) Apply(p *plan.Plan) error {
	at := d.Target
	if at == "" {
		at = d.Path
	}
	if err := target(at); err != nil {
		return err
	}
	st, err := os.Stat(d.Path)
	if err != nil {
		return err
	}
	if st.Mode()&fs.ModeDevice == 0 {
		return fmt.Errorf("%q is not a device: %w", d.Path, syscall.EINVAL)
	}
	private(p)
	viewOf(p).Want(at)
	node := clone(p, source{path: d.Path, target: at}, mnt.Tree{
		Set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC, Clear: unix.MOUNT_ATTR_NODEV})
	p.Late(func() error {
		point := viewOf(p).place(p, at, file)
		p.Child(plan.Mounts, point.Make...)
		p.Child(plan.Mounts, mnt.AttachAt(node, point.Dir, point.Name))
		return nil
	})
	return nil
}
