//go:build linux

package layer

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// unpacker is one unpacking. Everything but the contents of files is done by one goroutine, in the order of the archive.
type unpacker struct {
	Unpack
	ctx      context.Context
	tree     *tree
	in       *ahead
	crew     *crew
	tar      *tar.Reader         // nil: entries have been read since without it
	header   tar.Header          // of an entry read without it
	content  io.Reader           // of the entry's contents
	left     int64               // bytes of them, with what follows, that have not been read
	known    bool                // left is right
	entry    string              // under way
	made     map[uint64]struct{} // keys of what this layer has put there: whiteouts do not concern it
	kept     int                 // bytes of attributes of directories
	implied  int64               // directories that no entry has named
	deleting bool                // a directory as such, and not only what is in it
	totals   Totals
	said     time.Time // when progress was reported
}

func (u *unpacker) run() error {
	u.tree.ready, u.tree.missing, u.tree.replaced = u.crew.ready, u.makeParent, u.uncover
	u.tree.loosen = unix.Geteuid() != 0
	err := u.entries()
	if e := u.crew.close(); err == nil {
		err = e
	}
	if err == nil {
		u.entry = ""
		err = u.finish()
	}
	return err
}

func (u *unpacker) entries() error {
	u.known = true
	for {
		if err := errors.Join(u.ctx.Err(), u.crew.failure()); err != nil {
			return err
		}
		u.in.zero = false
		h, err := u.next()
		if err == io.EOF {
			return u.end()
		}
		if err != nil {
			return u.damaged(err)
		}
		u.entry = h.Name
		u.totals.Entries++
		if err := u.count(); err != nil {
			return err
		}
		if err := u.one(h); err != nil {
			return err
		}
		u.report(time.Now())
	}
}

// count refuses too many names. A single entry can have thousands of directories on its way, so those count, too.
func (u *unpacker) count() error {
	if u.totals.Entries+u.implied > u.Limits.Entries {
		return refuse(IsTooMany, "")
	}
	return nil
}

// end reads what follows the archive: the checksum of a compressed layer comes last.
func (u *unpacker) end() error {
	u.entry = ""
	if !u.in.zero {
		return &corrupt{io.ErrUnexpectedEOF} // cut off between two entries
	}
	b := u.crew.buffer()
	defer u.crew.release(b)
	for left := u.Limits.Bytes; ; {
		n, err := u.in.Read(b)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return u.damaged(err)
		}
		if left -= int64(n); left < 0 {
			return refuse(IsTooLarge, "")
		}
	}
}

// damaged says what is wrong with the archive, or with what it comes from.
func (u *unpacker) damaged(err error) error {
	var r *RefusedError
	switch {
	case u.in.err != nil && u.in.err != io.EOF:
		return u.in.err
	case errors.As(err, &r):
		return err
	case err == tar.ErrFieldTooLong:
		return refuse(IsHeader, "")
	}
	return &corrupt{err}
}

// report tells the caller how far it is: at the end, which the zero time stands for, and now and then.
func (u *unpacker) report(now time.Time) {
	if u.Progress != nil && (now.IsZero() || now.Sub(u.said) >= time.Second/10) {
		u.said = now
		u.Progress(u.totals)
	}
}

func (u *unpacker) one(h *tar.Header) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	p, err := parseName(h.Name)
	if err != nil {
		return err
	}
	if strings.HasPrefix(p.base, whiteout) {
		return u.whiteout(p, h)
	}
	m, err := u.metaOf(h)
	if err != nil {
		return err
	}
	if p.base == "" {
		if h.Typeflag != tar.TypeDir {
			return refuse(IsRoot, "")
		}
		m.existed = true
		return u.describe(u.tree.root, m)
	}
	dir, err := u.tree.lookup(p.dir)
	if err != nil {
		return err
	}
	return u.place(h, m, dir, p.base)
}

// place puts an entry into its directory.
func (u *unpacker) place(h *tar.Header, m *meta, dir *node, name string) error {
	key := u.tree.key(dir, name)
	u.crew.ready(key)
	switch h.Typeflag {
	case tar.TypeDir:
		return u.directory(m, dir, name, key)
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.regular(h, m, dir, name, key)
	case tar.TypeLink:
		return u.link(h, dir, name, key)
	case tar.TypeSymlink:
		return u.other(m, dir, name, key, unix.S_IFLNK, func(fd int) error { return unix.Symlinkat(h.Linkname, fd, name) })
	case tar.TypeFifo:
		return u.other(m, dir, name, key, unix.S_IFIFO, func(fd int) error { return unix.Mknodat(fd, name, unix.S_IFIFO|m.mode&0o777, 0) })
	case tar.TypeChar:
		return u.device(h, m, dir, name, key, unix.S_IFCHR)
	case tar.TypeBlock:
		return u.device(h, m, dir, name, key, unix.S_IFBLK)
	}
	return refuse(IsUnknown, string(h.Typeflag))
}

// makeParent makes a directory that no entry has named.
func (u *unpacker) makeParent(n *node, name string) error {
	u.implied++
	if err := u.count(); err != nil {
		return err
	}
	dir, err := u.tree.fd(n)
	if err != nil {
		return err
	}
	if err := unix.Mkdirat(dir, name, 0o700); err != nil {
		return err
	}
	u.made[u.tree.key(n, name)] = struct{}{}
	fd, _, err := u.tree.openOwn(dir, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fchmod(fd, 0o755) // whatever the umask
}

// uncover makes a directory on the way out of a whiteout that came before it: of the lower layers nothing is seen in it.
func (u *unpacker) uncover(n *node, name string) (bool, error) {
	dir, err := u.tree.fd(n)
	if err != nil || !u.Form.kernels() {
		return false, err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || !isWhiteout(st.Mode, uint64(st.Rdev)) {
		return false, err
	}
	if err := unix.Unlinkat(dir, name, 0); err != nil {
		return false, err
	}
	if err := u.makeParent(n, name); err != nil {
		return false, err
	}
	fd, err := openDir(dir, name)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	return true, u.setOpaque(fd)
}

// clear removes what is in the place of an entry.
func (u *unpacker) clear(dir *node, fd int, name string) error {
	if u.tree.children[child{dir, name}] != nil {
		u.crew.drain() // files are perhaps being made below
		u.tree.forget(dir, name)
	}
	return removeAll(fd, name)
}

// afresh calls make, and again when it has removed what is in the way.
func (u *unpacker) afresh(dir *node, name string, key uint64, make func(fd int) error) (int, error) {
	fd, err := u.tree.fd(dir)
	if err != nil {
		return -1, err
	}
	u.made[key] = struct{}{}
	for range 10 { // rounds lost to somebody who makes the same name
		if err = make(fd); err != syscall.EEXIST {
			return fd, err
		}
		if err := u.clear(dir, fd, name); err != nil {
			return -1, err
		}
	}
	return -1, err
}
