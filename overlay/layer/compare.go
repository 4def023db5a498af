//go:build linux

package layer

import (
	"bytes"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// against packs what is different in a lower tree.
func (k *packer) against(lower string) (err error) {
	if k.lower, err = openTree(lower, NoLimit); err != nil {
		return &Error{Op: "diff", Entry: lower, Err: err}
	}
	return k.visit(k.tree.root, func(v *visit) error { return k.compare(k.lower.root, v) })
}

// compare packs what has changed in a directory that is in both trees.
func (k *packer) compare(lower *node, v *visit) error {
	old, err := k.list(k.lower, lower)
	if err != nil {
		return err
	}
	list, err := k.list(k.tree, v.node)
	if err != nil {
		return err
	}
	changed, err := k.dirChanged(lower, v)
	if err == nil && changed {
		err = k.flush()
	}
	if err == nil {
		err = k.missing(old, list)
	}
	if err == nil {
		list, err = k.whiteouts(v.node, list)
	}
	for i := 0; err == nil && i < len(list); i++ {
		err = k.compareOne(lower, v.node, find(old, list[i].name), list[i])
	}
	return err
}

// missing writes whiteouts for what is in the lower tree only.
func (k *packer) missing(old, list []found) error {
	for _, f := range old {
		if find(list, f.name) != nil {
			continue
		}
		err := k.flush()
		if err == nil {
			err = k.deleted(string(k.path), whiteout+f.name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func find(list []found, name string) *found {
	i, ok := slices.BinarySearchFunc(list, name, func(f found, name string) int { return strings.Compare(f.name, name) })
	if !ok {
		return nil
	}
	return &list[i]
}

func (k *packer) compareOne(lower, upper *node, old *found, f found) error {
	k.entry = string(k.path) + f.name
	if old == nil || old.kind() != f.kind() {
		if f.isDir() {
			return k.down(upper, f.name, k.directory)
		}
		return k.changed(upper, f)
	}
	if !f.isDir() {
		same, err := k.unchanged(lower, upper, old, f)
		if err != nil || same {
			return err
		}
		return k.changed(upper, f)
	}
	sub, err := k.lower.enter(lower, f.name)
	if err != nil {
		return err
	}
	defer k.lower.leave(sub)
	return k.down(upper, f.name, func(v *visit) error { return k.compare(sub, v) })
}

func (k *packer) changed(n *node, f found) error {
	if err := k.flush(); err != nil {
		return err
	}
	return k.file(n, f)
}

func (k *packer) dirChanged(lower *node, v *visit) (bool, error) {
	old, err := k.lower.fd(lower)
	if err != nil {
		return false, err
	}
	fd, err := k.tree.fd(v.node)
	if err != nil {
		return false, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(old, &st); err != nil {
		return false, err
	}
	if !alike(&st, &v.st) || st.Mtim != v.st.Mtim {
		return true, nil
	}
	same, err := sameAttrs(openFile(old), openFile(fd))
	return !same, err
}

func alike(a, b *unix.Stat_t) bool { return a.Mode == b.Mode && a.Uid == b.Uid && a.Gid == b.Gid }

// unchanged reports whether a file that is no directory is the same in both trees.
func (k *packer) unchanged(lower, upper *node, old *found, f found) (bool, error) {
	a, b := &old.st, &f.st
	if a.Dev == b.Dev && a.Ino == b.Ino {
		return true, nil
	}
	if !alike(a, b) || a.Rdev != b.Rdev || a.Size != b.Size || a.Mtim != b.Mtim {
		return false, nil
	}
	from, err := k.lower.fd(lower)
	if err != nil {
		return false, err
	}
	to, err := k.tree.fd(upper)
	if err != nil {
		return false, err
	}
	same, err := sameAttrs(named(from, f.name), named(to, f.name))
	switch {
	case err != nil || !same:
		return false, err
	case f.kind() == unix.S_IFLNK:
		return sameLink(from, to, f.name)
	case f.kind() == unix.S_IFREG && k.Contents:
		return k.sameContents(from, to, old, f)
	}
	return true, nil
}

func sameLink(from, to int, name string) (bool, error) {
	a, err := readlinkat(from, name)
	if err != nil {
		return false, err
	}
	b, err := readlinkat(to, name)
	return a == b, err
}

// sameAttrs compares what layers carry of the attributes.
func sameAttrs(a, b attrFile) (bool, error) {
	one, err := ours(a)
	if err != nil {
		return false, err
	}
	two, err := ours(b)
	if err != nil || !slices.Equal(one, two) {
		return false, err
	}
	for _, name := range one {
		x, err := a.read(name)
		if err != nil && err != syscall.ENODATA {
			return false, err
		}
		y, err := b.read(name)
		if err != nil && err != syscall.ENODATA {
			return false, err
		}
		if x != y {
			return false, nil
		}
	}
	return true, nil
}

func ours(f attrFile) ([]string, error) {
	names, err := f.names()
	names = slices.DeleteFunc(names, func(name string) bool {
		keep, err := carried(name, false)
		return err != nil || !keep
	})
	slices.Sort(names)
	return names, err
}

func (k *packer) sameContents(from, to int, old *found, f found) (bool, error) {
	a, err := k.reopen(from, *old)
	if err != nil {
		return false, err
	}
	one := os.NewFile(uintptr(a), old.name)
	defer one.Close()
	b, err := k.reopen(to, f)
	if err != nil {
		return false, err
	}
	two := os.NewFile(uintptr(b), f.name)
	defer two.Close()
	x, y := make([]byte, 32<<10), make([]byte, 32<<10)
	for {
		n, e := io.ReadFull(one, x)
		m, err := io.ReadFull(two, y)
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if e == io.EOF || e == io.ErrUnexpectedEOF {
			return err == e, nil
		}
		if e != nil || err != nil {
			return false, firstError(e, err)
		}
		if err := k.ctx.Err(); err != nil {
			return false, err
		}
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
