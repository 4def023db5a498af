//go:build linux

package chroot

import (
	"fmt"
	"os"
	"path"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/plan"
)

// Bind shows a file or directory of the host in the sandbox, with the mounts below it (mount(2), MS_BIND). Device nodes and
// set-user-ID programs in it do not work (nodev, nosuid).
type Bind struct {
	Source   string // of the host; must exist
	Target   string // absolute, in the sandbox; made when it is missing
	ReadOnly bool
}

// Apply implements plan.Primitive.
func (b Bind) Apply(p *plan.Plan) error {
	if err := target(b.Target); err != nil {
		return err
	}
	st, err := os.Stat(b.Source)
	if err != nil {
		return err
	}
	private(p)
	tree := p.Slot()
	attr := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
	if b.ReadOnly {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	p.Child(plan.Sources, mnt.Clone(b.Source).Save(tree), mnt.SetAttr(tree, true, attr, 0))
	p.Child(plan.Mounts, b.point(st.IsDir())...)
	p.Child(plan.Mounts, mnt.AttachFollowing(tree, b.Target))
	return nil
}

// point makes the mount point.
func (b Bind) point(isDir bool) []plan.Op {
	if isDir {
		return makeDirs(b.Target)
	}
	var ops []plan.Op
	if dir := path.Dir(b.Target); dir != "/" {
		ops = makeDirs(dir)
	}
	return append(ops, plan.Call("mknodat", unix.SYS_MKNODAT, mnt.CWD(), plan.Str(b.Target),
		plan.Number(unix.S_IFREG|0o644, "S_IFREG|0644"), plan.Int(0)).Tolerate(syscall.EEXIST).
		Hint(syscall.EROFS, readOnlyHint).Hint(syscall.EACCES, readOnlyHint))
}

// Tmpfs mounts a fresh file system in memory (tmpfs(5)), which ends with the sandbox.
type Tmpfs struct {
	Path string      // absolute, in the sandbox; made when it is missing
	Size int64       // bytes; zero leaves the kernel's default, half of the memory
	Mode os.FileMode // permission bits and os.ModeSticky; zero is 1777, as for /tmp
}

// Apply implements plan.Primitive.
func (t Tmpfs) Apply(p *plan.Plan) error {
	if err := target(t.Path); err != nil {
		return err
	}
	options, err := t.options()
	if err != nil {
		return err
	}
	private(p)
	m := p.Slot()
	p.Child(plan.Sources, mnt.New(p, "tmpfs", m, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, options...)...)
	p.Child(plan.Mounts, makeDirs(t.Path)...)
	p.Child(plan.Mounts, mnt.AttachFollowing(m, t.Path))
	return nil
}

func (t Tmpfs) options() ([]mnt.Option, error) {
	if t.Size < 0 {
		return nil, fmt.Errorf("size of %d bytes: %w", t.Size, syscall.EINVAL)
	}
	mode := uint64(t.Mode.Perm())
	if t.Mode&os.ModeSticky != 0 {
		mode |= unix.S_ISVTX
	}
	if t.Mode == 0 {
		mode = 0o1777
	}
	options := []mnt.Option{{Key: "mode", Value: strconv.FormatUint(mode, 8)}}
	if t.Size > 0 {
		options = append(options, mnt.Option{Key: "size", Value: strconv.FormatInt(t.Size, 10)})
	}
	return options, nil
}

// Proc mounts a fresh /proc (proc(5)). It shows the processes of the sandbox's pid namespace, so the sandbox wants
// namespaces.PID. /proc of the root must be a directory: a symbolic link is refused.
type Proc struct{}

// Apply implements plan.Primitive.
func (Proc) Apply(p *plan.Plan) error {
	private(p)
	m := p.Slot()
	ops := mnt.New(p, "proc", m, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	last := len(ops) - 1
	ops[last] = ops[last].Hint(syscall.EPERM, "without privilege /proc needs namespaces.PID, and a host whose /proc is not covered in parts")
	p.Child(plan.Sources, ops...)
	p.Child(plan.Mounts, makeDir("/proc"), mnt.Attach(m, "/proc"))
	return nil
}
