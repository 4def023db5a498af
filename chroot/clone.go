//go:build linux

package chroot

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/plan"
)

// source is a tree of the host's that is to be mounted.
type source struct {
	path          string
	file          *os.File // instead of path
	recursive     bool
	slave, shared bool
	early         bool // anyone can reach it
	idmap         *os.File

	isDir  bool
	target string // in the sandbox
	old    bool   // there is no mount_setattr
}

// clone opens a detached copy of the tree, with the attributes. What only the host's own namespaces allow is done by the parent.
func clone(p *plan.Plan, s source, attributes mnt.Tree) plan.Arg {
	v := mnt.ViewOf(p)
	s.old = v.NoSetAttr()
	t := attributes
	t.Mount, t.Path, t.Dir, t.Recursive, t.Target = s.detached(p), s.now, s.isDir, s.recursive, s.target
	if s.old && s.byParent() && !s.shared {
		t.Propagation = s.propagation()
	}
	return v.Restrict(p, t)
}

// byParent: a descriptor leads to a mount of the host's mount namespace, from which the child cannot copy; nor could it become a peer of the host's mounts, or
// see file systems with other ids.
func (s source) byParent() bool { return s.file != nil || s.slave || s.shared || s.idmap != nil }

func (s source) detached(p *plan.Plan) plan.Arg {
	if s.byParent() {
		f := p.Open("a detached mount of "+s.name()+" as mount", func(*plan.Run) (*os.File, error) { return s.open() })
		p.Spent(f)
		return plan.FD(f)
	}
	tree, op := p.Slot(), mnt.Clone(s.path)
	if !s.recursive {
		op = mnt.CloneAt(mnt.CWD(), s.path, 0).Hint(syscall.ENOENT, "what is to be mounted does not exist")
	}
	if op = op.Save(tree); s.early {
		op = op.Early()
	}
	p.Child(plan.Sources, op)
	return plan.Saved(tree)
}

// now is where the source is now.
func (s source) now() string {
	name := s.path
	if s.file != nil {
		fd, err := duplicate(s.file)
		if err != nil {
			return ""
		}
		defer unix.Close(fd)
		name, _ = os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		return name
	}
	if real, err := filepath.EvalSymlinks(name); err == nil {
		name = real
	}
	if abs, err := filepath.Abs(name); err == nil {
		name = abs
	}
	return name
}

func (s source) propagation() uint64 {
	if s.slave {
		return unix.MS_SLAVE
	}
	return unix.MS_PRIVATE
}

func (s source) name() string {
	if s.file != nil {
		return strconv.Quote(s.file.Name())
	}
	return strconv.Quote(s.path)
}

func (s source) fail(call string, err error, hint string) error {
	return &Error{Op: call, Path: s.name(), Err: err, Hint: hint}
}

// open makes the copy in the parent.
func (s source) open() (*os.File, error) {
	at, closer, err := s.place()
	if err != nil {
		return nil, s.fail("open", err, "")
	}
	defer closer()
	if s.slave || s.shared {
		if err := onShared(at); err != nil {
			return nil, s.fail("look at the mount of", err, "what is mounted there later can appear elsewhere only if the mount is shared (mount --make-shared)")
		}
	}
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	if s.recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(at, "", flags)
	if err != nil {
		return nil, s.fail("open_tree", err, hintFor(err, syscall.EPERM, "needs CAP_SYS_ADMIN on the host, which a user namespace of the sandbox does not give"))
	}
	f := os.NewFile(uintptr(fd), s.name())
	if err := s.setAttr(fd); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// place opens the source as a place only.
func (s source) place() (fd int, closer func(), err error) {
	if s.file == nil {
		fd, err = unix.Open(s.path, unix.O_PATH|unix.O_CLOEXEC, 0)
	} else {
		fd, err = duplicate(s.file)
	}
	return fd, func() { unix.Close(fd) }, err
}

// duplicate leaves the file as it is: Fd would make it blocking.
func duplicate(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	e := raw.Control(func(n uintptr) { fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 3) })
	if e != nil {
		return -1, e
	}
	return fd, err
}

func (s source) setAttr(tree int) error {
	if s.old && s.idmap == nil { // done later, see mnt.Tree
		return nil
	}
	a := unix.MountAttr{}
	if !s.shared {
		a.Propagation = s.propagation()
	}
	if s.idmap != nil {
		ns, err := duplicate(s.idmap)
		if err != nil {
			return s.fail("take the user namespace for", err, "")
		}
		defer unix.Close(ns)
		a.Attr_set, a.Userns_fd = unix.MOUNT_ATTR_IDMAP, uint64(ns)
	}
	flags := uint(unix.AT_EMPTY_PATH)
	if s.recursive {
		flags |= unix.AT_RECURSIVE
	}
	err := unix.MountSetattr(tree, "", flags, &a)
	return s.attrError(err)
}

func (s source) attrError(err error) error {
	switch {
	case err == nil:
		return nil
	case s.old:
		return s.fail("mount_setattr", &unsupported{"mounts with other ids need Linux 5.12", err}, "")
	case s.idmap != nil && err == syscall.EINVAL:
		return s.fail("mount_setattr", &unsupported{"a file system in it cannot be mounted with other ids", err}, "")
	}
	return s.fail("mount_setattr", err, hintFor(err, syscall.EPERM, "needs CAP_SYS_ADMIN on the host; and the namespace must not be the host's own user namespace"))
}

// onShared refuses what is not on a shared mount: nothing would ever come through.
func onShared(fd int) error {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return err
	}
	if st.Mask&unix.STATX_MNT_ID == 0 {
		return &unsupported{"needs Linux 5.8", syscall.ENOSYS}
	}
	all, err := Mounts(os.Getpid())
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(m mountinfo.Info) bool { return uint64(m.ID) == st.Mnt_id })
	if i < 0 || !isShared(all[i]) {
		return fmt.Errorf("not on a shared mount: %w", syscall.EINVAL)
	}
	return nil
}
