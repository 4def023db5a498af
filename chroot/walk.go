//go:build linux

package chroot

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const maxLinks = 40 // as the kernel has it, path_resolution(7)

// walker resolves a name word by word. Its trail remembers each directory between the root and where it is, so that ".." is a
// step back to where it came from: it cannot leave.
type walker struct {
	trail
	rest   []string // words to go
	links  int
	dir    bool // what is found must be a directory
	strict bool // no link is followed
}

// walkTo is openat2 by hand, with O_PATH.
func (r *Root) walkTo(name string, flags int, strict bool) (int, error) {
	w, err := r.walkThrough(name, flags&unix.O_NOFOLLOW == 0, strict)
	if err != nil {
		return -1, err
	}
	defer w.restart()
	if flags&unix.O_DIRECTORY != 0 && !isDir(w.top()) {
		return -1, syscall.ENOTDIR
	}
	return unix.FcntlInt(uintptr(w.top()), unix.F_DUPFD_CLOEXEC, 3)
}

// walkThrough gives the walker at the end of name. It begins anew when somebody has moved what it was in: EAGAIN.
func (r *Root) walkThrough(name string, follow, strict bool) (w *walker, err error) {
	for range 100 {
		w = &walker{trail: trail{root: int(r.dir.Fd()), flags: unix.O_PATH}, strict: strict}
		if err = w.walk(name, follow); err == nil {
			return w, nil
		}
		w.restart()
		if err != syscall.EAGAIN {
			break
		}
	}
	return nil, err
}

// walk goes to the end of name.
func (w *walker) walk(name string, follow bool) error {
	if name == "" || strings.IndexByte(name, 0) >= 0 {
		return emptyOrNUL(name)
	}
	if len(name) >= unix.PathMax {
		return syscall.ENAMETOOLONG
	}
	w.push(name)
	for len(w.rest) > 0 {
		word := w.rest[0]
		w.rest = w.rest[1:]
		if err := w.step(word, follow || len(w.rest) > 0 || w.dir); err != nil {
			return err
		}
	}
	if w.dir && !isDir(w.top()) {
		return syscall.ENOTDIR
	}
	return nil
}

// push puts the words of a path before those that are to go.
func (w *walker) push(name string) {
	var words []string
	for word := range strings.SplitSeq(name, "/") {
		if word != "" {
			words = append(words, word)
		}
	}
	if strings.HasSuffix(name, "/") && len(w.rest) == 0 {
		w.dir = true
	}
	if strings.HasPrefix(name, "/") {
		w.restart()
	}
	w.rest = append(words, w.rest...)
}

func (w *walker) step(word string, follow bool) error {
	if word == "." || word == ".." {
		// The kernel asks for the right to search the directory that is left.
		var st unix.Stat_t
		if err := unix.Fstatat(w.top(), word, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if word == ".." {
			return w.up()
		}
		return nil
	}
	fd, err := unix.Openat(w.top(), word, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK && follow {
		defer unix.Close(fd)
		return w.follow(fd)
	}
	return w.down(fd, word)
}

func (w *walker) follow(link int) error {
	if w.links++; w.links > maxLinks {
		return syscall.ELOOP
	}
	if w.strict || w.magic(link) {
		return syscall.ELOOP
	}
	to, err := readlinkat(link, "")
	if err != nil {
		return err
	}
	if to == "" {
		return syscall.ENOENT
	}
	w.push(to)
	return nil
}

// magic reports whether a link leads to what a process has open and not to its text: all links of /proc but those in its root directory.
func (w *walker) magic(link int) bool {
	var fs unix.Statfs_t
	if unix.Fstatfs(link, &fs) != nil {
		return true
	}
	switch int64(fs.Type) {
	case unix.PROC_SUPER_MAGIC:
		var st unix.Stat_t
		const rootInode = 1
		return unix.Fstat(w.top(), &st) != nil || st.Ino != rootInode
	case unix.AAFS_MAGIC, unix.NSFS_MAGIC:
		return true
	}
	return false
}

func isDir(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}
