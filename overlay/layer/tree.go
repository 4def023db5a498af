//go:build linux

package layer

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

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
		t.children[child{parent, name}] = n
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
	n := &node{parent: parent, name: name, id: uint64(len(t.all)), fd: fd, dev: uint64(st.Dev), ino: st.Ino, mode: uint32(st.Mode) & 0o7777}
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

// openDir opens a directory by one word: no link is followed, no mount entered.
func openDir(dir int, name string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV}
	for {
		fd, err := unix.Openat2(dir, name, &how)
		switch err {
		case syscall.EINTR, syscall.EAGAIN:
			continue
		case syscall.ENOSYS, syscall.EPERM: // a filter of an outer sandbox does not know the call
			return openDirByHand(dir, name)
		}
		return fd, err
	}
}

// openOwn is openDir for an ordinary user, who may have closed a directory to himself: it is made accessible for the time being, and the mode that it had is
// given.
func (t *tree) openOwn(dir int, name string) (fd int, was *uint32, err error) {
	fd, err = openDir(dir, name)
	if err != syscall.EACCES || !t.loosen {
		return fd, nil, err
	}
	place, e := unix.Openat(dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if e != nil {
		return -1, nil, err
	}
	defer unix.Close(place)
	var st unix.Stat_t
	if e := unix.Fstat(place, &st); e != nil {
		return -1, nil, e
	}
	mode := uint32(st.Mode) & 0o7777
	if int(st.Uid) != unix.Geteuid() || chmodPlace(place, mode|0o700) != nil {
		return -1, nil, err
	}
	fd, err = openDir(dir, name)
	return fd, &mode, err
}

func openDirByHand(dir int, name string) (int, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var here, there unix.Statx_t
	for f, st := range map[int]*unix.Statx_t{dir: &here, fd: &there} {
		if e := unix.Statx(f, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, st); err == nil {
			err = e
		}
	}
	if err == nil && (here.Mask&there.Mask&unix.STATX_MNT_ID == 0 || here.Mnt_id != there.Mnt_id) {
		err = syscall.EXDEV
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// crossing makes the kernel's answer to a mount a refusal.
func crossing(err error) error {
	if err == syscall.EXDEV {
		return refuse(IsMount, "")
	}
	return err
}

// key is a place of the tree in 64 bits. With a seed that nobody knows, two places have the same one by accident only.
func (t *tree) key(n *node, name string) uint64 {
	return maphash.String(t.seed, name) ^ (n.id+1)*0x9e3779b97f4a7c15
}

// lookup resolves the name of a directory. Names mostly come in the order of the tree, so it goes on from where it was last.
func (t *tree) lookup(dir string) (*node, error) {
	if t.last != nil && dir == t.lastDir {
		return t.last, nil
	}
	n, rest := t.root, dir
	if t.last != nil {
		n, rest = t.common(dir)
	}
	t.links = 0
	n, err := t.walk(n, rest)
	t.last = nil
	if err == nil && t.links == 0 {
		t.last, t.lastDir = n, dir
	}
	return n, err
}

// common goes back from the last directory to the one that it has in common with dir, and gives what is left of dir from there.
func (t *tree) common(dir string) (*node, string) {
	i := 0
	for i < len(dir) && i < len(t.lastDir) && dir[i] == t.lastDir[i] {
		i++
	}
	atEnd := func(s string) bool { return i == len(s) || s[i] == '/' }
	if !atEnd(dir) || !atEnd(t.lastDir) {
		i = strings.LastIndexByte(dir[:i], '/')
	}
	if i <= 0 {
		return t.root, dir
	}
	n := t.last
	for range strings.Count(t.lastDir[i:], "/") {
		n = n.parent
	}
	return n, strings.TrimPrefix(dir[i:], "/")
}

// walk goes on from a directory, by the words of a name or of a link.
func (t *tree) walk(n *node, words string) (*node, error) {
	for words != "" {
		var word string
		word, words, _ = strings.Cut(words, "/")
		var err error
		switch word {
		case "", ".":
		case "..":
			if n.parent != nil {
				n = n.parent
			}
		default:
			n, err = t.step(n, word)
		}
		if err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (t *tree) step(n *node, name string) (*node, error) {
	if next := t.children[child{n, name}]; next != nil {
		return next, nil
	}
	if n.depth >= t.depth {
		return nil, refuse(IsTooDeep, "")
	}
	t.ready(t.key(n, name))
	dir, err := t.fd(n)
	if err != nil {
		return nil, err
	}
	for range 3 {
		var fd int
		var was *uint32
		fd, was, err = t.openOwn(dir, name)
		switch {
		case err == nil:
			next, err := t.newNode(n, name, fd)
			if err == nil && was != nil {
				next.mode, next.loosened = *was, true
			}
			return next, err
		case err == syscall.ENOENT && t.missing != nil:
			err = t.missing(n, name)
		case err == syscall.ELOOP || err == syscall.ENOTDIR:
			to, e := readlinkat(dir, name)
			if e == nil {
				return t.follow(n, to)
			}
			again := false
			if t.replaced != nil {
				again, e = t.replaced(n, name)
			}
			if !again {
				return nil, belowFile(e, name)
			}
			err = nil
		}
		if err != nil {
			return nil, crossing(err)
		}
	}
	return nil, refuse(IsReplaced, name)
}

func belowFile(err error, name string) error {
	if err == nil || err == syscall.EINVAL {
		return refuse(IsBelowFile, name)
	}
	return err
}

// follow goes where a symbolic link leads, inside the tree.
func (t *tree) follow(n *node, to string) (*node, error) {
	if t.links++; t.links > maxLinks {
		return nil, refuse(IsLoop, "")
	}
	if strings.HasPrefix(to, "/") {
		n = t.root
	}
	return t.walk(n, to)
}

// forget drops what is known of a place, because it has been removed.
func (t *tree) forget(n *node, name string) {
	if old := t.children[child{n, name}]; old != nil {
		old.dead = true
		delete(t.children, child{n, name})
		t.last = nil
	}
}

func readlinkat(dir int, name string) (string, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, b)
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}
