//go:build linux

package learn

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/seccomp"
)

// Profile are the calls that a program has made, each once, in the order of architecture and name. [Merge] makes it so.
type Profile []Call

// Call is a system call of one architecture.
type Call struct {
	Arch   seccomp.Arch
	Name   string   // "" if package seccomp does not know it
	Number int      // as filters see it
	Values []uint64 // of the argument that [Multiplexed] names; nil is any
	Hidden bool     // clone3, which is to be answered with ENOSYS
	Soft   bool     // other values than Values fail with EPERM, also where the policy kills
}

// argument is one that says what a call does.
type argument struct {
	index int
	mask  uint64 // of the bits that matter
}

const (
	whole = 1<<32 - 1 // the kernel takes an int

	newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
		unix.CLONE_NEWCGROUP
)

var multiplexed = map[string]argument{
	"arch_prctl": {0, whole}, "bpf": {0, whole}, "clone": {0, newNamespaces}, "fcntl": {1, whole}, "ioctl": {1, whole}, "keyctl": {0, whole},
	"personality": {0, whole}, "prctl": {0, whole}, "setns": {1, whole}, "socket": {0, whole}, "socketpair": {0, whole}, "unshare": {0, whole},
}

// Multiplexed gives the calls of whose arguments a [Recorder] notes one, and which: the family of socket and socketpair, the command of bpf, fcntl and
// keyctl, the request of ioctl, the option of arch_prctl and prctl, the value of personality, the kinds of namespaces of clone, setns and unshare.
func Multiplexed() map[string]int {
	m := map[string]int{}
	for name, a := range multiplexed {
		m[name] = a.index
	}
	return m
}

// in is the argument's index in an architecture: on s390x the first two of clone are exchanged (clone(2)).
func (a argument) in(arch seccomp.Arch) int {
	if arch == seccomp.S390X && a.mask == newNamespaces {
		return 1
	}
	return a.index
}

func (a argument) of(arch seccomp.Arch, args [6]uint64) uint64 { return args[a.in(arch)] & a.mask }

// condition holds for the value.
func (a argument) condition(arch seccomp.Arch, v uint64) seccomp.Condition {
	if a.mask == whole {
		return seccomp.Arg(a.in(arch)).Equal(v)
	}
	return seccomp.Arg(a.in(arch)).Masked(a.mask, v)
}

// Merge gives the calls of all profiles. Where one of them allows a call with any argument, so does the result; where one hides clone3, so does the
// result: what was learned from the other might need it, and falls back.
func Merge(profiles ...Profile) Profile {
	all := map[string]Call{}
	for _, p := range profiles {
		for _, c := range p {
			k := fmt.Sprint(c.Arch, " ", c.Name, " ", c.Number)
			if old, ok := all[k]; ok {
				c = old.with(c)
			}
			c.Values = slices.Clone(c.Values)
			slices.Sort(c.Values)
			c.Values = slices.Compact(c.Values)
			all[k] = c
		}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b Call) int {
		return cmp.Or(cmp.Compare(a.Arch, b.Arch), strings.Compare(a.Name, b.Name), cmp.Compare(a.Number, b.Number))
	})
}

func (c Call) with(d Call) Call {
	c.Hidden, c.Soft = c.Hidden || d.Hidden, c.Soft || d.Soft
	if c.Values == nil || d.Values == nil {
		c.Values = nil
		return c
	}
	c.Values = append(slices.Clone(c.Values), d.Values...)
	return c
}

// Names gives the names of the calls, of all architectures, each once. Calls without a name are left out.
func (p Profile) Names() []string {
	var names []string
	for _, c := range p {
		if c.Name != "" {
			names = append(names, c.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// WithInit adds what an init process (caisson.Init) needs, so that what was learned without one runs under one. Ioctl and prctl are added with the values that
// it uses; what the policy kills for others fails with EPERM instead, because the init process must not be ended by it.
func (p Profile) WithInit() Profile {
	arch := seccomp.Native()
	if arch == 0 {
		return p
	}
	init := Profile{{Name: "clone", Values: []uint64{0}}, {Name: "ioctl", Values: []uint64{unix.TIOCGSID, unix.TIOCSPGRP}, Soft: true},
		{Name: "prctl", Values: []uint64{unix.PR_SET_CHILD_SUBREAPER}, Soft: true}}
	for _, name := range []string{"close", "execveat", "exit_group", "fcntl", "getpid", "kill", "rt_sigaction", "rt_sigprocmask", "rt_sigtimedwait", "setpgid", "wait4", "write"} {
		init = append(init, Call{Name: name})
	}
	return Merge(p, init.in(arch))
}

// always are calls that are in each policy, and of which nobody is asked while a program is watched. A command is started by the first two and ended by
// the next; the others of the first line come when a signal does. Those of the second line every program makes; nobody must be
// asked about them, because programs do not expect that a signal interrupts them: close(2) would not be tried again.
var always = []string{"execve", "execveat", "exit", "exit_group", "rt_sigreturn", "sigreturn", "restart_syscall",
	"brk", "close", "dup", "dup2", "dup3", "munmap", "rt_sigaction", "rt_sigprocmask"}

// Policy allows what is in the profile. Everything else is answered by otherwise; calls of an architecture that is not in the profile, with the end of
// the process. The zero value of otherwise is EPERM, as in seccomp.Policy.
func (p Profile) Policy(otherwise seccomp.Action) seccomp.Policy {
	policy := seccomp.Policy{Default: otherwise, Arches: p.Arches()}
	for _, arch := range policy.Arches {
		policy.Rules = append(policy.Rules, p.rules(arch)...)
	}
	return policy
}

// Arches are the architectures of the profile; the native one is always among them, and comes first.
func (p Profile) Arches() []seccomp.Arch {
	var list []seccomp.Arch
	if native := seccomp.Native(); native != 0 {
		list = append(list, native)
	}
	for _, c := range p {
		if !slices.Contains(list, c.Arch) {
			list = append(list, c.Arch)
		}
	}
	return list
}

// rules are those of one architecture: first what is refused or restricted, then the rest.
func (p Profile) rules(arch seccomp.Arch) (rules []seccomp.Rule) {
	only := []seccomp.Arch{arch}
	plain := seccomp.Rule{Names: slices.Clone(always), Action: seccomp.Allow, Arches: only}
	for _, c := range p {
		switch {
		case c.Arch != arch:
		case c.Hidden:
			rules = append(rules, seccomp.Rule{Names: []string{c.Name}, Action: seccomp.Errno(unix.ENOSYS), Arches: only})
		case c.Name == "":
			plain.Numbers = append(plain.Numbers, c.Number)
		case c.Values != nil:
			rules = append(rules, seccomp.Rule{Names: []string{c.Name}, Action: seccomp.Allow, Arches: only, When: c.when()})
			if c.Soft {
				rules = append(rules, seccomp.Rule{Names: []string{c.Name}, Action: seccomp.Errno(unix.EPERM), Arches: only})
			}
		case !slices.Contains(plain.Names, c.Name):
			plain.Names = append(plain.Names, c.Name)
		}
	}
	return append(rules, plain)
}

func (c Call) when() (any seccomp.Any) {
	for _, v := range c.Values {
		any = append(any, seccomp.All{multiplexed[c.Name].condition(c.Arch, v)})
	}
	return any
}
