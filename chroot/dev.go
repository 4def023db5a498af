//go:build linux

package chroot

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/plan"
)

// Dev mounts a minimal /dev: null, zero, full, random, urandom and tty, the links fd, stdin, stdout, stderr and ptmx, a pts
// of its own for pseudoterminals, and shm. /dev of the root must be a directory: a symbolic link is refused.
//
// Where the sandbox has a user namespace, or the caller may not make device nodes, the nodes are those of the host, bound.
type Dev struct{}

type node struct {
	name         string
	major, minor uint32
}

var nodes = [...]node{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}}

var links = [...][2]string{{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
	{"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"}}

// Apply implements plan.Primitive.
func (Dev) Apply(p *plan.Plan) error {
	for _, what := range []string{plan.Dev, plan.Devpts} { // a command with a terminal takes it from here
		if err := p.Claim(what); err != nil {
			return err
		}
	}
	private(p)
	dev, pts, shm := p.Slot(), p.Slot(), p.Slot()
	p.Child(plan.Sources, mnt.New(p, "tmpfs", dev, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_STRICTATIME,
		mnt.Option{Key: "mode", Value: "755"}, mnt.Option{Key: "size", Value: "65536k"})...)
	p.Child(plan.Sources, mnt.New(p, "tmpfs", shm, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC,
		mnt.Option{Key: "mode", Value: "1777"}, mnt.Option{Key: "size", Value: "65536k"})...)
	p.Child(plan.Sources, mnt.Mkdir(dev, "pts", 0o755), mnt.Mkdir(dev, "shm", 0o1777))
	for _, l := range links {
		p.Child(plan.Sources, mnt.Symlink(dev, l[0], l[1]))
	}
	p.Child(plan.Mounts, makeDir("/dev"), mnt.Attach(dev, "/dev"), mnt.Attach(shm, "/dev/shm"))
	p.Late(func() error { // a part that is applied later may ask for a user namespace
		user := (p.Cloned()|p.Joined())&unix.CLONE_NEWUSER != 0
		p.Child(plan.Sources, mnt.New(p, "devpts", pts, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, ptsOptions(user)...)...)
		p.Child(plan.Mounts, mnt.Attach(pts, "/dev/pts"))
		for _, n := range nodes {
			n.record(p, dev, !user && mayMakeNodes())
		}
		return nil
	})
	return nil
}

// ptsOptions: group 5 is tty on every distribution, but may have no place in a user namespace.
func ptsOptions(user bool) []mnt.Option {
	o := []mnt.Option{{Key: "newinstance"}, {Key: "ptmxmode", Value: "0666"}, {Key: "mode", Value: "0620"}}
	if !user {
		o = append(o, mnt.Option{Key: "gid", Value: "5"})
	}
	return o
}

// record makes the node, or an empty file onto which the host's node is bound.
func (n node) record(p *plan.Plan, dev plan.Slot, make bool) {
	if make {
		p.Child(plan.Sources, plan.Call("mknodat", unix.SYS_MKNODAT, plan.Saved(dev), plan.Str(n.name),
			plan.Number(unix.S_IFCHR|0o666, "S_IFCHR|0666"), n.number()))
		return
	}
	host := p.Slot()
	p.Child(plan.Sources,
		plan.Call("mknodat", unix.SYS_MKNODAT, plan.Saved(dev), plan.Str(n.name), plan.Number(unix.S_IFREG|0o666, "S_IFREG|0666"), plan.Int(0)),
		mnt.Clone("/dev/"+n.name).Save(host))
	p.Child(plan.Mounts, mnt.Attach(host, "/dev/"+n.name))
}

func (n node) number() plan.Arg {
	return plan.Number(unix.Mkdev(n.major, n.minor), "makedev("+plan.Int(int(n.major)).String()+", "+plan.Int(int(n.minor)).String()+")")
}

// mayMakeNodes reports whether the caller is root with CAP_MKNOD in the first user namespace: nodes that are made in another one cannot be opened.
func mayMakeNodes() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&hdr, &data[0]) != nil || data[0].Effective&(1<<unix.CAP_MKNOD) == 0 {
		return false
	}
	m, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && firstUserNamespace(string(m))
}

// firstUserNamespace: only the first one maps all ids to themselves.
func firstUserNamespace(uidMap string) bool {
	var in, out, size uint64
	n, err := fmt.Sscan(uidMap, &in, &out, &size)
	return n == 3 && err == nil && in == 0 && out == 0 && size == 1<<32-1
}
