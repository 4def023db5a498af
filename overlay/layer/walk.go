//go:build linux

package layer

import (
	"archive/tar"
	"errors"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// found is a name in a directory.
type found struct {
	name string
	st   unix.Stat_t
}

func (f *found) kind() uint32 { return f.st.Mode & unix.S_IFMT }
func (f *found) isDir() bool  { return f.kind() == unix.S_IFDIR }

// list gives the names in a directory, sorted.
func (k *packer) list(t *tree, n *node) ([]found, error) {
	fd, err := t.fd(n)
	if err != nil {
		return nil, err
	}
	var list []found
	b := make([]byte, 32<<10)
	names, err := someNames(fd)
	for ; err == nil && len(names) > 0; names, err = moreNames(fd, b) {
		for _, name := range names {
			f := found{name: name}
			switch e := unix.Fstatat(fd, name, &f.st, unix.AT_SYMLINK_NOFOLLOW); e {
			case nil:
				list = append(list, f)
			case syscall.ENOENT: // removed meanwhile
			default:
				return nil, e
			}
		}
	}
	slices.SortFunc(list, func(a, b found) int { return strings.Compare(a.name, b.name) })
	return list, err
}

// whiteouts writes what is deleted in a directory, and gives the rest. What an archive would take for a whiteout and is none is refused: a sandbox
// must not delete in the layer's name.
func (k *packer) whiteouts(n *node, list []found) ([]found, error) {
	extended, err := k.extended(n)
	if err != nil {
		return nil, err
	}
	rest := list[:0]
	for _, f := range list {
		hides := false
		name := f.name
		switch {
		case k.Form == AUFS && strings.HasPrefix(name, special) && name != opaque:
			continue // aufs's own
		case k.Form == AUFS && strings.HasPrefix(name, whiteout):
			if _, err := hidden(name); err != nil {
				return nil, k.at(name, err)
			}
			hides, name = true, strings.TrimPrefix(name, whiteout)
		case strings.HasPrefix(name, whiteout):
			return nil, k.at(name, refuse(IsWhiteout, ""))
		case isWhiteout(f.st.Mode, uint64(f.st.Rdev)):
			if !k.Form.kernels() {
				return nil, k.at(name, refuse(IsWhiteout, ""))
			}
			hides = true
		case extended && f.kind() == unix.S_IFREG && f.st.Size == 0:
			if hides, err = k.isExtended(n, name); err != nil {
				return nil, k.at(name, err)
			}
		}
		if !hides {
			rest = append(rest, f)
		} else if err := k.deleted(string(k.path), whiteout+name); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

func (k *packer) at(name string, err error) error { return fail("diff", string(k.path)+name, err) }

// extended reports whether whiteouts in a directory may be files with an attribute (Linux 6.7): opaque says "x" then.
func (k *packer) extended(n *node) (bool, error) {
	if !k.Form.kernels() {
		return false, nil
	}
	fd, err := k.tree.fd(n)
	if err != nil {
		return false, err
	}
	value, err := openFile(fd).read(k.Form.attr("opaque"))
	if err == syscall.ENODATA || err == syscall.ENOTSUP {
		err = nil
	}
	return value == "x", err
}

func (k *packer) isExtended(n *node, name string) (bool, error) {
	fd, err := k.tree.fd(n)
	if err != nil {
		return false, err
	}
	_, err = named(fd, name).read(k.Form.attr("whiteout"))
	if err == syscall.ENODATA || err == syscall.ENOTSUP {
		return false, nil
	}
	return err == nil, err
}

// file packs what is no directory.
func (k *packer) file(n *node, f found) error {
	name := string(k.path) + f.name
	k.entry = name
	fd, err := k.tree.fd(n)
	if err != nil {
		return err
	}
	h := header(name, &f.st)
	id := inode{uint64(f.st.Dev), f.st.Ino}
	if first, ok := k.links[id]; ok && f.st.Nlink > 1 {
		h.Typeflag, h.Linkname = tar.TypeLink, first
		return k.write(h)
	}
	switch f.kind() {
	case unix.S_IFREG:
		h.Typeflag = tar.TypeReg
		err = k.regular(fd, f, h)
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = readlinkat(fd, f.name); err == nil {
			err = k.plain(fd, f, h)
		}
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
		err = k.plain(fd, f, h)
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeBlock
		if f.kind() == unix.S_IFCHR {
			h.Typeflag = tar.TypeChar
		}
		h.Devmajor, h.Devminor = int64(unix.Major(uint64(f.st.Rdev))), int64(unix.Minor(uint64(f.st.Rdev)))
		err = k.plain(fd, f, h)
	default: // a socket, which archives do not have
		k.totals.Skipped++
		return nil
	}
	if err == nil && f.st.Nlink > 1 {
		k.links[id] = name
	}
	return err
}

func (k *packer) plain(dir int, f found, h *tar.Header) error {
	if _, err := k.attrs(h, named(dir, f.name)); err != nil {
		return err
	}
	return k.write(h)
}

// regular packs a file with its contents. It is opened only when it is known to be a regular one, which nobody can exchange any more.
func (k *packer) regular(dir int, f found, h *tar.Header) error {
	fd, err := k.reopen(dir, f)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if !same(&st, &f.st) {
		return refuse(IsChanged, "")
	}
	if _, err := k.attrs(h, openFile(fd)); err != nil {
		return err
	}
	h.Size = st.Size
	if err := k.write(h); err != nil {
		return err
	}
	k.totals.Files++
	if err := k.contents(fd, st.Size); err != nil {
		return err
	}
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if !same(&st, &f.st) {
		return refuse(IsChanged, "")
	}
	return nil
}

// same reports whether nothing has been done to a file meanwhile. The time of change is the kernel's, nobody can set it back.
func same(a, b *unix.Stat_t) bool {
	return a.Dev == b.Dev && a.Ino == b.Ino && a.Mode == b.Mode && a.Size == b.Size && a.Mtim == b.Mtim && a.Ctim == b.Ctim
}

// reopen opens the regular file that was found. Whatever has been put in its place is not opened.
func (k *packer) reopen(dir int, f found) (int, error) {
	place, err := unix.Openat(dir, f.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(place)
	var st unix.Stat_t
	if err := unix.Fstat(place, &st); err != nil {
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, refuse(IsChanged, "")
	}
	// Nonblocking: a lease that somebody holds would make us wait.
	r, err := k.proc.Reopen(place, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return -1, refuse(IsBusy, "")
	}
	if err != nil {
		return -1, err
	}
	defer r.Close()
	return unix.FcntlInt(r.Fd(), unix.F_DUPFD_CLOEXEC, 3)
}

func (k *packer) contents(fd int, size int64) error {
	if k.buffer == nil {
		k.buffer = make([]byte, blockSize)
	}
	for size > 0 {
		n, err := unix.Read(fd, k.buffer[:min(size, blockSize)])
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return refuse(IsChanged, "") // shorter than it was
		}
		if _, err := k.tar.Write(k.buffer[:n]); err != nil {
			return err
		}
		size -= int64(n)
		k.totals.Bytes += int64(n)
		if err := k.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}
