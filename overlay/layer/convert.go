//go:build linux

package layer

import (
	"context"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Convert changes in place how a directory says what is deleted: from the kernel's overlay to aufs, back, or between the two forms of overlay. What is
// converted already is left alone, so that a conversion that was interrupted can be done again. Times of modification of directories stay. Plain has no whiteouts, and is an EINVAL.
//
// The directory must not be mounted meanwhile. Errors are [*Error].
func Convert(ctx context.Context, dir string, from, to Form) error {
	if from > AUFS || to > AUFS || from == Plain || to == Plain {
		return fail("convert", "", errBadValue)
	}
	if from == Overlay {
		if err := seesTrusted(); err != nil {
			return err
		}
	}
	t, err := openTree(dir, NoLimit)
	if err != nil {
		return fail("convert", "", err)
	}
	defer t.close()
	c := &converter{packer: packer{Pack: Pack{Form: from}, ctx: ctx, tree: t}, to: to}
	if from == to {
		return nil
	}
	err = c.visit(t.root, c.directory)
	return fail("convert", c.entry, err)
}

type converter struct {
	packer
	to Form
}

func (c *converter) directory(v *visit) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	list, err := c.list(c.tree, v.node)
	if err != nil {
		return err
	}
	extended, err := c.extended(v.node)
	if err != nil {
		return err
	}
	for _, f := range list {
		if err := c.convert(v, f, extended); err != nil {
			return err
		}
	}
	c.entry = string(c.path)
	fd, err := c.tree.fd(v.node)
	if err == nil {
		err = c.opaqueDir(fd)
	}
	if err == nil {
		err = unix.UtimesNanoAt(fd, "", []unix.Timespec{v.st.Mtim, v.st.Mtim}, unix.AT_EMPTY_PATH)
	}
	return err
}

func (c *converter) convert(v *visit, f found, extended bool) error {
	if f.isDir() {
		return c.down(v.node, f.name, c.directory)
	}
	c.entry = string(c.path) + f.name
	fd, err := c.tree.fd(v.node)
	if err != nil {
		return err
	}
	if c.Form == AUFS {
		return c.fromMarker(fd, f.name)
	}
	if strings.HasPrefix(f.name, whiteout) {
		return nil // of a conversion before this one; Diff refuses any other
	}
	hides := isWhiteout(f.st.Mode, uint64(f.st.Rdev))
	if !hides && extended && f.kind() == unix.S_IFREG && f.st.Size == 0 {
		if hides, err = c.isExtended(v.node, f.name); err != nil {
			return err
		}
	}
	if !hides {
		return c.complete(fd, f)
	}
	if c.to == AUFS {
		if err = marker(fd, whiteout+f.name); err != nil {
			return err
		}
	} else if isWhiteout(f.st.Mode, uint64(f.st.Rdev)) {
		return nil // the same in both
	}
	if err = unix.Unlinkat(fd, f.name, 0); err == nil && c.to != AUFS {
		err = unix.Mknodat(fd, f.name, unix.S_IFCHR, 0)
	}
	return err
}

// complete refuses a file whose contents are elsewhere.
func (c *converter) complete(dir int, f found) error {
	for _, name := range []string{"metacopy", "redirect"} {
		if _, err := named(dir, f.name).read(c.Form.attr(name)); err == nil {
			return refuse(IsNeedsLower, c.Form.attr(name))
		}
	}
	return nil
}

// fromMarker turns a file of aufs's into what the kernel has; the new one comes first.
func (c *converter) fromMarker(dir int, name string) error {
	if !strings.HasPrefix(name, whiteout) {
		return nil
	}
	if strings.HasPrefix(name, special) && name != opaque {
		return unix.Unlinkat(dir, name, 0) // aufs's own
	}
	hiding, err := hidden(name)
	if err != nil {
		return err
	}
	if hiding == "" {
		err = setOpaque(dir, c.to)
	} else if err = unix.Mknodat(dir, hiding, unix.S_IFCHR, 0); err == syscall.EEXIST {
		err = c.cover(dir, hiding)
	}
	if err != nil {
		return err
	}
	return unix.Unlinkat(dir, name, 0)
}

// cover makes a directory opaque that stands beside a whiteout of its own name. Files cover what is below by themselves.
func (c *converter) cover(dir int, name string) error {
	fd, err := openDir(dir, name)
	if err == syscall.ENOTDIR || err == syscall.ELOOP {
		return nil
	}
	if err != nil {
		return crossing(err)
	}
	defer unix.Close(fd)
	return setOpaque(fd, c.to)
}

// opaqueDir writes down in the other form that a directory is opaque.
func (c *converter) opaqueDir(fd int) error {
	if !c.Form.kernels() {
		return nil
	}
	name := c.Form.attr("opaque")
	if _, err := openFile(fd).read(c.Form.attr("redirect")); err == nil {
		return refuse(IsNeedsLower, c.Form.attr("redirect"))
	}
	value, err := openFile(fd).read(name)
	if err == syscall.ENODATA || err == syscall.ENOTSUP {
		return nil
	}
	if err == nil && value == "y" {
		if c.to == AUFS {
			err = marker(fd, opaque)
		} else {
			err = setOpaque(fd, c.to)
		}
	}
	if err != nil {
		return err
	}
	return unix.Fremovexattr(fd, name)
}
