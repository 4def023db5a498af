//go:build linux

package lsm

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"syscall"
)

// policy is a rule set in the kernel's terms.
type policy struct {
	fs, net, scoped uint64 // what is denied unless a rule allows it
	log             uint64
	paths           []pathRule
	ports           []portRule
	left            []string // what cannot be enforced here, where that is no error
}

type pathRule struct {
	path      string
	file, dir uint64
	optional  bool
	rule      Rule
}

type portRule struct {
	access uint64
	port   uint16
}

// translator makes a policy of rules for one kernel.
type translator struct {
	kernel landlock
	best   bool // what the kernel cannot enforce is left out
	meant  int  // the version of Landlock that the caller means
	policy policy
}

// translate is pure. With best, what the kernel lacks is left out and named; but nothing at all is an error.
func translate(rules []Rule, k landlock, best bool) (policy, error) {
	t := translator{kernel: k, best: best, meant: NewestABI}
	if err := t.check(rules); err != nil {
		return policy{}, err
	}
	for _, r := range rules {
		if err := t.add(r); err != nil {
			return policy{}, err
		}
	}
	if t.policy.fs|t.policy.net|t.policy.scoped == 0 { // only with best
		return policy{}, unsupported("Landlock", "nothing of the rules can be enforced by this kernel: "+strings.Join(t.policy.left, ", "))
	}
	return t.policy, nil
}

func (t *translator) check(rules []Rule) error {
	restricts := false
	for _, r := range rules {
		if err := r.check(); err != nil {
			return &RuleError{Rule: r, Err: err}
		}
		if r.intent == version {
			t.meant = r.abi
		}
		restricts = restricts || r.intent != version && r.intent != logging
	}
	if !restricts {
		return invalid("Landlock", "no rule restricts anything")
	}
	return nil
}

func (r Rule) check() error {
	switch {
	case r.intent == none:
		return fmt.Errorf("the zero Rule: %w", syscall.EINVAL)
	case r.optional && len(r.paths) == 0:
		return fmt.Errorf("only a path can be optional: %w", syscall.EINVAL)
	case r.intent == version && (r.abi < 1 || r.abi > NewestABI):
		return fmt.Errorf("the versions are 1 to %d: %w", NewestABI, syscall.EINVAL)
	case r.intent == logging && (r.log == 0 || r.log >= NotSubdomains<<1):
		return fmt.Errorf("unknown bits: %w", syscall.EINVAL)
	}
	for _, p := range r.paths {
		if !path.IsAbs(p) || strings.IndexByte(p, 0) >= 0 {
			return fmt.Errorf("%s is not an absolute path: %w", printable(p), syscall.EINVAL)
		}
	}
	return nil
}

func (t *translator) add(r Rule) error {
	switch r.intent {
	case bind:
		return t.addPorts(r, netBind)
	case connect:
		return t.addPorts(r, netConnect)
	case connectUnix:
		return t.addSockets(r)
	case scopeSignals:
		return t.addScope(r, scopedSignal)
	case scopeAbstract:
		return t.addScope(r, scopedAbstract)
	case logging:
		if ok, err := t.needs(r, abiLog, "what is logged"); !ok {
			return err
		}
		t.policy.log |= uint64(r.log)
		return nil
	case version:
		return nil
	}
	return t.addPaths(r)
}

// needs reports whether the kernel has what came with the version. Where it has not, that is an error or is noted.
func (t *translator) needs(r Rule, abi int, what string) (bool, error) {
	switch {
	case t.meant < abi:
		return false, &RuleError{Rule: r, Err: fmt.Errorf("came with ABI %d, and the rules ask for ABI %d: %w", abi, t.meant, syscall.EINVAL)}
	case t.kernel.abi >= abi:
		return true, nil
	case !t.best:
		return false, &RuleError{Rule: r, ABI: abi, Have: t.kernel.abi, Err: errors.ErrUnsupported}
	}
	t.leave(fmt.Sprintf("%s (ABI %d)", what, abi))
	return false, nil
}

// leave notes what is not enforced, once.
func (t *translator) leave(what string) {
	for _, l := range t.policy.left {
		if l == what {
			return
		}
	}
	t.policy.left = append(t.policy.left, what)
}

func (t *translator) addPorts(r Rule, access uint64) error {
	if ok, err := t.needs(r, abiNet, r.intent.String()); !ok {
		return err
	}
	t.policy.net |= access
	for _, p := range r.ports {
		t.policy.ports = append(t.policy.ports, portRule{access, p})
	}
	return nil
}

func (t *translator) addSockets(r Rule) error {
	if ok, err := t.needs(r, abiUnix, r.intent.String()); !ok {
		return err
	}
	t.policy.fs |= fsResolveUnix
	for _, p := range r.paths {
		t.policy.paths = append(t.policy.paths, pathRule{path: p, file: fsResolveUnix, optional: r.optional, rule: r})
	}
	return nil
}

func (t *translator) addScope(r Rule, scope uint64) error {
	if ok, err := t.needs(r, abiScope, r.intent.String()); !ok {
		return err
	}
	t.policy.scoped |= scope
	return nil
}

func (t *translator) addPaths(r Rule) error {
	if err := t.handle(r); err != nil {
		return err
	}
	file, dir := r.intent.rights()
	if r.intent == readWrite {
		var err error
		if dir, err = t.refer(r, dir); err != nil {
			return err
		}
	}
	for _, p := range r.paths {
		t.policy.paths = append(t.policy.paths, pathRule{p, file & t.policy.fs, dir & t.policy.fs, r.optional, r})
	}
	return nil
}

// handle makes all access to files that is meant denied unless a rule allows it.
func (t *translator) handle(r Rule) error {
	for _, later := range []struct {
		abi  int
		what string
	}{{1, "files"}, {abiRefer, "moving files between directories"}, {abiTruncate, "truncating files"}, {abiIoctl, "ioctl of devices"}} {
		if later.abi > t.meant {
			break
		}
		if _, err := t.needs(r, later.abi, later.what); err != nil {
			err.(*RuleError).ABI = t.newest()
			return err
		}
	}
	if t.kernel.abi > 0 {
		t.policy.fs |= fsRights(min(t.meant, t.kernel.abi))
	}
	return nil
}

// newest is the version that has all access to files that is meant.
func (t *translator) newest() int {
	for abi := t.meant; abi > 1; abi-- {
		if fsRights(abi) != fsRights(abi-1) {
			return abi
		}
	}
	return 1
}

// refer withholds the right to move files between directories where it might give more than it should.
func (t *translator) refer(r Rule, dir uint64) (uint64, error) {
	if t.policy.fs&fsRefer == 0 || t.kernel.fixed(erratumRefer) || len(r.paths) == 0 {
		return dir, nil
	}
	if !t.best {
		return 0, &RuleError{Rule: r, Err: &reason{"moving files between directories is not safe on a kernel without the fix of Landlock's erratum 3",
			errors.ErrUnsupported}}
	}
	t.leave("permission to move files between directories (erratum 3)")
	return dir &^ fsRefer, nil
}
