//go:build linux

package layer

import (
	"archive/tar"
	"fmt"
	"math"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// meta is what a file is like, apart from its contents.
type meta struct {
	uid, gid int // -1: the caller's
	mode     uint32
	mtime    time.Time
	attrs    []attr
	existed  bool // it may have attributes that are not ours: it was there before, or has inherited a list
}

// metaOf reads a header. An id of -1 would tell the kernel to leave the owner alone.
func (u *unpacker) metaOf(h *tar.Header) (*meta, error) {
	if h.Uid < 0 || h.Gid < 0 || uint64(h.Uid) >= math.MaxUint32 || uint64(h.Gid) >= math.MaxUint32 {
		return nil, refuse(IsBadOwner, fmt.Sprintf("%d:%d", h.Uid, h.Gid))
	}
	m := &meta{uid: h.Uid, gid: h.Gid, mode: uint32(h.Mode) & 0o7777, mtime: h.ModTime}
	if u.Unprivileged {
		m.uid, m.gid = -1, -1
		if h.Typeflag != tar.TypeDir {
			m.mode &^= unix.S_ISUID | unix.S_ISGID
		}
	}
	skipped := 0
	var err error
	m.attrs, skipped, err = attrsOf(h, u.Unprivileged)
	u.totals.Skipped += int64(skipped)
	return m, err
}

// weight is what the attributes take of memory.
func (m *meta) weight() (n int) {
	for _, a := range m.attrs {
		n += len(a.name) + len(a.value)
	}
	return n
}

// describe notes what a directory is to be like in the end. There may be millions of them.
func (u *unpacker) describe(n *node, m *meta) error {
	if n.meta != nil {
		u.kept -= n.meta.weight()
	}
	n.meta = m
	if u.kept += m.weight(); u.kept > attrsKept {
		return refuse(IsBadAttr, "too many of directories")
	}
	return nil
}

// set describes an open file or directory, which is now like st.
func (m *meta) set(fd int, st *unix.Stat_t) error {
	chowned := m.foreign(st)
	if chowned {
		if err := unix.Fchown(fd, m.uid, m.gid); err != nil {
			return fmt.Errorf("%w %d:%d: %w", errOwner, m.uid, m.gid, err)
		}
	}
	if (len(m.attrs) > 0 || m.existed) && st.Mode&0o200 == 0 { // attributes of user want the right to write
		if err := unix.Fchmod(fd, 0o700); err != nil {
			return err
		}
	}
	if err := m.setAttrs(openFile(fd)); err != nil {
		return err
	}
	// Set-user-ID bits do not survive a write or another owner, and a list changes the mode.
	if chowned || m.mode&0o7000 != 0 || st.Mode&0o7777 != m.mode || m.existed || len(m.attrs) > 0 {
		if err := unix.Fchmod(fd, m.mode); err != nil {
			return err
		}
	}
	return m.setTime(fd)
}

// setByPath is set for what has been opened as a place only (O_PATH).
func (m *meta) setByPath(fd int, st *unix.Stat_t) error {
	if m.foreign(st) {
		if err := unix.Fchownat(fd, "", m.uid, m.gid, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("%w %d:%d: %w", errOwner, m.uid, m.gid, err)
		}
	}
	link := st.Mode&unix.S_IFMT == unix.S_IFLNK
	if m.existed && !link || len(m.attrs) > 0 {
		f, err := openPlace(fd)
		if err != nil {
			return err
		}
		if err := m.setAttrs(f); err != nil {
			return err
		}
	}
	if !link {
		if err := chmodPlace(fd, m.mode); err != nil {
			return err
		}
	}
	return m.setTime(fd)
}

func (m *meta) foreign(st *unix.Stat_t) bool {
	return m.uid >= 0 && (m.uid != int(st.Uid) || m.gid != int(st.Gid))
}

// setTime sets the times of modification and access; the time of change is the kernel's.
func (m *meta) setTime(fd int) error {
	ts, err := unix.TimeToTimespec(m.mtime)
	if err != nil {
		return err // on 32 bits a time after 2038
	}
	return unix.UtimesNanoAt(fd, "", []unix.Timespec{ts, ts}, unix.AT_EMPTY_PATH)
}

// chmodPlace changes the mode of a fifo or device: fchmod(2) refuses places, and /proc/self/fd leads to just this one.
func chmodPlace(fd int, mode uint32) error {
	if err := ownProc(); err != nil {
		return err
	}
	return unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode)
}

// ownProc makes sure that /proc is a procfs.
func ownProc() error {
	var fs unix.Statfs_t
	if err := unix.Statfs("/proc/self/fd", &fs); err != nil {
		return err
	}
	if int64(fs.Type) != unix.PROC_SUPER_MAGIC {
		return fmt.Errorf("/proc is no procfs: %w", unix.EINVAL)
	}
	return nil
}

// finish describes all directories, now that nothing is made in them any more. First those on the way must stay passable.
func (u *unpacker) finish() error {
	var closed []*node
	for _, n := range u.tree.all {
		if n.dead = n.dead || n.parent != nil && n.parent.dead; n.dead {
			continue
		}
		n.loosened = n.loosened && n.meta == nil
		if n.meta == nil && !n.loosened {
			continue
		}
		if err := u.finishOne(n, &closed); err != nil {
			return fail("apply", n.path(), err)
		}
		if err := u.ctx.Err(); err != nil {
			return err
		}
	}
	for i := len(closed) - 1; i >= 0; i-- {
		fd, err := u.tree.fd(closed[i])
		if err == nil {
			err = unix.Fchmod(fd, closed[i].final())
		}
		if err != nil {
			return fail("apply", closed[i].path(), err)
		}
	}
	return nil
}

func (u *unpacker) finishOne(n *node, closed *[]*node) error {
	fd, err := u.tree.fd(n)
	if err != nil {
		return err
	}
	if n.final()&0o700 != 0o700 && n.parent != nil {
		*closed = append(*closed, n)
		if n.loosened {
			return nil
		}
	}
	if n.loosened {
		return unix.Fchmod(fd, n.mode)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	m := *n.meta
	m.mode |= 0o700
	if n.parent == nil {
		m.mode = n.meta.mode
	}
	if n.parent != nil && n.parent.inherits {
		m.existed = true
	}
	return m.set(fd, &st)
}

// final is the mode that a directory is to have.
func (n *node) final() uint32 {
	if n.meta != nil {
		return n.meta.mode
	}
	return n.mode
}

// path is for errors; it stays readable, whatever the depth.
func (n *node) path() string {
	name := n.name
	for n = n.parent; n != nil && n.parent != nil && len(name) < 4096; n = n.parent {
		name = n.name + "/" + name
	}
	return name
}
