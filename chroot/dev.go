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
// Where the sandbox has a user namespace, or the caller may not make device nodes, the nodes are those of the host, bound read-only: they can be read and written, but
// their mode, owner and times are not for the sandbox to change.
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

type dir struct {
	name string
	mode uint32
}

var dirs = [...]dir{{"pts", 0o755}, {"shm", 0o1777}}

var links = [...][2]string{{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
	{"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"}}

// Apply implements plan.Primitive.
func (d Dev) Apply(p *plan.Plan) error {
	m, err := d.begin(p)
	if err != nil {
		return err
	}
	m.makeDev(p)
	m.makeShm(p)
	m.fill(p)
	m.attach(p)
	p.Late(func() error { // a part that is applied later may ask for a user namespace
		m.makePts(p)
		m.addNodes(p)
		return nil
	})
	m.end(p)
	return nil
}

// devMounts are the mounts that a plan has at /dev and below it.
type devMounts struct {
	Dev
	selected      []node
	dev, pts, shm plan.Slot
	devBy         plan.Slot // the tmpfs of dev, as fsopen(2) gives it
	shmSize       string
}

func (d Dev) begin(p *plan.Plan) (m devMounts, err error) {
	selected, err := d.nodes()
	if err != nil {
		return m, err
	}
	m = devMounts{Dev: d, selected: selected, shmSize: "65536k"}
	if d.ShmSize != 0 {
		m.shmSize = strconv.FormatInt(d.ShmSize, 10)
	}
	for _, what := range []string{plan.Dev, plan.Devpts} {
		if err := p.Claim(what); err != nil {
			return m, err
		}
	}
	private(p)
	m.dev, m.pts, m.shm, m.devBy = p.Slot(), p.Slot(), p.Slot(), p.Slot()
	return m, nil
}

const devAttributes = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_STRICTATIME

var devOptions = [...]mnt.Option{{Key: "mode", Value: "755"}, {Key: "size", Value: "65536k"}}

func (m devMounts) makeDev(p *plan.Plan) {
	p.Child(plan.Sources, mnt.NewBy(m.devBy, "tmpfs", m.dev, devAttributes, devOptions[:]...)...)
}

func (m devMounts) makeShm(p *plan.Plan) {
	p.Child(plan.Sources, mnt.New(p, "tmpfs", m.shm, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC,
		mnt.Option{Key: "size", Value: m.shmSize})...) // tmpfs has mode 1777 by itself
}

// fill puts into /dev what is no node.
func (m devMounts) fill(p *plan.Plan) {
	for _, d := range dirs {
		p.Child(plan.Sources, mnt.Mkdir(m.dev, d.name, d.mode))
	}
	for _, l := range links {
		p.Child(plan.Sources, mnt.Symlink(m.dev, l[0], l[1]))
	}
}

func (m devMounts) attach(p *plan.Plan) {
	p.Child(plan.Mounts, makeDir("/dev"), mnt.Attach(m.dev, "/dev"), mnt.AttachAt(plan.Saved(m.shm), plan.Saved(m.dev), "shm"))
	viewOf(p).put("/dev", m.dev)
}

func (m devMounts) makePts(p *plan.Plan) {
	p.Child(plan.Sources, mnt.New(p, "devpts", m.pts, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, ptsOptions(hasUser(p))...)...)
	p.Child(plan.Mounts, mnt.AttachAt(plan.Saved(m.pts), plan.Saved(m.dev), "pts"))
}

func (m devMounts) addNodes(p *plan.Plan) {
	make := !hasUser(p) && mayMakeNodes()
	for _, n := range m.selected {
		n.record(p, m.dev, make)
	}
}

func (m devMounts) end(p *plan.Plan) {
	if m.Mqueue {
		p.Include(Mqueue{})
	}
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

// record makes the node, or an empty file onto which the host's node is bound: read-only, since root inside may be its owner, who needs no capability to change its mode.
func (n node) record(p *plan.Plan, dev plan.Slot, make bool) {
	if make {
		p.Child(plan.Sources, plan.Call("mknodat", unix.SYS_MKNODAT, plan.Saved(dev), plan.Str(n.name),
			plan.Number(unix.S_IFCHR|0o666, "S_IFCHR|0666"), n.number()))
		return
	}
	p.Child(plan.Sources,
		plan.Call("mknodat", unix.SYS_MKNODAT, plan.Saved(dev), plan.Str(n.name), plan.Number(unix.S_IFREG|0o666, "S_IFREG|0666"), plan.Int(0)))
	host := clone(p, source{path: "/dev/" + n.name, recursive: true, early: true, target: "/dev/" + n.name}, mnt.Tree{Set: unix.MOUNT_ATTR_RDONLY, Early: true})
	p.Child(plan.Mounts, mnt.AttachAt(host, plan.Saved(dev), n.name))
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
