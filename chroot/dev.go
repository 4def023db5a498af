//go:build linux

package chroot

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/plan"
)

// Dev mounts a minimal /dev: null, zero, full, random, urandom and tty, the links fd, stdin, stdout, stderr and ptmx, a pts
// of its own for pseudoterminals, and shm. /dev of the root must be a directory: a symbolic link is refused. Further devices are for [Device] to
// add.
//
// Where the sandbox has a user namespace, or the caller may not make device nodes, the nodes are those of the host, bound.
type Dev struct {
	Nodes   []string // which of the six nodes there are; nil is all of them, and an empty list is none
	ShmSize int64    // bytes of /dev/shm; zero is 64 MiB
	Mqueue  bool     // /dev/mqueue too, see [Mqueue]
}

type node struct {
	name         string
	major, minor uint32
}

var nodes = [...]node{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}}

var links = [...][2]string{{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
	{"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"}}

// Apply implements plan.Primitive.
func (d Dev) Apply(p *plan.Plan) error {
	selected, err := d.nodes()
	if err != nil {
		return err
	}
	shmSize := "65536k"
	if d.ShmSize != 0 {
		shmSize = strconv.FormatInt(d.ShmSize, 10)
	}
	for _, what := range []string{plan.Dev, plan.Devpts} {
		if err := p.Claim(what); err != nil {
			return err
		}
	}
	private(p)
	dev, pts, shm := p.Slot(), p.Slot(), p.Slot()
	p.Child(plan.Sources, mnt.New(p, "tmpfs", dev, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_STRICTATIME,
		mnt.Option{Key: "mode", Value: "755"}, mnt.Option{Key: "size", Value: "65536k"})...)
	p.Child(plan.Sources, mnt.New(p, "tmpfs", shm, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC,
		mnt.Option{Key: "size", Value: shmSize})...) // tmpfs has mode 1777 by itself
	p.Child(plan.Sources, mnt.Mkdir(dev, "pts", 0o755), mnt.Mkdir(dev, "shm", 0o1777))
	for _, l := range links {
		p.Child(plan.Sources, mnt.Symlink(dev, l[0], l[1]))
	}
	p.Child(plan.Mounts, makeDir("/dev"), mnt.Attach(dev, "/dev"), mnt.AttachAt(plan.Saved(shm), plan.Saved(dev), "shm"))
	viewOf(p).put("/dev", dev)
	p.Late(func() error { // a part that is applied later may ask for a user namespace
		user := hasUser(p)
		p.Child(plan.Sources, mnt.New(p, "devpts", pts, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, ptsOptions(user)...)...)
		p.Child(plan.Mounts, mnt.AttachAt(plan.Saved(pts), plan.Saved(dev), "pts"))
		for _, n := range selected {
			n.record(p, dev, !user && mayMakeNodes())
		}
		return nil
	})
	if d.Mqueue {
		p.Include(Mqueue{})
	}
	return nil
}

func (d Dev) nodes() (selected []node, err error) {
	if d.ShmSize < 0 {
		return nil, fmt.Errorf("/dev/shm of %d bytes: %w", d.ShmSize, syscall.EINVAL)
	}
	if d.Nodes == nil {
		return nodes[:], nil
	}
	for i, name := range d.Nodes {
		k := slices.IndexFunc(nodes[:], func(n node) bool { return n.name == name })
		if k < 0 || slices.Contains(d.Nodes[:i], name) {
			return nil, fmt.Errorf("node %q is unknown or named twice; a Device adds others: %w", name, syscall.EINVAL)
		}
		selected = append(selected, nodes[k])
	}
	return selected, nil
}

// ptsOptions: each devpts is an instance of its own since Linux 4.7. Group 5 is tty on every distribution, but may have no place in a user namespace.
func ptsOptions(user bool) []mnt.Option {
	o := []mnt.Option{{Key: "ptmxmode", Value: "0666"}, {Key: "mode", Value: "0620"}}
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
		mnt.Clone("/dev/"+n.name).Save(host).Early())
	p.Child(plan.Mounts, mnt.AttachAt(plan.Saved(host), plan.Saved(dev), n.name))
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
