//go:build linux

package namespaces

import (
	"cmp"
	"context"
	"errors"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/initprog"
	"github.com/caisson-dev/caisson/plan"
)

// New makes namespaces in which there is no process yet, to be joined, or pinned, later. With [User] in the set they
// belong to a new user namespace with the maps of [MapRoot]; for other maps see [IDs.New].
//
// A pid namespace lives only as long as its process 1, and a time namespace cannot be made together with a user
// namespace here: an [*Error] with errors.ErrUnsupported. It needs CAP_SYS_ADMIN, or User in the set. First kernel:
// 4.11.
func New(kinds Set) (Namespaces, error) {
	if kinds.Has(User) {
		return MapRoot().New(kinds)
	}
	if err := newable(kinds); err != nil {
		return nil, err
	}
	var made Namespaces
	err := onThread(func() error {
		if err := makeFresh(kinds); err != nil {
			return err
		}
		var err error
		made, err = openNew("/proc/thread-self/ns/", kinds)
		return err
	})
	return made, err
}

func newable(kinds Set) error {
	if kinds.Has(PID) {
		return unsupported("make a pid namespace", "it lives only as long as its process 1")
	}
	return kinds.check()
}

// New makes a user namespace with these maps, and namespaces of other kinds that belong to it; see [New]. It has a way
// to do so on amd64 and arm64 only.
func (m IDs) New(kinds Set) (made Namespaces, err error) {
	kinds |= User
	if err := newable(kinds); err != nil {
		return nil, err
	}
	if kinds.Has(Time) {
		return nil, unsupported("make a time namespace", "not together with a user namespace")
	}
	c, err := currentCaller()
	if err != nil {
		return nil, err
	}
	writes, _, err := m.writes(c)
	if err != nil {
		return nil, err
	}
	err = withProcess(kinds, func(pid int) error {
		r := &plan.Run{Context: context.Background(), PID: pid}
		defer r.CloseFiles()
		for _, w := range writes {
			if err := w.Do(r); err != nil {
				return err
			}
		}
		made, err = openNew("/proc/"+strconv.Itoa(pid)+"/ns/", kinds)
		return err
	})
	return made, err
}

// withProcess calls f while there is a process in new namespaces. No thread of ours may enter a user namespace, so a
// process must: one that executes our own small program, and is stopped, as a traced one, before the program's first
// instruction.
func withProcess(kinds Set, f func(pid int) error) error {
	program, err := initprog.Open()
	if err != nil {
		return err
	}
	defer program.Close()
	return onThread(func() error { // only the thread that traces may wait for what it traces
		pid, err := syscall.ForkExec("/proc/self/fd/0", []string{"namespaces"}, &syscall.ProcAttr{Files: []uintptr{program.Fd()},
			Sys: &syscall.SysProcAttr{Cloneflags: uintptr(kinds), Ptrace: true, Pdeathsig: syscall.SIGKILL}})
		if err != nil {
			return fail(err, "clone(%v)", kinds)
		}
		defer func() {
			unix.Kill(pid, unix.SIGKILL)
			waitFor(pid)
		}()
		if ws, err := waitFor(pid); err != nil || !ws.Stopped() {
			return fail(cmp.Or(err, error(syscall.ECHILD)), "wait for a process in new namespaces")
		}
		return f(pid)
	})
}

func waitFor(pid int) (ws unix.WaitStatus, err error) {
	_, err = retry(func() (int, error) { return unix.Wait4(pid, &ws, unix.WALL, nil) })
	return ws, err
}

func openNew(dir string, kinds Set) (all Namespaces, err error) {
	for k := range kinds.Each() {
		name := k.kind().file
		if k == Time {
			name += "_for_children" // the thread itself is not in it
		}
		n, err := Open(dir + name)
		if err != nil {
			return nil, errors.Join(err, all.Close())
		}
		all = append(all, n)
	}
	return all, nil
}

// Pin keeps a namespace at a path: a new file on which it is mounted, until [Unpin] or the next boot; ip-netns(8) finds
// those in /run/netns. What is at the path already is an error with fs.ErrExist, and on failure nothing is left there.
// Symbolic links in the directory part of the path are followed.
//
// A mount namespace can be pinned only where no mount propagates to it: in a private mount (EINVAL).
// It needs CAP_SYS_ADMIN. First kernel: 3.8.
func Pin(n *Namespace, path string) (err error) {
	dir, base, err := openParent(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	fd, err := retry(func() (int, error) {
		return unix.Openat(int(dir.Fd()), base, unix.O_RDONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return fail(err, "create %s", path)
	}
	defer unix.Close(fd)
	if err := unix.Mount(fdPath(n.file.Fd()), fdPath(uintptr(fd)), "", unix.MS_BIND, ""); err != nil {
		removeMade(dir, base, fd)
		return &Error{Op: "mount " + n.String() + " on " + path, Err: err, Hint: hintFor(err, unix.EINVAL, "a mount namespace needs a private mount")}
	}
	return nil
}

func fdPath(fd uintptr) string { return "/proc/self/fd/" + strconv.FormatUint(uint64(fd), 10) }

// openParent opens the directory of path, so that what is made in it can be removed from the same one.
func openParent(path string) (*os.File, string, error) {
	i := len(path)
	for i > 0 && path[i-1] != '/' {
		i--
	}
	dir, base := path[:i], path[i:]
	if base == "" || base == "." || base == ".." {
		return nil, "", invalid("open "+strconv.Quote(path), "it does not name a file")
	}
	f, err := openPath(dir+".", unix.O_DIRECTORY)
	return f, base, err
}

// removeMade removes the file that fd is, and no other that has taken its name.
func removeMade(dir *os.File, base string, fd int) {
	var made, there unix.Stat_t
	if unix.Fstat(fd, &made) == nil && unix.Fstatat(int(dir.Fd()), base, &there, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		made.Dev == there.Dev && made.Ino == there.Ino {
		unix.Unlinkat(int(dir.Fd()), base, 0)
	}
}

// Unpin undoes [Pin]: the namespace is unmounted and its file removed. What is not a mounted namespace is an [*Error]
// with EINVAL, and is left alone; so is a symbolic link. It needs CAP_SYS_ADMIN. First kernel: 3.8.
func Unpin(path string) error {
	dir, base, err := openParent(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := openIn(dir, base, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return fail(err, "open %s", path)
	}
	var fs unix.Statfs_t
	err = unix.Fstatfs(int(f.Fd()), &fs)
	f.Close()
	if err != nil {
		return fail(err, "fstatfs %s", path)
	}
	if fs.Type != unix.NSFS_MAGIC {
		return invalid("unpin "+path, "no namespace is mounted there")
	}
	if err := unix.Unmount(fdPath(dir.Fd())+"/"+base, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fail(err, "umount %s", path)
	}
	return removePin(dir, base, path)
}

// removePin removes the empty file that was below the namespace.
func removePin(dir *os.File, base, path string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fail(err, "stat %s", path)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != 0 {
		return invalid("unpin "+path, "the file below the namespace is not an empty one: it is left")
	}
	return fail(unix.Unlinkat(int(dir.Fd()), base, 0), "remove %s", path)
}
