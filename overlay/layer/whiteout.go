//go:build linux

package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// whiteout does what an entry .wh.NAME or .wh..wh..opq says. It concerns the layers below, and not what this layer itself has put there, in
// whichever order they come.
func (u *unpacker) whiteout(p place, h *tar.Header) error {
	name, err := hidden(p.base)
	if err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeLink || h.Size > 0 { // aufs has them as hard links of one file
		return refuse(IsBadWhiteout, "")
	}
	dir, err := u.tree.lookup(p.dir)
	if err != nil {
		return err
	}
	u.totals.Whiteouts++
	if name == "" {
		return u.opaque(dir)
	}
	key := u.tree.key(dir, name)
	u.crew.ready(key)
	if n := u.tree.children[child{dir, name}]; n != nil { // this layer has been there
		u.deleting = true
		defer func() { u.deleting = false }()
		return u.opaque(n)
	}
	if _, made := u.made[key]; made {
		return nil // a file covers what is below by itself
	}
	fd, err := u.tree.fd(dir)
	if err != nil {
		return err
	}
	return u.hide(dir, fd, name)
}

// hide writes down that a name is deleted.
func (u *unpacker) hide(dir *node, fd int, name string) error {
	switch u.Form {
	case Plain:
		return u.clear(dir, fd, name)
	case AUFS:
		return marker(fd, whiteout+name)
	}
	err := unix.Mknodat(fd, name, unix.S_IFCHR, 0)
	if err == syscall.EEXIST {
		if err = u.clear(dir, fd, name); err == nil {
			err = unix.Mknodat(fd, name, unix.S_IFCHR, 0)
		}
	}
	return err
}

// marker makes a file that aufs understands.
func marker(dir int, name string) error {
	fd, err := create(dir, name, 0o400)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// opaque writes down that nothing of the lower layers is in a directory.
func (u *unpacker) opaque(n *node) error {
	if u.Form == Plain {
		return u.prune(n)
	}
	fd, err := u.tree.fd(n)
	if err != nil {
		return err
	}
	return u.setOpaque(fd)
}

func (u *unpacker) setOpaque(fd int) error {
	if u.Form == AUFS {
		return marker(fd, opaque)
	}
	return setOpaque(fd, u.Form)
}

func setOpaque(fd int, form Form) error {
	err := unix.Fsetxattr(fd, form.attr("opaque"), []byte("y"), 0)
	if errors.Is(err, syscall.EPERM) && form == Overlay {
		return fmt.Errorf("set trusted.overlay.opaque, which takes CAP_SYS_ADMIN of the host (UserOverlay takes none): %w", err)
	}
	if err != nil {
		return fmt.Errorf("set %s: %w", form.attr("opaque"), err)
	}
	return nil
}

// prune removes from a directory, and from those below it in which this layer has been, what is not this layer's. It goes from
// directory to directory without keeping any open, however deep they are.
func (u *unpacker) prune(n *node) error {
	if n.pruned { // all that is there is this layer's
		return nil
	}
	visited := []*node{n}
	for i := 0; i < len(visited); i++ {
		visited[i].pruned = true
		for removed := true; removed; {
			var below []*node
			var err error
			if removed, below, err = u.pruneOne(visited[i]); err != nil {
				return err
			}
			if !removed {
				visited = append(visited, below...)
			}
		}
		if err := u.ctx.Err(); err != nil {
			return err
		}
	}
	for i := len(visited) - 1; i >= 0; i-- {
		if err := u.removeEmpty(visited[i], n); err != nil {
			return err
		}
	}
	return nil
}

// removeEmpty removes a directory of the lower layers in which this layer has not left anything. The one that is opaque stays.
func (u *unpacker) removeEmpty(n, top *node) error {
	if n == top && n.parent == nil {
		return nil
	}
	if _, made := u.made[u.tree.key(n.parent, n.name)]; made || n == top && !u.deleting {
		return nil
	}
	u.crew.drain()
	fd, err := u.tree.fd(n.parent)
	if err != nil {
		return err
	}
	if err := unix.Unlinkat(fd, n.name, unix.AT_REMOVEDIR); err == syscall.ENOTEMPTY || err == syscall.EEXIST {
		return nil
	} else if err != nil && err != syscall.ENOENT {
		return err
	}
	u.tree.forget(n.parent, n.name)
	return nil
}

// pruneOne goes once through a directory. While names are removed, others may be passed over.
func (u *unpacker) pruneOne(n *node) (removed bool, below []*node, err error) {
	fd, err := u.tree.fd(n)
	if err != nil {
		return false, nil, err
	}
	b := make([]byte, 32<<10)
	names, err := someNames(fd)
	for ; err == nil && len(names) > 0; names, err = moreNames(fd, b) {
		for _, name := range names {
			if sub := u.tree.children[child{n, name}]; sub != nil {
				below = append(below, sub)
				continue
			}
			if _, made := u.made[u.tree.key(n, name)]; made {
				continue
			}
			removed = true
			if err := removeAll(fd, name); err != nil {
				return false, nil, err
			}
		}
	}
	return removed, below, err
}
