//go:build linux

package lsm

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/deep"
)

// RelabelError says which file of a tree could not be relabelled.
type RelabelError struct {
	Path string // below the path that was given
	Err  error
}

// Error names the file.
func (e *RelabelError) Error() string { return "relabel " + printable(e.Path) + ": " + e.Err.Error() }

// Unwrap gives Err.
func (e *RelabelError) Unwrap() error { return e.Err }

// Relabel gives all files at and below path the context, as docker run -v does for :z (a context without categories, [Context.Shared]) and :Z (with
// those of one sandbox, [Context.With]). The path itself may be reached by symbolic links; below it none is followed, but labelled itself.
//
// The host stays as it is: directories of the system and their roots, the caller's home, /, are refused with EPERM; so is a file that has a hard link outside of the
// tree, where it may be anything. Mounts below path are EXDEV; a directory that is moved while we are far below it, ESTALE. Where the kernel does not have SELinux
// enabled, or the file system has no labels, the error is errors.ErrUnsupported. All this is known before
// the first file is changed; but something else may change the tree meanwhile. It needs CAP_MAC_ADMIN or the policy's permission, and to own the files or
// CAP_FOWNER.
func Relabel(path string, c Context) error { return here().relabel(path, c) }

const labelXattr = "security.selinux"

func (h host) relabel(path string, c Context) error {
	if err := c.check(); err != nil {
		return err
	}
	if _, err := h.need("selinux", ""); err != nil { // a label that nobody looks at
		return err
	}
	root, err := openPath(path, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	proc, err := host{}.openProc()
	if err != nil {
		return err
	}
	defer proc.Close()
	if err := h.refuseSystem(root, path); err != nil {
		return err
	}
	links := &linkCount{seen: map[inode]uint64{}, want: map[inode]uint64{}}
	if err := walk(root, path, links.count); err != nil {
		return err
	}
	if links.outside() {
		if err := walk(root, path, links.refuse); err != nil {
			return err
		}
		return &RelabelError{path, errOutside}
	}
	text := c.String()
	return walk(root, path, func(fd int, st unix.Stat_t) error {
		if err := links.still(st); err != nil {
			return err
		}
		return setLabel(proc, fd, text)
	})
}

// systemDirs are what everybody uses. What is below most of them can be relabelled, so that a volume may be there; but not what is below
// those of the second list.
var (
	systemDirs = []string{"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/libx32", "/media", "/mnt", "/opt", "/proc", "/root",
		"/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var", "/var/cache", "/var/lib", "/var/log", "/var/run", "/var/spool", "/var/tmp"}
	systemTrees = []string{"/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin", "/sys", "/usr"}
)

type inode struct{ dev, ino uint64 }

func inodeOf(st unix.Stat_t) inode { return inode{uint64(st.Dev), st.Ino} }

// refuseSystem compares inodes, not names: a link or a bind mount to /etc is /etc.
func (h host) refuseSystem(root *os.File, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &st); err != nil {
		return &RelabelError{path, err}
	}
	exact := systemDirs
	if home, err := os.UserHomeDir(); err == nil {
		exact = append(exact[:len(exact):len(exact)], home)
	}
	if dir := h.among(inodeOf(st), exact); dir != "" {
		return &RelabelError{path, fmt.Errorf("it is the system's %s: %w", dir, syscall.EPERM)}
	}
	return h.refuseBelow(root, path)
}

// among finds the directory that is the inode.
func (h host) among(i inode, dirs []string) string {
	for _, dir := range dirs {
		var st unix.Stat_t
		if unix.Stat(h.root+dir, &st) == nil && inodeOf(st) == i {
			return dir
		}
	}
	return ""
}

// refuseBelow goes up to the root. A file has no .., so its directory is that by which it was reached.
func (h host) refuseBelow(root *os.File, path string) error {
	dir, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(root.Fd())))
	if err != nil {
		return &RelabelError{path, bare(err)}
	}
	for dir != "/" && dir != "" {
		if dir = parent(dir); h.amongPath(dir) {
			return &RelabelError{path, fmt.Errorf("it is part of the system, in %s: %w", dir, syscall.EPERM)}
		}
	}
	return nil
}

func (h host) amongPath(dir string) bool {
	var st unix.Stat_t
	return unix.Stat(dir, &st) == nil && h.among(inodeOf(st), systemTrees) != ""
}

func parent(path string) string {
	for i := len(path) - 1; i > 0; i-- {
		if path[i] == '/' {
			return path[:i]
		}
	}
	return "/"
}

// linkCount finds files with hard links that are not in the tree.
type linkCount struct{ seen, want map[inode]uint64 }

var errOutside = fmt.Errorf("it has a hard link outside of the tree: %w", syscall.EPERM)

func (l *linkCount) count(_ int, st unix.Stat_t) error {
	if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
		i := inodeOf(st)
		l.seen[i]++
		l.want[i] = uint64(st.Nlink)
	}
	return nil
}

// still refuses a file that has got a further link since it was counted, or is one that was not there.
func (l *linkCount) still(st unix.Stat_t) error {
	if st.Mode&unix.S_IFMT == unix.S_IFDIR || st.Nlink <= 1 || l.want[inodeOf(st)] == uint64(st.Nlink) {
		return nil
	}
	return fmt.Errorf("it has got a hard link meanwhile: %w", syscall.EPERM)
}

func (l *linkCount) outside() bool {
	for i, n := range l.want {
		if l.seen[i] < n {
			return true
		}
	}
	return false
}

// refuse is for a further walk, which finds the name: to keep the names of all files that have links would take too much memory.
func (l *linkCount) refuse(_ int, st unix.Stat_t) error {
	if i := inodeOf(st); l.seen[i] < l.want[i] {
		return errOutside
	}
	return nil
}

// walk calls do for the file and for all below it, each by a descriptor that nothing can replace. No file is opened: a fifo or device only looked at.
// The tree may be deeper than there are descriptors.
func walk(root *os.File, path string, do func(fd int, st unix.Stat_t) error) error {
	look := func(fd int) (dir bool, err error) {
		var st unix.Stat_t
		if err = unix.Fstat(fd, &st); err == nil {
			err = do(fd, st)
		}
		return st.Mode&unix.S_IFMT == unix.S_IFDIR, err
	}
	dir, err := look(int(root.Fd()))
	if err != nil {
		return &RelabelError{path, err}
	}
	if !dir {
		return nil
	}
	t := deep.Tree{Names: namesIn, Open: openBelow, Before: func(fd int, _ deep.Path) (bool, error) { return look(fd) }}
	err = t.Walk(int(root.Fd()))
	var at *deep.Error
	if errors.As(err, &at) {
		return &RelabelError{strings.TrimSuffix(path+"/"+at.Path, "/"), at.Err}
	}
	return err
}

// openBelow opens a place in a directory, and no mount; -1 is one that has gone.
func openBelow(dir int, name string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV}
	fd, err := retry(func() (int, error) { return unix.Openat2(dir, name, &how) })
	if err == syscall.ENOENT {
		return -1, nil
	}
	return fd, err
}

func namesIn(dir int) ([]string, error) {
	fd, err := retry(func() (int, error) { return unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "directory")
	defer f.Close()
	names, err := f.Readdirnames(-1)
	return names, bare(err)
}

// setLabel labels what is behind the descriptor, a symbolic link too: that of /proc leads to it and not on.
func setLabel(proc *os.File, fd int, text string) error {
	link := "/proc/self/fd/" + strconv.Itoa(fd)
	var at, own unix.Stat_t
	if unix.Fstat(int(proc.Fd()), &own) != nil || unix.Stat("/proc", &at) != nil || inodeOf(own) != inodeOf(at) {
		return syscall.EXDEV
	}
	return unix.Setxattr(link, labelXattr, []byte(text), 0)
}

// FileContext gives the context of the file behind f, which may be open with O_PATH. A file system without labels is errors.ErrUnsupported.
func FileContext(f *os.File) (Context, error) {
	b := make([]byte, labelSize)
	n, err := unix.Getxattr("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), labelXattr, b)
	if err == unix.ENODATA {
		return Context{}, unsupported("read the context of "+f.Name(), "it has none")
	}
	if err != nil {
		return Context{}, fail(err, "read the context of %s", f.Name())
	}
	return ParseContext(text(b[:n]))
}

// SetFileContext gives the file behind f the context. f may be open with O_PATH.
func SetFileContext(f *os.File, c Context) error {
	if err := c.check(); err != nil {
		return err
	}
	proc, err := here().openProc()
	if err != nil {
		return err
	}
	defer proc.Close()
	return fail(setLabel(proc, int(f.Fd()), c.String()), "label %s", f.Name())
}
