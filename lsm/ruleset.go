//go:build linux

package lsm

import (
	"encoding/binary"
	"os"
	"runtime"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// Ruleset is a [Landlock] that the kernel has been given already, as a descriptor. As the part of a sandbox it costs one system call a start, however
// many rules there are. It is safe for concurrent use, and must stay open while sandboxes are started with it.
//
// Its paths have been resolved in the caller's own root. A rule means the file that was there at the time, by whatever path it
// is reached: also in a sandbox whose root shows it by a bind mount, as chroot.Host and chroot.Bind do.
type Ruleset struct {
	file   *os.File
	policy policy
}

// Prepare opens the paths as the caller sees them, and makes the rule set. A path that does not exist is a [*RuleError], and so is one
// on a read-only mount that the rule allows to write (EROFS). No privilege is needed.
func (l Landlock) Prepare() (*Ruleset, error) { return prepare(l, probe(), false) }

// Prepare is [Landlock.Prepare] for what the kernel can enforce; [Ruleset.LeftOut] says what it cannot.
func (b BestEffort) Prepare() (*Ruleset, error) { return prepare(b, probe(), true) }

func prepare(rules []Rule, k landlock, best bool) (*Ruleset, error) {
	pol, err := translate(rules, k, best)
	if err != nil {
		return nil, err
	}
	b := pol.attr()
	fd, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&b[0])), attrSize, 0)
	if e != 0 {
		return nil, fail(e, "landlock_create_ruleset")
	}
	s := &Ruleset{os.NewFile(fd, "Landlock rule set"), pol}
	if err := s.fill(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// LeftOut says what the kernel cannot enforce; only of a [BestEffort] there may be some.
func (s *Ruleset) LeftOut() []string { return slices.Clone(s.policy.left) }

// Close closes the descriptor. What was started with the rule set stays restricted.
func (s *Ruleset) Close() error { return s.file.Close() }

func (s *Ruleset) fill() error {
	for _, r := range s.policy.paths {
		if err := s.allow(r); err != nil {
			return &RuleError{Rule: r.rule, Path: r.path, Err: err}
		}
	}
	for _, r := range s.policy.ports {
		if err := s.add(rulePort, r.attr()); err != nil {
			return fail(err, "landlock_add_rule(%s)", r.text())
		}
	}
	return nil
}

func (s *Ruleset) allow(r pathRule) error {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS}
	fd, err := retry(func() (int, error) { return unix.Openat2(unix.AT_FDCWD, r.path, &how) })
	if err == syscall.ENOENT && r.optional {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if r.writes() {
		if err := unix.Faccessat2(fd, "", unix.W_OK, unix.AT_EMPTY_PATH); err != nil && err != syscall.EACCES {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	rights := r.file
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		rights |= r.dir
	}
	if rights == 0 {
		return syscall.ENOTDIR
	}
	b := make([]byte, pathAttrSize)
	binary.NativeEndian.PutUint64(b, rights)
	binary.NativeEndian.PutUint32(b[8:], uint32(fd))
	return s.add(rulePath, b)
}

func (s *Ruleset) add(kind uintptr, attr []byte) error {
	return s.control(func(fd uintptr) error {
		if _, _, e := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, fd, kind, uintptr(unsafe.Pointer(&attr[0])), 0, 0, 0); e != 0 {
			return e
		}
		return nil
	})
}

// control calls f with the descriptor, which stays open meanwhile.
func (s *Ruleset) control(f func(fd uintptr) error) error {
	c, err := s.file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if c.Control(func(fd uintptr) { inner = f(fd) }) != nil {
		return fail(os.ErrClosed, "use the rule set")
	}
	return inner
}

// Apply implements plan.Primitive.
func (s *Ruleset) Apply(p *plan.Plan) error {
	p.NoNewPrivs()
	s.policy.observe(p)
	rules := p.Open("Landlock rule set "+s.policy.text()+" as rules", func(*plan.Run) (*os.File, error) {
		var f *os.File
		err := s.control(func(fd uintptr) error {
			n, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
			if err == nil {
				f = os.NewFile(uintptr(n), "rules")
			}
			return err
		})
		return f, err
	})
	p.Child(plan.Landlock, s.policy.restrict(plan.FD(rules)))
	return nil
}

// RestrictSelf restricts the calling process, all its threads, for good, and sets no_new_privs. Before Linux 7.0 it needs a program that
// is built without cgo: Landlock knows threads only, and the Go runtime can reach all of them only if they are its own. Elsewhere it
// is errors.ErrUnsupported.
func (l Landlock) RestrictSelf() error {
	_, err := restrictSelf(l, probe(), false)
	return err
}

// RestrictSelf is [Landlock.RestrictSelf] for what the kernel can enforce, and gives what it cannot.
func (b BestEffort) RestrictSelf() (leftOut []string, err error) {
	return restrictSelf(b, probe(), true)
}

func restrictSelf(rules []Rule, k landlock, best bool) ([]string, error) {
	s, err := prepare(rules, k, best)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if s.policy.scoped&scopedSignal != 0 && !k.fixed(erratumSignals) && k.abi < abiAll {
		return nil, unsupported("landlock_restrict_self", "without the fix of Landlock's erratum 2 the threads of one process could not signal each other")
	}
	err = s.control(func(fd uintptr) error { return allThreads(fd, uintptr(s.policy.log), k) })
	return s.policy.left, err
}

// allThreads restricts all threads. As soon as one thread has been restricted, there is no way back.
func allThreads(fd, flags uintptr, k landlock) error {
	if k.abi >= abiAll {
		return allAtOnce(fd, flags)
	}
	if _, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); e != 0 {
		return &Error{"prctl(PR_SET_NO_NEW_PRIVS)", e, "a program with cgo cannot restrict all of its threads before Linux 7.0"}
	}
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, flags, 0); e != 0 {
		return fail(e, "landlock_restrict_self")
	}
	return nil
}

// allAtOnce has the kernel give no_new_privs and the restriction of one thread to all. Where it refuses, that thread has no_new_privs and the others have not: it ends.
func allAtOnce(fd, flags uintptr) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := restrictWithSiblings(fd, flags)
		if err == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

func restrictWithSiblings(fd, flags uintptr) error {
	const tsync = 1 << 3 // LANDLOCK_RESTRICT_SELF_TSYNC
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fail(err, "prctl(PR_SET_NO_NEW_PRIVS)")
	}
	if _, _, e := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, flags|tsync, 0); e != 0 {
		return fail(e, "landlock_restrict_self")
	}
	return nil
}
