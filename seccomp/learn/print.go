//go:build linux

package learn

import (
	"errors"
	"fmt"
	"go/format"
	"slices"
	"strings"
	"syscall"

	"github.com/caisson-dev/caisson/seccomp"
)

// OCI gives the profile in the form of Docker (--security-opt seccomp=FILE) and of the OCI runtime specification; encoding/json writes it. Otherwise
// is what happens to all other calls: seccomp.Errno, KillProcess, KillThread or Log; the zero value is EPERM. A call without a name has no
// place in it, and is an error with errors.ErrUnsupported, as is another action. Restrictions differ between architectures in one call only, clone; the profile of
// s390x cannot be mixed with others where it is restricted. Soft calls are as others.
func (p Profile) OCI(otherwise seccomp.Action) (*seccomp.Profile, error) {
	q := &seccomp.Profile{}
	if err := setDefault(q, otherwise); err != nil {
		return nil, err
	}
	for _, a := range p.Arches() {
		q.Architectures = append(q.Architectures, ociArch(a))
	}
	plain := &seccomp.ProfileRule{Names: slices.Clone(always), Action: "SCMP_ACT_ALLOW"}
	for _, c := range p.joined() {
		switch {
		case c.Name == "":
			return nil, fmt.Errorf("call %d of %v has no name: %w", c.Number, c.Arch, errors.ErrUnsupported)
		case c.Hidden:
			enosys := uint(syscall.ENOSYS)
			q.Syscalls = append(q.Syscalls, &seccomp.ProfileRule{Names: []string{c.Name}, Action: "SCMP_ACT_ERRNO", ErrnoRet: &enosys})
		case c.Values != nil:
			q.Syscalls = append(q.Syscalls, c.ociRules()...)
		default:
			plain.Names = append(plain.Names, c.Name)
		}
	}
	slices.Sort(plain.Names)
	plain.Names = slices.Compact(plain.Names)
	q.Syscalls = append(q.Syscalls, plain)
	return q, nil
}

// joined are the calls by name: OCI profiles have the same rules for all architectures.
func (p Profile) joined() Profile {
	q := slices.Clone(p)
	for i := range q {
		if q[i].Name != "" {
			q[i].Number = 0
			if q[i].Arch != seccomp.S390X {
				q[i].Arch = 0
			}
		}
	}
	return Merge(q)
}

func setDefault(q *seccomp.Profile, a seccomp.Action) error {
	if a == 0 {
		a = seccomp.Errno(syscall.EPERM)
	}
	if e, ok := a.Errno(); ok {
		n := uint(e)
		q.DefaultAction, q.DefaultErrnoRet = "SCMP_ACT_ERRNO", &n
		return nil
	}
	names := map[seccomp.Action]string{seccomp.KillProcess: "SCMP_ACT_KILL_PROCESS", seccomp.KillThread: "SCMP_ACT_KILL_THREAD", seccomp.Log: "SCMP_ACT_LOG"}
	if q.DefaultAction = names[a]; q.DefaultAction == "" {
		return fmt.Errorf("the action %v: %w", a, errors.ErrUnsupported)
	}
	return nil
}

// ociRules are one rule for each value: what two conditions in one rule mean differs between runtimes.
func (c Call) ociRules() (rules []*seccomp.ProfileRule) {
	a := multiplexed[c.Name]
	for _, v := range c.Values {
		arg := &seccomp.ProfileArg{Index: uint(a.in(c.Arch)), Value: v, Op: "SCMP_CMP_EQ"}
		if a.mask != whole {
			arg.Value, arg.ValueTwo, arg.Op = a.mask, v, "SCMP_CMP_MASKED_EQ"
		}
		rules = append(rules, &seccomp.ProfileRule{Names: []string{c.Name}, Action: "SCMP_ACT_ALLOW", Args: []*seccomp.ProfileArg{arg}})
	}
	return rules
}

// ociNames are the names of architectures in OCI profiles.
var ociNames = map[seccomp.Arch]string{seccomp.X86_64: "X86_64", seccomp.I386: "X86", seccomp.X32: "X32", seccomp.ARM64: "AARCH64", seccomp.ARM: "ARM",
	seccomp.RISCV64: "RISCV64", seccomp.S390X: "S390X", seccomp.PPC64LE: "PPC64LE", seccomp.LOONG64: "LOONGARCH64", seccomp.MIPS64: "MIPSEL64"}

func ociArch(a seccomp.Arch) string { return "SCMP_ARCH_" + ociNames[a] }

// goArch is the constant's name in package seccomp.
func goArch(a seccomp.Arch) string {
	if a == seccomp.MIPS64 {
		return "seccomp.MIPS64"
	}
	return "seccomp." + strings.ToUpper(a.String())
}

// Go gives the policy as a Go expression of type seccomp.Policy, formatted.
func (p Profile) Go(otherwise seccomp.Action) string {
	policy := p.Policy(otherwise)
	var b strings.Builder
	b.WriteString("seccomp.Policy{\n")
	if otherwise != 0 {
		fmt.Fprintf(&b, "Default: %s,\n", goAction(otherwise))
	}
	fmt.Fprintf(&b, "Arches: []seccomp.Arch{%s},\nRules: []seccomp.Rule{\n", goArches(policy.Arches))
	for _, r := range policy.Rules {
		writeRule(&b, r)
	}
	b.WriteString("},\n}")
	text, err := format.Source([]byte(b.String()))
	if err != nil {
		return b.String()
	}
	return string(text)
}

func goArches(list []seccomp.Arch) string {
	names := make([]string, len(list))
	for i, a := range list {
		names[i] = goArch(a)
	}
	return strings.Join(names, ", ")
}

func goAction(a seccomp.Action) string {
	if e, ok := a.Errno(); ok {
		return fmt.Sprintf("seccomp.Errno(%d)", int(e))
	}
	switch a {
	case seccomp.KillProcess:
		return "seccomp.KillProcess"
	case seccomp.KillThread:
		return "seccomp.KillThread"
	case seccomp.Log:
		return "seccomp.Log"
	case seccomp.Allow:
		return "seccomp.Allow"
	case seccomp.Notify:
		return "seccomp.Notify"
	}
	return fmt.Sprintf("seccomp.ActionOf(%#x)", a.Return())
}

func writeRule(b *strings.Builder, r seccomp.Rule) {
	b.WriteString("{Action: " + goAction(r.Action) + ", Arches: []seccomp.Arch{" + goArches(r.Arches) + "}")
	if len(r.Numbers) > 0 {
		fmt.Fprintf(b, ", Numbers: %#v", r.Numbers)
	}
	if r.When != nil {
		b.WriteString(", When: seccomp.Any{")
		for _, all := range r.When {
			c := all[0]
			if c.Op == seccomp.MaskedEqual {
				fmt.Fprintf(b, "{seccomp.Arg(%d).Masked(%#x, %#x)}, ", c.Arg, c.Mask, c.Value)
			} else {
				fmt.Fprintf(b, "{seccomp.Arg(%d).Equal(%#x)}, ", c.Arg, c.Value)
			}
		}
		b.WriteString("}")
	}
	b.WriteString(", Names: []string{")
	for i, name := range r.Names {
		if i%8 == 0 && len(r.Names) > 1 {
			b.WriteString("\n")
		}
		fmt.Fprintf(b, "%q, ", name)
	}
	if len(r.Names) > 1 {
		b.WriteString("\n")
	}
	b.WriteString("}},\n")
}
