//go:build linux

package chroot

import (
	"errors"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/plan"
)

// DevTree is a [Dev] that has been built already: a start attaches a clone of it (open_tree(2), OPEN_TREE_CLONE) instead of making nodes and links anew. It is safe for
// concurrent use, and must stay open while sandboxes are started with it.
//
// A clone is the same file system, and so that is read-only, as a whole and not only where it is mounted: nobody in a sandbox, whatever is mounted or remounted there, can make, remove or rename
// anything in it, or change a mode, an owner, a time or an attribute (EROFS). Access times are not kept. The devices are read and written all the same; pts, shm and mqueue are the sandbox's own, and so is
// the mount: what is mounted on a name in it, as by a [Mask], is not seen elsewhere. All in it belongs to who has prepared it, whom a user namespace may show as nobody.
//
// What such sandboxes have in common is what the kernel keeps with an inode, and not in the file system: locks (flock(2), fcntl(2)), who watches it (inotify(7)), and for tty the time, to eight seconds, at which
// somebody has written to a terminal by this name. Two that conspire can signal that way, as by any file of the host that both see, and by the host's nodes in a [Dev] with a user namespace.
// Where no bit may pass, take a Dev without a user namespace.
//
// Only who cannot make the file system writable gets a clone: a sandbox with a user namespace, or with CAP_SYS_ADMIN neither in the bounding nor in the inheritable set (package caps). Others, and all
// where there is no clone or where it has no name for something, get a /dev of their own: each start builds it as Dev does, and makes it read-only when everything is mounted. It looks the same, takes the time of
// a Dev, and is nobody else's when root inside makes it writable. That is so before Linux 6.15, for a caller without CAP_MKNOD in the first user namespace, and with a terminal (/dev/console) or
// a part that puts a further name into /dev, as a [Device] does. The plan shows which it is.
type DevTree struct {
	dev    Dev
	tree   *os.File // nil where it cannot be cloned
	closed atomic.Bool
}

// Prepare builds the /dev, once for many starts. Where the kernel or the caller's rights do not allow that, each start builds it; that is no error. To be closed by the caller.
func (d Dev) Prepare() (*DevTree, error) {
	selected, err := d.nodes()
	if err != nil {
		return nil, &Error{Op: "prepare /dev", Err: err}
	}
	d.Nodes = slices.Clone(d.Nodes)
	t := &DevTree{dev: d}
	if !mayMakeNodes() {
		return t, nil
	}
	t.tree, err = d.build(selected)
	for _, e := range []error{syscall.EPERM, syscall.ENOSYS, errNoClone} { // a start says what it lacks
		if errors.Is(err, e) {
			return t, nil
		}
	}
	if err != nil {
		return nil, &Error{Op: "prepare /dev", Err: err}
	}
	return t, nil
}

// Close lets the tree go. Sandboxes that run keep their /dev; a start with the DevTree is an error that wraps os.ErrClosed.
func (t *DevTree) Close() error {
	if t.closed.Swap(true) {
		return os.ErrClosed
	}
	if t.tree == nil {
		return nil
	}
	return t.tree.Close()
}

// Apply implements plan.Primitive.
func (t *DevTree) Apply(p *plan.Plan) error {
	m, err := t.dev.begin(p)
	if err != nil {
		return err
	}
	m.makeShm(p)
	m.attach(p)
	p.Late(func() error { // a part that is applied later may ask for a user namespace, or mount something here
		m.makePts(p)
		switch own := t.tree == nil || t.lacksPlace(p); {
		case own:
			t.own(p, m)
		case hasUser(p):
			t.clone(p, m)
		default: // it shares the user namespace in which the tree was made
			afterFinal(p, func() { t.cloneWithoutAdmin(p, m) })
		}
		return nil
	})
	m.end(p)
	return nil
}

// afterFinal decides when other parts have decided in Final, as package caps does.
func afterFinal(p *plan.Plan, f func()) {
	p.Final(func() error {
		p.Final(func() error {
			f()
			return nil
		})
		return nil
	})
}

func (t *DevTree) cloneWithoutAdmin(p *plan.Plan, m devMounts) {
	if hasUser(p) || p.Lacks(unix.CAP_SYS_ADMIN) {
		t.clone(p, m)
		return
	}
	t.own(p, m)
}

// lacksPlace reports whether something is to be put into /dev for which the tree has no name. What the terminal of a command is mounted on is made by package caisson.
func (t *DevTree) lacksPlace(p *plan.Plan) bool {
	if p.Has(plan.Terminal) {
		return true
	}
	names := t.dev.names() // what is made below one of them, but shm, would be made before that is mounted
	return slices.ContainsFunc(viewOf(p).Wanted(), func(target string) bool {
		name, below := strings.CutPrefix(target, "/dev/")
		return below && !slices.Contains(names, name) && !strings.HasPrefix(name, "shm/")
	})
}

// clone attaches a clone, which the parent makes, as Prepare has tried: the child is in another mount namespace.
func (t *DevTree) clone(p *plan.Plan, m devMounts) {
	f := p.Open("a clone of the prepared /dev as dev", t.open)
	p.Spent(f)
	p.Child(plan.Sources, mnt.Duplicate(plan.FD(f)).Save(m.dev))
}

// own builds a /dev for this start, which becomes read-only when all parts have put into it what they have.
func (t *DevTree) own(p *plan.Plan, m devMounts) {
	p.Before(plan.Action{Name: "look whether the prepared /dev is open", Do: func(*plan.Run) error { return t.isOpen() }})
	m.makeDev(p)
	m.fill(p)
	m.addNodes(p)
	p.Child(plan.Seal, mnt.Freeze(m.devBy)...)
}

func (t *DevTree) isOpen() error {
	if t.closed.Load() {
		return errTreeClosed()
	}
	return nil
}

func errTreeClosed() error { return &Error{Op: "use the prepared /dev", Err: os.ErrClosed} }

// open makes a clone. The tree stays open meanwhile.
func (t *DevTree) open(*plan.Run) (f *os.File, err error) {
	if err := t.isOpen(); err != nil {
		return nil, err
	}
	c, err := t.tree.SyscallConn()
	if err != nil || c.Control(func(fd uintptr) { f, err = cloneOf(int(fd)) }) != nil {
		return nil, errTreeClosed()
	}
	if err != nil {
		return nil, &Error{Op: "clone the prepared /dev", Err: err}
	}
	return f, nil
}

func cloneOf(tree int) (*os.File, error) {
	fd, err := unix.OpenTree(tree, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, os.NewSyscallError("open_tree", err)
	}
	return os.NewFile(uintptr(fd), "/dev"), nil
}
