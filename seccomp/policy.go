//go:build linux

package seccomp

import (
	"math"
	"slices"
	"syscall"
)

// Policy says what the kernel does with which system call. It is a value; [Policy.Compile] makes a program of it.
//
// Rules are tried in their order, and the first one that names the call and whose conditions hold answers it. The zero value
// answers EPERM to all calls.
type Policy struct {
	// Default answers what no rule does. The zero value is Errno(EPERM).
	Default Action
	// Arches are the architectures that the policy knows. Nil is what this kernel serves, Native().Family().
	Arches []Arch
	// OtherArch answers calls by any other architecture. The zero value is KillProcess.
	OtherArch Action
	// Newer answers calls with numbers above those that the tables know, unless a rule names them by number: nobody can have meant to
	// allow them. The zero value is Errno(ENOSYS), whatever Default is: programs then do what they did before the call existed.
	Newer Action
	Rules []Rule

	newest map[Arch]uint32 // what Newer begins above, where it is not the table that says it
	oci    bool            // rules have libseccomp's meaning, in which multiplexed calls are taken apart by the profile
}

// Rule is one answer for some system calls.
type Rule struct {
	// Names are names of system calls, and of groups ("@mount"): see [Groups]. A name that does not exist is a [*NameError]; one that some of the
	// policy's architectures do not have is not. On architectures where one call stands for many (socketcall(2), ipc(2)), the
	// rule holds there too; its conditions cannot be seen there, so the strictest of the possible answers is given.
	Names []string
	// Numbers are calls without a name in the tables, by number. They need Arches with one element.
	Numbers []int
	// Action is the answer. The zero value is an error.
	Action Action
	// When restricts the rule to calls with certain arguments; nil is all calls.
	When Any
	// Arches restricts the rule to some of the policy's architectures; nil is all.
	Arches []Arch
	// SkipUnknown makes names that do not exist no error, for policies that name calls newer than the tables.
	SkipUnknown bool
}

func (p Policy) fallback() Action  { return p.Default.or(Errno(syscall.EPERM)) }
func (p Policy) otherArch() Action { return p.OtherArch.or(KillProcess) }
func (p Policy) newer() Action     { return p.Newer.or(Errno(syscall.ENOSYS)) }

// arches are the policy's architectures, each once.
func (p Policy) arches() ([]Arch, error) {
	list := p.Arches
	if list == nil && Native() != 0 {
		list = Native().Family()
	}
	if len(list) == 0 {
		return nil, unsupported("compile a policy", "there is no table of system calls for this architecture: name some in Arches")
	}
	var once []Arch
	for _, a := range list {
		if !a.valid() {
			return nil, &NameError{Kind: "architecture", Name: a.String()}
		}
		if !slices.Contains(once, a) {
			once = append(once, a)
		}
	}
	return once, nil
}

// above is the number that Newer begins above.
func (p Policy) above(a Arch) uint32 {
	if n, ok := p.newest[a]; ok {
		return n
	}
	return uint32(a.Newest())
}

// check finds what is wrong with the policy, rule by rule, as far as it does not depend on the architecture.
func (p Policy) check() error {
	for _, a := range []Action{p.Default, p.OtherArch, p.Newer} {
		if err := a.check(); err != nil {
			return err
		}
	}
	for i, r := range p.Rules {
		if err := r.check(); err != nil {
			return &RuleError{i, err}
		}
	}
	return nil
}

func (a Action) check() error {
	if a == 0 {
		return nil
	}
	if a>>32 != given>>32 || a.name() == "" || a.kind() == Errno(0).kind() && a.Data() > MaxErrno {
		return &NameError{Kind: "action", Name: a.String()}
	}
	return nil
}

func (r Rule) check() error {
	if r.Action == 0 {
		return invalid("it has no action")
	}
	if err := r.Action.check(); err != nil {
		return err
	}
	if len(r.Names) == 0 && len(r.Numbers) == 0 && !r.SkipUnknown {
		return invalid("it names no system call")
	}
	if len(r.Numbers) > 0 && len(r.Arches) != 1 {
		return invalid("numbers mean something in one architecture only")
	}
	for _, n := range r.Numbers {
		if n < 0 || n > math.MaxInt32 {
			return invalid("a system call number is an int that is not negative")
		}
	}
	for _, a := range r.Arches {
		if !a.valid() {
			return &NameError{Kind: "architecture", Name: a.String()}
		}
	}
	return r.checkNames()
}

func (r Rule) checkNames() error {
	if r.When != nil && len(r.When) == 0 {
		return invalid("When has no alternative: the rule would never hold")
	}
	for _, l := range r.When {
		for _, c := range l {
			if err := c.check(); err != nil {
				return err
			}
		}
	}
	for _, name := range r.Names {
		if isGroup(name) {
			if _, err := Group(name); err != nil {
				return err
			}
			continue
		}
		k, ok := findCall(name)
		if !ok && !r.SkipUnknown {
			return &NameError{Kind: "system call", Name: name}
		}
		if ok {
			if err := r.fits(k); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r Rule) fits(k *call) error {
	for _, l := range r.When {
		for _, c := range l {
			if err := c.fits(k); err != nil {
				return err
			}
		}
	}
	return nil
}
