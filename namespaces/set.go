//go:build linux

package namespaces

import (
	"fmt"
	"iter"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// Set is a set of kinds of namespaces. Its bits are those of clone(2), CLONE_NEW.... As a part of a sandbox it asks for
// new namespaces of these kinds (namespaces(7)); the zero value asks for none, and a bit that is none of the constants
// is an error.
//
// All but [User] need CAP_SYS_ADMIN in the caller's user namespace, or User in the same sandbox.
type Set uint64

// The kinds of namespaces.
const (
	// User isolates user and group ids, and capabilities (user_namespaces(7), Linux 3.8). Unless the sandbox has an
	// id map, [IDs], the caller's effective user and group become 0 inside. It needs no privilege where the system
	// allows it to all.
	User Set = unix.CLONE_NEWUSER
	// PID isolates process ids; the command is process 1 (pid_namespaces(7), Linux 2.6.24).
	PID Set = unix.CLONE_NEWPID
	// Mount isolates the list of mounts (mount_namespaces(7), Linux 2.4.19). Unless the sandbox has a root
	// directory of its own, all its mounts are made private, so that none appears on the host.
	Mount Set = unix.CLONE_NEWNS
	// Net isolates interfaces, addresses, routes, ports, and abstract sockets (network_namespaces(7), Linux 2.6.24).
	// The new one has a loopback interface that is down.
	Net Set = unix.CLONE_NEWNET
	// IPC isolates System V IPC and POSIX message queues (ipc_namespaces(7), Linux 2.6.19).
	IPC Set = unix.CLONE_NEWIPC
	// UTS isolates the host name and the NIS domain name (uts_namespaces(7), Linux 2.6.19).
	UTS Set = unix.CLONE_NEWUTS
	// Cgroup makes the command's control group look like the root of the hierarchy (cgroup_namespaces(7), Linux 4.6).
	Cgroup Set = unix.CLONE_NEWCGROUP
	// Time gives the monotonic and the boot-time clock an offset, which [TimeOffsets] sets (time_namespaces(7),
	// Linux 5.6).
	Time Set = unix.CLONE_NEWTIME

	// All are all kinds.
	All = User | PID | Mount | Net | IPC | UTS | Cgroup | Time
)

type kind struct {
	bit   Set
	name  string // what String prints
	file  string // in /proc/PID/ns, and what lsns(8) prints
	other string // a further name that is understood
}

var kinds = [...]kind{
	{User, "user", "user", ""}, {PID, "pid", "pid", ""},
	{Mount, "mount", "mnt", ""}, {Net, "net", "net", "network"},
	{IPC, "ipc", "ipc", ""}, {UTS, "uts", "uts", ""},
	{Cgroup, "cgroup", "cgroup", ""}, {Time, "time", "time", ""},
}

const none = "none"

// Apply asks for the namespaces. The error of a set with unknown bits is a [*SetError].
func (s Set) Apply(p *plan.Plan) error {
	if err := s.check(); err != nil {
		return err
	}
	p.Clone(uint64(s))
	p.Late(func() error {
		s.applyLate(p)
		return nil
	})
	return nil
}

func (s Set) applyLate(p *plan.Plan) {
	if s.Has(User) && !p.Has(plan.IDMap) {
		p.Include(MapRoot())
	}
	if s.Has(Mount) && !p.Has(plan.RootDir) {
		keepMounts(p)
	}
	if s.Has(Time) {
		enterTime(p)
	}
}

// keepMounts makes all mounts private, as unshare(1) does. Where the sandbox gets a root directory, who makes it sees to
// that.
func keepMounts(p *plan.Plan) {
	const private = "private mounts"
	if p.Has(private) {
		return
	}
	p.Claim(private)
	flags := plan.Flags(unix.MS_REC|unix.MS_PRIVATE, []plan.Flag{{Bits: unix.MS_REC, Name: "MS_REC"}, {Bits: unix.MS_PRIVATE, Name: "MS_PRIVATE"}})
	p.Child(plan.Root, plan.Call("mount", unix.SYS_MOUNT, plan.Str(""), plan.Str("/"), plan.Null(), flags, plan.Null()).
		Hint(syscall.EINVAL, "the root directory is not a mount point: the caller is in a chroot"))
}

func (s Set) check() error {
	if bad := s &^ All; bad != 0 {
		return &SetError{Text: fmt.Sprintf("%#x", uint64(bad))}
	}
	return nil
}

// Has reports whether all of other is in s.
func (s Set) Has(other Set) bool { return s&other == other }

// Each yields the kinds in s, each as a set of its own, in the order of the constants.
func (s Set) Each() iter.Seq[Set] {
	return func(yield func(Set) bool) {
		for _, k := range kinds {
			if s.Has(k.bit) && !yield(k.bit) {
				return
			}
		}
	}
}

// single reports whether s is exactly one kind.
func (s Set) single() bool { return s&All == s && s != 0 && s&(s-1) == 0 }

// String gives the names of the kinds: "pid|net". The empty set is "none"; unknown bits are printed in hexadecimal.
func (s Set) String() string {
	var words []string
	for k := range s.Each() {
		words = append(words, k.kind().name)
	}
	if bad := s &^ All; bad != 0 {
		words = append(words, fmt.Sprintf("%#x", uint64(bad)))
	}
	if len(words) == 0 {
		return none
	}
	return strings.Join(words, "|")
}

// kind gives the names of a set of one.
func (s Set) kind() kind {
	for _, k := range kinds {
		if k.bit == s {
			return k
		}
	}
	return kind{bit: s, name: s.String(), file: none}
}

// ParseSet reads names of kinds with commas or bars between them: what [Set.String] gives, the names in /proc/PID/ns and
// of lsns(8) ("mnt"), those of the OCI runtime specification ("network"), "all" and "none". The error is a [*SetError].
func ParseSet(text string) (Set, error) {
	var s Set
	for word := range strings.SplitSeq(strings.ReplaceAll(text, "|", ","), ",") {
		k, ok := parseKind(strings.TrimSpace(word))
		if !ok {
			return 0, &SetError{Text: word}
		}
		s |= k
	}
	return s, nil
}

func parseKind(word string) (Set, bool) {
	switch word {
	case "":
		return 0, false
	case "all":
		return All, true
	case none:
		return 0, true
	}
	for _, k := range kinds {
		if word == k.name || word == k.file || word == k.other {
			return k.bit, true
		}
	}
	return 0, false
}

// MarshalText gives what String gives, for JSON and the like. Unknown bits are a [*SetError].
func (s Set) MarshalText() ([]byte, error) { return []byte(s.String()), s.check() }

// UnmarshalText reads what [ParseSet] reads.
func (s *Set) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSet(string(text))
	return err
}
