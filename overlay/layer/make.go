//go:build linux

package layer

import (
	"archive/tar"
	"io"
	"math"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// directory makes a directory, or takes the one that is there. What it shall be like in the end is set in the end: files are still to be made in it.
func (u *unpacker) directory(m *meta, dir *node, name string, key uint64) error {
	if dir.depth >= u.Limits.Depth {
		return refuse(IsTooDeep, "")
	}
	fd, err := u.tree.fd(dir)
	if err != nil {
		return err
	}
	covered := false
	if err = unix.Mkdirat(fd, name, 0o700); err == syscall.EEXIST {
		covered, m.existed, err = u.takeOver(dir, fd, name)
	}
	if err != nil {
		return err
	}
	u.made[key] = struct{}{}
	n, err := u.tree.step(dir, name)
	if err != nil {
		return err
	}
	if err := u.describe(n, m); err != nil || !covered {
		return err
	}
	return u.opaque(n)
}

// takeOver keeps a directory and replaces anything else by one. Where that was a whiteout of the kernel's, the directory must go on to cover
// what is below.
func (u *unpacker) takeOver(dir *node, fd int, name string) (covered, existed bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, false, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return false, true, nil
	}
	if err := u.clear(dir, fd, name); err != nil {
		return false, false, err
	}
	return u.Form.kernels() && isWhiteout(st.Mode, uint64(st.Rdev)), false, unix.Mkdirat(fd, name, 0o700)
}

// regular hands the contents of a file to the crew.
func (u *unpacker) regular(h *tar.Header, m *meta, dir *node, name string, key uint64) error {
	if h.Size > u.Limits.Bytes-u.totals.Bytes {
		return refuse(IsTooLarge, "")
	}
	fd, err := u.tree.fd(dir)
	if err != nil {
		return err
	}
	if u.tree.children[child{dir, name}] != nil {
		if err := u.clear(dir, fd, name); err != nil {
			return err
		}
	}
	u.made[key] = struct{}{}
	u.totals.Files++
	j := &job{dir: dir, fd: fd, name: strings.Clone(name), entry: strings.Clone(h.Name), key: key, meta: m, size: h.Size}
	if u.in.file != nil && h.Size >= blockSize && !isSparse(h) {
		j.from, j.at = u.in.file, u.in.pos
		u.totals.Bytes += h.Size
		u.crew.start(j)
		return u.ctx.Err()
	}
	if h.Size <= small && len(h.Name)+m.weight() <= small/8 { // a header can be a megabyte
		j.small = true
		if j.data, err = u.fill(u.crew.room(int(h.Size))); err != nil {
			return err
		}
		u.crew.start(j)
		return nil
	}
	if j.data, err = u.block(h.Size); err != nil {
		return err
	}
	left := h.Size - int64(len(j.data))
	if left > 0 {
		j.more = make(chan []byte, 4)
		defer close(j.more)
	}
	u.crew.start(j)
	for left > 0 {
		b, err := u.block(left)
		if err != nil {
			return err
		}
		j.more <- b
		left -= int64(len(b))
	}
	return nil
}

// isSparse reports whether the contents in the archive are not those of the file, byte by byte.
func isSparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}

// block reads the next part of a file.
func (u *unpacker) block(left int64) ([]byte, error) {
	// Holes of an archive are not read from anywhere, so nothing else would end a large one.
	if err := firstError(u.ctx.Err(), u.crew.failure()); err != nil {
		return nil, err
	}
	whole := u.crew.buffer()
	b, err := u.fill(whole[:min(left, blockSize)])
	if err != nil {
		u.crew.release(whole)
	}
	return b, err
}

// fill reads all of a part of a file.
func (u *unpacker) fill(b []byte) ([]byte, error) {
	n, err := io.ReadFull(u.content, b)
	u.left -= int64(n)
	if err != nil && len(b) > 0 {
		return nil, u.damaged(err)
	}
	u.totals.Bytes += int64(n)
	return b, nil
}

// link makes a hard link to what is in the tree. Symbolic links on the way to it stay inside, and one that it is itself is not followed.
func (u *unpacker) link(h *tar.Header, dir *node, name string, key uint64) error {
	p, err := parseName(h.Linkname)
	if err != nil || p.base == "" {
		return linkTarget(err, h.Linkname)
	}
	if strings.HasPrefix(p.base, whiteout) {
		return refuse(IsWhiteout, h.Linkname)
	}
	dir.refs.Add(1) // both directories stay open
	defer dir.refs.Add(-1)
	from, err := u.existing(p.dir)
	if err != nil {
		return linkTarget(err, h.Linkname)
	}
	from.refs.Add(1)
	defer from.refs.Add(-1)
	u.crew.ready(u.tree.key(from, p.base))
	source, err := u.tree.fd(from)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(source, p.base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return linkTarget(err, h.Linkname)
	}
	if isWhiteout(st.Mode, uint64(st.Rdev)) {
		return refuse(IsWhiteout, h.Linkname)
	}
	if from == dir && p.base == name {
		return nil // as GNU tar writes a file that it was told to take twice
	}
	_, err = u.afresh(dir, name, key, func(fd int) error { return unix.Linkat(source, p.base, fd, name, 0) })
	return err
}

// existing looks a directory up without making any.
func (u *unpacker) existing(dir string) (*node, error) {
	defer func() { u.tree.missing, u.tree.replaced = u.makeParent, u.uncover }()
	u.tree.missing, u.tree.replaced = nil, nil
	return u.tree.lookup(dir)
}

func linkTarget(err error, target string) error {
	switch e := err.(type) {
	case nil:
		return refuse(IsNoName, target)
	case *RefusedError:
		return refuse(e.Why, target)
	}
	return &Error{Op: "apply: link to", Entry: target, Err: err}
}

// device makes a device node where the caller wants it.
func (u *unpacker) device(h *tar.Header, m *meta, dir *node, name string, key uint64, kind uint32) error {
	if h.Devmajor < 0 || h.Devminor < 0 || h.Devmajor > math.MaxUint32 || h.Devminor > math.MaxUint32 {
		return refuse(IsDevice, "")
	}
	dev := unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
	if kind == unix.S_IFCHR && dev == 0 {
		return refuse(IsWhiteout, "")
	}
	switch {
	case u.Devices == SkipDevices:
		u.totals.Skipped++
		return nil
	case u.Devices != MakeDevices:
		return refuse(IsDevice, "")
	case uint64(dev) != uint64(int(dev)) || unix.Major(dev) != uint32(h.Devmajor) || unix.Minor(dev) != uint32(h.Devminor):
		return refuse(IsDevice, "")
	}
	return u.other(m, dir, name, key, kind, func(fd int) error { return unix.Mknodat(fd, name, kind|m.mode&0o777, int(dev)) })
}

// other makes what has no contents. It is described by way of a descriptor that does not open it (O_PATH), and only if it is what was made.
func (u *unpacker) other(m *meta, dir *node, name string, key uint64, kind uint32, make func(fd int) error) error {
	at, err := u.afresh(dir, name, key, make)
	if err != nil {
		return err
	}
	fd, err := unix.Openat(at, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != kind {
		return refuse(IsReplaced, "")
	}
	m.existed = dir.inherits
	return m.setByPath(fd, &st)
}
