//go:build linux

package layer

import (
	"hash/maphash"
	"strings"
	"syscall"
)

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
