//go:build linux

package namespaces

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// Sysctl is a kernel parameter that belongs to a namespace, written before the command starts (sysctl(8)). The
// namespace must be new in the same sandbox, or joined:
//
//	net.*                                         Net
//	kernel.{shmmax,shmall,shmmni,shm_rmid_forced,
//	  msgmax,msgmnb,msgmni,sem,{sem,shm,msg}_next_id}, fs.mqueue.*   IPC
//	kernel.hostname, kernel.domainname            UTS, as [Hostname] and [Domainname]
//	user.*                                        User
//
// Any other parameter belongs to the whole system and is an [*SysctlError], as are a namespace that is neither new nor
// joined, a name that is not a name, and an empty value. A parameter of the network that belongs to the whole system
// after all is not there in a new namespace, and an error of the start with ENOENT. The value is written at once, and a
// kernel that takes only a part of it is an error of the start with EAGAIN.
//
// It needs the namespace's privileges, CAP_NET_ADMIN for Net, user 0 or CAP_SYS_RESOURCE for the others; the child has
// them inside a new user namespace, where kernels before 6.10 may yet refuse kernel.* and fs.mqueue.* with EACCES. First
// kernel: 5.6 (openat2(2)).
type Sysctl struct {
	// Name has dots or slashes between its words: "net.ipv4.ip_forward". The first of them counts, as for sysctl(8): in
	// "net/ipv4/conf/eth0.7/forwarding" the dot is part of a word.
	Name  string
	Value string // what is written, without a newline
}

// SysctlError says why a parameter is refused before anything is done. It is an EINVAL for errors.Is.
type SysctlError struct {
	Name   string
	Reason string
}

// Error names the parameter.
func (e *SysctlError) Error() string { return fmt.Sprintf("sysctl %q: %s", e.Name, e.Reason) }

// Unwrap gives EINVAL.
func (e *SysctlError) Unwrap() error { return syscall.EINVAL }

// Apply asks for the parameter to be written.
func (s Sysctl) Apply(p *plan.Plan) error {
	path, owner, err := s.parse()
	if err != nil {
		return err
	}
	switch path {
	case "kernel/hostname":
		return Hostname(s.Value).Apply(p)
	case "kernel/domainname":
		return Domainname(s.Value).Apply(p)
	}
	if err := p.Claim("sysctl " + path); err != nil {
		return err
	}
	// Another part may ask for the namespace in its own late decision.
	p.Late(func() error {
		p.Late(func() error { return s.check(p, owner) })
		return nil
	})
	p.Child(plan.Sources, s.calls(p, path)...)
	return nil
}

func (s Sysctl) check(p *plan.Plan, owner Set) error {
	if (p.Cloned()|p.Joined())&uint64(owner) == 0 {
		return &SysctlError{s.Name, fmt.Sprintf("the sandbox has no %v namespace of its own, in which it could be set", owner)}
	}
	return nil
}

// calls write the value, to the caller's /proc but below it over no link and no mount, where the child finds the
// parameters of its own namespaces. The comparison is made by futex(2): it answers ETIMEDOUT where the numbers are
// equal.
func (s Sysctl) calls(p *plan.Plan, path string) []plan.Op {
	const text = "{O_WRONLY|O_CLOEXEC, RESOLVE_BENEATH|RESOLVE_NO_SYMLINKS|RESOLVE_NO_XDEV}"
	how := unix.OpenHow{Flags: unix.O_WRONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV}
	size := int(unsafe.Sizeof(how))
	b := slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&how)), size))
	want := binary.NativeEndian.AppendUint32(nil, uint32(len(s.Value)))
	want = append(want, 0, 0, 0, 0) // eight bytes are aligned
	fd, written := p.Slot(), p.Slot()
	return []plan.Op{
		plan.Call("openat2", unix.SYS_OPENAT2, plan.FD(procFile(p)), plan.Str("sys/"+path), plan.Struct(text, b), plan.Int(size)).Save(fd).
			Hint(syscall.ENOENT, "this kernel has no such parameter in a namespace").
			Hint(syscall.EXDEV, "something is mounted over /proc/sys").
			Hint(syscall.ENOSYS, "needs Linux 5.6").
			Hint(syscall.EROFS, "/proc/sys is read-only here"),
		plan.Call("write", unix.SYS_WRITE, plan.Saved(fd), plan.Str(s.Value), plan.Int(len(s.Value))).Save(written).
			Hint(syscall.EINVAL, "the parameter does not take this value"),
		plan.Call("futex", unix.SYS_FUTEX, plan.Struct(fmt.Sprintf("[%d]", len(s.Value)), want), plan.Number(futexWait, "FUTEX_WAIT_PRIVATE"),
			plan.Saved(written), plan.Struct("{0, 0}", make([]byte, 16))).Tolerate(syscall.ETIMEDOUT).
			Hint(syscall.EAGAIN, "the kernel took only a part of the value"),
	}
}

const futexWait = 0x80 // FUTEX_WAIT|FUTEX_PRIVATE_FLAG

// parse gives the path below /proc/sys, and the kind of namespace to which the parameter belongs.
func (s Sysctl) parse() (path string, owner Set, err error) {
	path, ok := sysctlPath(s.Name)
	if !ok {
		return "", 0, &SysctlError{s.Name, "not a name"}
	}
	if owner = sysctlOwner(path); owner == 0 {
		return "", 0, &SysctlError{s.Name, "it belongs to the whole system, not to a namespace"}
	}
	if s.Value == "" || strings.ContainsAny(s.Value, "\x00\n") {
		return "", 0, &SysctlError{s.Name, "the value is empty or has more than one line"}
	}
	return path, owner, nil
}

// sysctlPath turns a name into a path of plain words.
func sysctlPath(name string) (string, bool) {
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '.' {
		name = strings.NewReplacer(".", "/", "/", ".").Replace(name)
	}
	for word := range strings.SplitSeq(name, "/") {
		if word == "" || word == "." || word == ".." || strings.ContainsAny(word, "\x00\n") {
			return "", false
		}
	}
	return name, true
}

var ipcSysctls = []string{"shmmax", "shmall", "shmmni", "shm_rmid_forced", "msgmax", "msgmnb", "msgmni", "sem", "sem_next_id",
	"shm_next_id", "msg_next_id"}

func sysctlOwner(path string) Set {
	first, rest, _ := strings.Cut(path, "/")
	switch {
	case rest == "":
		return 0
	case first == "net":
		return Net
	case first == "user":
		return User
	case first == "kernel" && slices.Contains(ipcSysctls, rest), strings.HasPrefix(path, "fs/mqueue/"):
		return IPC
	case path == "kernel/hostname" || path == "kernel/domainname":
		return UTS
	}
	return 0
}

// MaxUserNamespaces limits how many user namespaces each user may make below the sandbox's new user namespace, for
// which it asks; 0 forbids them (namespaces(7), /proc/sys/user/max_user_namespaces, Linux 4.9). Making one more fails
// with ENOSPC. A negative number is an [*Error] with EINVAL.
//
// It holds against who has no CAP_SYS_RESOURCE inside, or no writable /proc/sys. It needs what [User] needs. First
// kernel: 5.6 (openat2(2)).
type MaxUserNamespaces int

// Apply asks for the limit.
func (n MaxUserNamespaces) Apply(p *plan.Plan) error {
	if n < 0 {
		return invalid("limit user namespaces", fmt.Sprintf("%d is no limit", int(n)))
	}
	if err := User.Apply(p); err != nil {
		return err
	}
	return Sysctl{Name: "user.max_user_namespaces", Value: strconv.Itoa(int(n))}.Apply(p)
}
