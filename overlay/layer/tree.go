//go:build linux

package layer

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	openMost = 128 // directories that are kept open
	maxLinks = 40  // as the kernel has it, path_resolution(7)
)

// tree is a directory in which names are resolved word by word. Each directory on the way is opened relative to the one before it, over no symbolic
// link, and remembered with the directory in which it was found, so that ".." in a link is a step back to where we came from, whatever has been
// renamed meanwhile: no name leaves the tree.
//
// Descriptors are few, whatever the depth: those that have not been used for a while are closed, and opened again by way of the directories
// above, which must still be the same ones.
type tree struct {
	root     *node
	children map[child]*node
	all      []*node // parents come before children
	open     []*node // ring of those that are open
	hand     int
	depth    int64
	lastDir  string // the name that was resolved last, and led over no link, to
	last     *node
	links    int
	seed     maphash.Seed
	loosen   bool                                     // make directories of our own accessible, as an ordinary user must
	ready    func(key uint64)                         // waits until nothing is under way at a place
	missing  func(n *node, name string) error         // makes a directory that is missing on the way; nil is an error
	replaced func(n *node, name string) (bool, error) // called for what is no directory; reports whether there is one now
}

type child struct {
	parent *node
	name   string
}

// node is a directory of the tree that has been visited.
type node struct {
	parent   *node
	name     string
	id       uint64
	fd       int // -1: closed
	dev, ino uint64
	depth    int64
	refs     atomic.Int32 // those who use fd
	inherits bool         // has a default access control list, which new files inherit
	dead     bool         // removed, or its parent is
	pruned   bool         // what the lower layers had in it is gone
	mode     uint32       // permissions that it had
	loosened bool         // has been made accessible to us for the time being
	meta     *meta        // what is set at the end; nil: nothing
}

func openTree(dir string, depth int64) (*tree, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	t := &tree{children: map[child]*node{}, depth: depth, seed: maphash.MakeSeed(), ready: func(uint64) {}}
	t.root, err = t.newNode(nil, "", fd)
	if err != nil {
		return nil, err
	}
	t.root.refs.Add(1) // never closed by evict
	return t, nil
}

func (t *tree) close() {
	for _, n := range t.open {
		unix.Close(n.fd)
		n.fd = -1
	}
	t.open = nil
}

// newNode takes an open directory in and remembers it. The descriptor is the tree's from now on.
func (t *tree) newNode(parent *node, name string, fd int) (*node, error) {
	n, err := t.visited(parent, name, fd)
	if err != nil {
		return nil, err
	}
	size, err := unix.Fgetxattr(fd, aclDefault, nil)
	n.inherits = err == nil && size > 0
	if parent != nil {
		t.children[child{parent, n.name}] = n
	}
	t.all = append(t.all, n)
	return n, nil
}

// enter opens a directory for a walk, which leaves it again.
func (t *tree) enter(parent *node, name string) (*node, error) {
	dir, err := t.fd(parent)
	if err != nil {
		return nil, err
	}
	fd, err := openDir(dir, name)
	if err != nil {
		return nil, crossing(err)
	}
	return t.visited(parent, name, fd)
}

func (t *tree) leave(n *node) {
	if n.fd < 0 {
		return
	}
	unix.Close(n.fd)
	n.fd = -1
	i := slices.Index(t.open, n)
	t.open = slices.Delete(t.open, i, i+1)
}

func (t *tree) visited(parent *node, name string, fd int) (*node, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, err
	}
	// A name is a part of a header, which may be a megabyte.
	n := &node{parent: parent, name: strings.Clone(name), id: uint64(len(t.all)), fd: fd, dev: uint64(st.Dev), ino: st.Ino, mode: uint32(st.Mode) & 0o7777}
	if t.loosen && n.mode&0o700 != 0o700 {
		n.loosened = unix.Fchmod(fd, n.mode|0o700) == nil
	}
	if parent != nil {
		n.depth = parent.depth + 1
	}
	t.keep(n)
	return n, nil
}

// keep enters an open directory into the ring, and closes another one where there are too many.
func (t *tree) keep(n *node) {
	if len(t.open) < openMost {
		t.open = append(t.open, n)
		return
	}
	for range 2 * openMost {
		t.hand = (t.hand + 1) % len(t.open)
		if old := t.open[t.hand]; old.refs.Load() == 0 {
			unix.Close(old.fd)
			old.fd = -1
			t.open[t.hand] = n
			return
		}
	}
	t.open = append(t.open, n) // all are in use
}

// fd gives the descriptor of a directory, valid until the next call to a method of the tree.
func (t *tree) fd(n *node) (int, error) {
	if n.fd >= 0 {
		return n.fd, nil
	}
	var way []*node
	at := n
	for ; at.fd < 0; at = at.parent {
		way = append(way, at)
	}
	for i := len(way) - 1; i >= 0; i-- {
		next := way[i]
		fd, err := openDir(at.fd, next.name)
		if err != nil {
			return -1, crossing(err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || uint64(st.Dev) != next.dev || st.Ino != next.ino {
			unix.Close(fd)
			return -1, refuse(IsReplaced, next.name)
		}
		next.fd = fd
		t.keep(next)
		at = next
	}
	return n.fd, nil
}
