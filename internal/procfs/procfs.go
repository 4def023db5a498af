//go:build linux

// Package procfs reads and writes the kernel's own file systems, /proc and /sys, in a way that nobody can redirect.
//
// A write to /proc decides about labels, parameters of the kernel and privileges, and whoever can mount something over /proc, or over a file in
// it, makes it a write to another file. So the file system is mounted anew and attached nowhere, where the caller may do so, and
// else the one at its usual place is verified: its magic number and its root. Below it no symbolic link is followed but /proc/self
// and /proc/thread-self, and no mount is entered.
package procfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// FS is a verified procfs or sysfs.
type FS struct {
	root     *os.File
	detached bool // attached nowhere: there are no mounts in it
	walk     bool // as if there were no openat2
}

// Open opens the procfs of the caller's pid namespace. To be closed by the caller.
func Open() (*FS, error) { return open("proc", "/proc", unix.PROC_SUPER_MAGIC) }

// OpenSys opens the sysfs of the caller's network namespace. To be closed by the caller.
func OpenSys() (*FS, error) { return open("sysfs", "/sys", unix.SYSFS_MAGIC) }

// OpenAt opens the procfs that is mounted at path, and verifies it.
func OpenAt(path string) (*FS, error) { return attached(path, unix.PROC_SUPER_MAGIC) }

func open(fstype, path string, magic int64) (*FS, error) {
	if fd, err := mount(fstype); err == nil {
		return verified(os.NewFile(uintptr(fd), path), magic, true)
	}
	return attached(path, magic)
}

// mount makes a detached mount (fsopen(2), fsmount(2), Linux 5.2). It takes CAP_SYS_ADMIN.
func mount(fstype string) (int, error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}

func attached(path string, magic int64) (*FS, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return verified(os.NewFile(uintptr(fd), path), magic, false)
}

// verified makes sure that f is the root of the file system that it should be.
func verified(f *os.File, magic int64, detached bool) (*FS, error) {
	var fs unix.Statfs_t
	var st unix.Stat_t
	fd := int(f.Fd())
	err := errors.Join(unix.Fstatfs(fd, &fs), unix.Fstat(fd, &st))
	if err == nil && (int64(fs.Type) != magic || st.Ino != 1) { // the root has the same number in both
		err = fmt.Errorf("not the root of the file system that belongs there: %w", syscall.EINVAL)
	}
	if err != nil {
		f.Close()
		return nil, &os.PathError{Op: "verify", Path: f.Name(), Err: err}
	}
	return &FS{root: f, detached: detached}, nil
}

// Close closes it.
func (s *FS) Close() error { return s.root.Close() }

// Detached reports whether the file system is a mount of our own, attached nowhere.
func (s *FS) Detached() bool { return s.detached }

// Read gives the contents of a file: "sys/kernel/ostype".
func (s *FS) Read(name string) (string, error) {
	f, err := s.open(name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	return string(b), err
}

// ReadProcess gives the contents of a file of a process.
func (s *FS) ReadProcess(pid int, name string) (string, error) {
	if pid <= 0 {
		return "", &os.PathError{Op: "open", Path: "/proc/" + strconv.Itoa(pid), Err: syscall.ESRCH}
	}
	return s.Read(strconv.Itoa(pid) + "/" + name)
}

// Write writes all of text in one call: the kernel takes a value whole or not at all, and what a second call would write could be a value of
// its own. Nothing is added. What is taken in part is an error, EIO.
func (s *FS) Write(name, text string) error {
	f, err := s.open(name, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := retry(func() (int, error) { return unix.Write(int(f.Fd()), []byte(text)) })
	if err == nil && n != len(text) {
		err = syscall.EIO
	}
	if err != nil {
		return &os.PathError{Op: "write", Path: f.Name(), Err: err}
	}
	return nil
}

// WriteVerified is Write, and reads back that the file now says text, white space apart.
func (s *FS) WriteVerified(name, text string) error {
	if err := s.Write(name, text); err != nil {
		return err
	}
	got, err := s.Read(name)
	if err == nil && strings.Join(strings.Fields(strings.TrimRight(got, "\x00")), " ") != strings.Join(strings.Fields(text), " ") {
		err = &os.PathError{Op: "write", Path: s.path(name), Err: fmt.Errorf("reads %q afterwards: %w", strings.TrimSpace(got), syscall.EIO)}
	}
	return err
}

// Reopen opens the file behind a descriptor of the caller's again, with other flags: what O_PATH has found and fstat(2) has
// judged. Nothing that has been put in its place meanwhile is opened.
func (s *FS) Reopen(fd int, flags int) (*os.File, error) {
	dir, err := s.open("self/fd", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	name := strconv.Itoa(fd)
	n, err := retry(func() (int, error) { return unix.Openat(int(dir.Fd()), name, flags|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, err
	}
	var before, after unix.Stat_t
	err = errors.Join(unix.Fstat(fd, &before), unix.Fstat(n, &after))
	if err == nil && (before.Dev != after.Dev || before.Ino != after.Ino || before.Mode&unix.S_IFMT != after.Mode&unix.S_IFMT) {
		err = syscall.EXDEV
	}
	if err != nil {
		unix.Close(n)
		return nil, err
	}
	return os.NewFile(uintptr(n), s.path("self/fd/"+name)), nil
}

func (s *FS) path(name string) string { return s.root.Name() + "/" + name }

func (s *FS) open(name string, flags int) (*os.File, error) {
	if !clean(name) {
		return nil, &os.PathError{Op: "open", Path: s.path(name), Err: syscall.EINVAL}
	}
	fd, err := s.openat2(name, flags)
	if s.walk || err == syscall.ENOSYS || err == syscall.EPERM && !haveOpenat2() {
		fd, err = s.walkTo(name, flags)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: s.path(name), Err: err}
	}
	return os.NewFile(uintptr(fd), s.path(name)), nil
}

// clean reports whether a name has plain words only.
func clean(name string) bool {
	for word := range strings.SplitSeq(name, "/") {
		if word == "" || word == "." || word == ".." || strings.ContainsRune(word, 0) {
			return false
		}
	}
	return true
}

func (s *FS) openat2(name string, flags int) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC | unix.O_NOFOLLOW, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS}
	name, err := s.ownLink(name)
	if err != nil {
		return -1, err
	}
	how.Resolve |= unix.RESOLVE_NO_SYMLINKS
	return retry(func() (int, error) { return unix.Openat2(int(s.root.Fd()), name, &how) })
}

// haveOpenat2 asks with an argument that the kernel refuses: an outer filter answers EPERM instead.
func haveOpenat2() bool {
	_, err := unix.Openat2(-1, "", &unix.OpenHow{Resolve: 1 << 63})
	return err == syscall.EINVAL
}

// ownLink replaces self and thread-self by what these two links say.
func (s *FS) ownLink(name string) (string, error) {
	first, rest, _ := strings.Cut(name, "/")
	if first != "self" && first != "thread-self" {
		return name, nil
	}
	b := make([]byte, 64)
	n, err := unix.Readlinkat(int(s.root.Fd()), first, b)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(string(b[:n])+"/"+rest, "/"), nil
}

// walkTo is openat2 by hand: one word after the other, over no link, within one mount.
func (s *FS) walkTo(name string, flags int) (int, error) {
	name, err := s.ownLink(name)
	if err != nil {
		return -1, err
	}
	at, err := unix.Dup(int(s.root.Fd()))
	words := strings.Split(name, "/")
	for i := 0; err == nil && i < len(words); i++ {
		last := i == len(words)-1
		want := unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
		var next int
		next, err = unix.Openat(at, words[i], want, 0)
		if err != nil {
			break
		}
		err = s.sameMount(next)
		if err == nil && last {
			unix.Close(next)
			next, err = retry(func() (int, error) { return unix.Openat(at, words[i], flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0) })
			if err == nil {
				err = s.sameMount(next)
			}
		}
		unix.Close(at)
		at = next
	}
	if err != nil && at >= 0 {
		unix.Close(at)
		at = -1
	}
	return at, err
}

// sameMount refuses what is mounted over something in the file system. There is nothing in a detached one.
func (s *FS) sameMount(fd int) error {
	var root, here unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID|unix.STATX_TYPE, &here); err != nil {
		return err
	}
	if here.Mode&unix.S_IFMT == unix.S_IFLNK {
		return syscall.ELOOP
	}
	if s.detached {
		return nil
	}
	if err := unix.Statx(int(s.root.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &root); err != nil {
		return err
	}
	switch {
	case here.Mask&root.Mask&unix.STATX_MNT_ID == 0:
		return errors.ErrUnsupported // before Linux 5.8
	case here.Mnt_id != root.Mnt_id:
		return syscall.EXDEV
	}
	return nil
}

func retry(f func() (int, error)) (int, error) {
	for {
		if n, err := f(); err != syscall.EINTR {
			return n, err
		}
	}
}
