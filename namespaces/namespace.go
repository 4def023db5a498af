//go:build linux

package namespaces

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// ID tells namespaces apart while they exist: device and inode of their files (namespaces(7)). Two that exist at the
// same time are the same namespace exactly if their IDs are equal.
type ID struct {
	Device, Inode uint64
}

// Namespace is an open namespace. It keeps the namespace alive until it is closed. [Open], [OfFile], [Of] and [New]
// make it.
//
// As a part of a sandbox it is a namespace that the sandbox joins, as [Join] with File.
type Namespace struct {
	kind Set
	id   ID
	file *os.File
}

// Namespaces are several of them, of different kinds. As a part of a sandbox they are all joined.
type Namespaces []*Namespace

// Open opens the namespace file at path: one in /proc/PID/ns, or one that was pinned. What is no namespace is an
// [*Error] with EINVAL, and nothing is done to it. Needed is what opening the file needs: for /proc/PID/ns, the right
// to trace the process (ptrace(2), PTRACE_MODE_READ_FSCREDS). First kernel: 4.11.
func Open(path string) (*Namespace, error) {
	f, err := openNamespace(path)
	if err != nil {
		return nil, err
	}
	return own(f)
}

// OfFile gives the namespace behind f, which stays the caller's own. What is no namespace is an [*Error] with EINVAL.
// First kernel: 4.11.
func OfFile(f *os.File) (*Namespace, error) {
	d, err := duplicate(f)
	if err != nil {
		return nil, err
	}
	return own(d)
}

// Of opens namespaces of a process in the caller's pid namespace; 0 is the calling thread. Needed is the right to trace
// the process (ptrace(2), PTRACE_MODE_READ_FSCREDS). First kernel: 4.11.
func Of(pid int, which Set) (Namespaces, error) {
	if err := which.check(); err != nil {
		return nil, err
	}
	var all Namespaces
	for k := range which.Each() {
		n, err := Open(processFile(pid, k))
		if err != nil {
			return nil, errors.Join(err, all.Close())
		}
		all = append(all, n)
	}
	return all, nil
}

func processFile(pid int, k Set) string {
	process := "thread-self"
	if pid != 0 {
		process = strconv.Itoa(pid)
	}
	return "/proc/" + process + "/ns/" + k.kind().file
}

// openNamespace opens a namespace file, and nothing else: a device or a fifo is not touched.
func openNamespace(path string) (*os.File, error) {
	p, err := openPath(path, 0)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(p.Fd()), &fs); err != nil {
		return nil, fail(err, "fstatfs %s", path)
	}
	if fs.Type != unix.NSFS_MAGIC {
		return nil, invalid("open "+path, "not a namespace")
	}
	fd, err := retry(func() (int, error) { return unix.Open(fdPath(p.Fd()), unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, fail(err, "open %s", path)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func duplicate(f *os.File) (*os.File, error) {
	if f == nil {
		return nil, fail(syscall.EBADF, "duplicate a nil file")
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fail(err, "duplicate %s", f.Name())
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// own makes a Namespace of f, which it closes on failure.
func own(f *os.File) (*Namespace, error) {
	k, err := kindOf(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	id, err := idOf(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Namespace{kind: k, id: id, file: f}, nil
}

// kindOf asks what kind of namespace is behind f (ioctl_ns(2)).
func kindOf(f *os.File) (Set, error) {
	if f == nil {
		return 0, fail(syscall.EBADF, "find the kind of a nil file")
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return 0, fail(err, "fstatfs %s", f.Name())
	}
	if fs.Type != unix.NSFS_MAGIC { // the number of the request means something else to other files
		return 0, invalid("ioctl(NS_GET_NSTYPE) "+f.Name(), "not a namespace")
	}
	k, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	return Set(k), fail(err, "ioctl(NS_GET_NSTYPE) %s", f.Name())
}

func idOf(f *os.File) (ID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return ID{}, fail(err, "fstat %s", f.Name())
	}
	return ID{uint64(st.Dev), st.Ino}, nil
}

// pathID gives the ID of the namespace file at path without opening it.
func pathID(path string) (ID, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return ID{}, fail(err, "stat %s", path)
	}
	return ID{uint64(st.Dev), st.Ino}, nil
}

// Kind is what kind of namespace it is: a [Set] of one.
func (n *Namespace) Kind() Set { return n.kind }

// ID tells it apart from others.
func (n *Namespace) ID() ID { return n.id }

// File is the namespace's open file, which belongs to n.
func (n *Namespace) File() *os.File { return n.file }

// Close lets the namespace go. The kernel removes it when nothing else holds it.
func (n *Namespace) Close() error { return n.file.Close() }

// String gives what /proc/PID/ns shows: "net:[4026531840]".
func (n *Namespace) String() string { return fmt.Sprintf("%s:[%d]", n.kind.kind().file, n.id.Inode) }

// Apply joins the namespace.
func (n *Namespace) Apply(p *plan.Plan) error {
	p.Include(Join{File: n.file})
	return nil
}

// Owner opens the user namespace whose privileges count for n (ioctl_ns(2), NS_GET_USERNS, Linux 4.9). EPERM means that
// it is not the caller's own nor below it.
func (n *Namespace) Owner() (*Namespace, error) {
	return n.relative("NS_GET_USERNS", unix.NS_GET_USERNS)
}

// Parent opens the namespace in which n was made, for pid and user namespaces (ioctl_ns(2), NS_GET_PARENT, Linux 4.9).
// EPERM means that there is none, or that it is not the caller's own nor below it; EINVAL that the kind has no parents.
func (n *Namespace) Parent() (*Namespace, error) {
	return n.relative("NS_GET_PARENT", unix.NS_GET_PARENT)
}

func (n *Namespace) relative(name string, request uint) (*Namespace, error) {
	fd, err := unix.IoctlRetInt(int(n.file.Fd()), request)
	if err != nil {
		return nil, fail(err, "ioctl(%s) %v", name, n)
	}
	unix.CloseOnExec(fd)
	return own(os.NewFile(uintptr(fd), name))
}

// OwnerUID gives the user who made n if it is a user namespace, else the one who made its owning user namespace; in the
// caller's ids, where one without a mapping is 65534 (ioctl_ns(2), NS_GET_OWNER_UID, Linux 4.11). EPERM is as for
// [Namespace.Owner].
func (n *Namespace) OwnerUID() (uint32, error) {
	if n.kind != User {
		o, err := n.Owner()
		if err != nil {
			return 0, err
		}
		defer o.Close()
		return o.OwnerUID()
	}
	var uid uint32
	_, _, e := unix.Syscall(unix.SYS_IOCTL, n.file.Fd(), unix.NS_GET_OWNER_UID, uintptr(unsafe.Pointer(&uid)))
	if e != 0 {
		return 0, fail(e, "ioctl(NS_GET_OWNER_UID) %v", n)
	}
	return uid, nil
}

// Close closes them all.
func (all Namespaces) Close() error {
	var errs []error
	for _, n := range all {
		errs = append(errs, n.Close())
	}
	return errors.Join(errs...)
}

// Kinds are the kinds of all of them.
func (all Namespaces) Kinds() (s Set) {
	for _, n := range all {
		s |= n.kind
	}
	return s
}

// Find gives the namespace of a kind, or nil.
func (all Namespaces) Find(kind Set) *Namespace {
	for _, n := range all {
		if n.kind == kind {
			return n
		}
	}
	return nil
}

// Apply joins the namespaces.
func (all Namespaces) Apply(p *plan.Plan) error {
	for _, n := range all {
		p.Include(n)
	}
	return nil
}
