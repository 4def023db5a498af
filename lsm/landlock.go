//go:build linux

package lsm

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// Landlock restricts the command, and all that it executes, to what the rules allow (landlock(7), Linux 5.13). No privilege is needed; the command
// cannot gain any by executing programs (no_new_privs).
//
// What rules speak of is denied but for what they allow: with a rule for files all files, with [Bind] all ports to bind to, with
// [Connect] all ports to connect to. What no rule speaks of is left alone. So is what Landlock cannot restrict: descriptors that the command was
// given, changes of mode, owner and times, stat(2), chdir(2), UDP; and sockets in the file system, but for [ConnectUnix].
//
// Paths are those of the sandbox's own root. The command resolves them itself, last of all, and follows symbolic links but
// for those of /proc/PID/fd and the like; so a hostile root can lead a rule to another place in itself. A path that does not exist is an error of the start that names it, unless the rule is [Rule.Optional]; so are, with EROFS, rights to write where
// nothing can be written. Where there is no root of the sandbox's own, or the root shows the caller's files, [Landlock.Prepare] does the work once for many starts.
//
// The rules are exact: what the kernel cannot enforce is a [*RuleError] that names the rule and the version of Landlock that it
// needs, and is errors.ErrUnsupported. [ABI] asks for less by name, [BestEffort] for what there is.
type Landlock []Rule

// BestEffort is a [Landlock] of which the kernel enforces what it can. What it cannot is printed in the plan, and stands in the Detail
// of the result. A kernel that could enforce nothing is an error.
type BestEffort []Rule

// LandlockABI gives the version of Landlock that the kernel has, 0 when it has none or it is not enabled.
func LandlockABI() int { return probe().abi }

// probe asks the kernel.
func probe() landlock {
	const (
		askVersion = 1 << 0
		askErrata  = 1 << 1
	)
	abi, _, e := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, askVersion)
	if e != 0 {
		return landlock{}
	}
	errata, _, e := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, askErrata)
	if e != 0 { // older than the question
		errata = 0
	}
	return landlock{int(abi), uint32(errata)}
}

// Apply implements plan.Primitive.
func (l Landlock) Apply(p *plan.Plan) error { return applyRules(p, l, probe(), false) }

// Apply implements plan.Primitive.
func (b BestEffort) Apply(p *plan.Plan) error { return applyRules(p, b, probe(), true) }

func applyRules(p *plan.Plan, rules []Rule, k landlock, best bool) error {
	pol, err := translate(rules, k, best)
	if err != nil {
		return err
	}
	p.NoNewPrivs()
	pol.observe(p)
	set, opened := p.Slot(), p.Slot()
	p.Child(plan.Landlock, pol.create().Save(set))
	if len(pol.paths) > 0 {
		holder := p.Open("eventfd as rule", func(*plan.Run) (*os.File, error) { return placeholder() })
		for _, r := range pol.paths {
			p.Child(plan.Landlock, r.ops(set, opened, holder)...)
		}
	}
	for _, r := range pol.ports {
		p.Child(plan.Landlock, addRule(set, rulePort, plan.Bytes(r.text(), r.attr())))
	}
	p.Child(plan.Landlock, pol.restrict(plan.Saved(set)))
	return nil
}

// placeholder is a descriptor of nothing: it only has a number.
func placeholder() (*os.File, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fail(err, "eventfd")
	}
	return os.NewFile(uintptr(fd), "eventfd"), nil
}

// observe has the result say what is not enforced.
func (pol policy) observe(p *plan.Plan) {
	if len(pol.left) == 0 {
		return
	}
	p.Observe(func(_ *plan.Run, r *plan.Result) {
		detail(r, "Landlock does not restrict here: "+strings.Join(pol.left, ", "))
	})
}

const attrSize = 24 // struct landlock_ruleset_attr of ABI 6; a kernel that knows less wants zeros at its end

func (pol policy) attr() []byte {
	b := make([]byte, attrSize)
	binary.NativeEndian.PutUint64(b, pol.fs)
	binary.NativeEndian.PutUint64(b[8:], pol.net)
	binary.NativeEndian.PutUint64(b[16:], pol.scoped)
	return b
}

// text is printed in the plan.
func (pol policy) text() string {
	var parts []string
	for _, f := range []struct {
		name  string
		bits  uint64
		names []plan.Flag
	}{{"fs", pol.fs, fsNames}, {"net", pol.net, netNames}, {"scoped", pol.scoped, scopeNames}} {
		if f.bits != 0 {
			parts = append(parts, f.name+"="+plan.FlagText(f.bits, f.names))
		}
	}
	if len(pol.left) > 0 {
		parts = append(parts, "not enforced: "+strings.Join(pol.left, ", "))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func (pol policy) create() plan.Op {
	return plan.Call("landlock_create_ruleset", unix.SYS_LANDLOCK_CREATE_RULESET, plan.Bytes(pol.text(), pol.attr()), plan.Int(attrSize), plan.Int(0))
}

func (pol policy) restrict(rules plan.Arg) plan.Op {
	return plan.Call("landlock_restrict_self", unix.SYS_LANDLOCK_RESTRICT_SELF, rules, plan.Flags(pol.log, logNames)).
		Hint(syscall.E2BIG, "16 Landlock rule sets restrict this process already")
}

const (
	rulePath = 1
	rulePort = 2
)

var ruleNames = []plan.Flag{{Bits: rulePath, Name: "LANDLOCK_RULE_PATH_BENEATH"}, {Bits: rulePort, Name: "LANDLOCK_RULE_NET_PORT"}}

func addRule(rules plan.Slot, kind uint64, attr plan.Arg) plan.Op {
	return plan.Call("landlock_add_rule", unix.SYS_LANDLOCK_ADD_RULE, plan.Saved(rules), plan.Number(kind, plan.FlagText(kind, ruleNames)), attr, plan.Int(0))
}

// ops opens the path and adds what is allowed there. The descriptor is a result, and results cannot be part of a structure; so it
// takes the number of one that the parent has opened.
func (r pathRule) ops(rules, opened plan.Slot, holder plan.File) []plan.Op {
	var later []plan.Op
	if r.writes() {
		later = append(later, r.writable(opened))
	}
	later = append(later,
		plan.Call("dup3", unix.SYS_DUP3, plan.Saved(opened), plan.FD(holder), plan.Number(unix.O_CLOEXEC, "O_CLOEXEC")),
		plan.Call("close", unix.SYS_CLOSE, plan.Saved(opened)))
	if r.file != 0 {
		later = append(later, addRule(rules, rulePath, r.attr(r.file, holder)))
	}
	if r.dir != 0 { // of what is no directory, the kernel says EINVAL: these rights do not exist there
		add := addRule(rules, rulePath, r.attr(r.dir, holder)).Hint(syscall.EINVAL, "the path of the rule \""+r.rule.String()+"\" is no directory")
		if r.file != 0 {
			add = add.Tolerate(syscall.EINVAL)
		}
		later = append(later, add)
	}
	open := plan.Call("openat2", unix.SYS_OPENAT2, plan.Number(^uint64(99), "AT_FDCWD"), plan.Str(r.path),
		plan.Bytes("{O_PATH|O_CLOEXEC, RESOLVE_NO_MAGICLINKS}", openHow(unix.O_PATH|unix.O_CLOEXEC, unix.RESOLVE_NO_MAGICLINKS)), plan.Int(howSize)).Save(opened).
		Hint(syscall.ENOENT, "the path of the rule \""+r.rule.String()+"\" does not exist in the sandbox; Optional passes over it").
		Hint(syscall.ELOOP, "a path through /proc/PID/fd or the like is refused").
		Hint(syscall.EMFILE, "the sandbox's RLIMIT_NOFILE has no room for the descriptor of a rule")
	if r.optional {
		open = open.Tolerate(syscall.ENOENT).Skip(len(later))
	}
	return append([]plan.Op{open}, later...)
}

// writes reports whether the rule is in vain on a read-only mount.
func (r pathRule) writes() bool { return r.rule.intent == readWrite && !r.optional }

// writable asks without writing. EACCES is an answer of the file's mode: what is below may have another one.
func (r pathRule) writable(opened plan.Slot) plan.Op {
	of := printable(r.path) + ", of the rule \"" + r.rule.String() + "\", is "
	return plan.Call("faccessat2", unix.SYS_FACCESSAT2, plan.Saved(opened), plan.Str(""), plan.Number(unix.W_OK, "W_OK"), plan.Number(unix.AT_EMPTY_PATH, "AT_EMPTY_PATH")).
		Tolerate(syscall.EACCES).
		Hint(syscall.EROFS, of+"mounted read-only; Optional passes over it").
		Hint(syscall.EPERM, of+"immutable (chattr(1)); Optional passes over it")
}

const howSize = int(unsafe.Sizeof(unix.OpenHow{}))

func openHow(flags, resolve uint64) []byte {
	how := unix.OpenHow{Flags: flags, Resolve: resolve}
	return append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&how)), howSize)...)
}

const pathAttrSize = 12 // struct landlock_path_beneath_attr, packed

func (r pathRule) attr(rights uint64, holder plan.File) plan.Arg {
	b := make([]byte, pathAttrSize)
	binary.NativeEndian.PutUint64(b, rights)
	fd := plan.FD(holder)
	return plan.Struct("{"+plan.FlagText(rights, fsNames)+", "+fd.String()+"}", b, plan.Field{Offset: 8, Size: 4, Arg: fd})
}

func (r portRule) attr() []byte {
	b := make([]byte, 16)
	binary.NativeEndian.PutUint64(b, r.access)
	binary.NativeEndian.PutUint64(b[8:], uint64(r.port))
	return b
}

func (r portRule) text() string {
	return fmt.Sprintf("{%s, %d}", plan.FlagText(r.access, netNames), r.port)
}
