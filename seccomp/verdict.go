//go:build linux

package seccomp

import (
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/net/bpf"
)

// Verdict runs the program on golang.org/x/net/bpf's machine for one call and gives its answer. The number is that of [Arch.Number]; -1 is a call
// that a tracer suppresses. Missing arguments are 0.
func (p *Program) Verdict(a Arch, nr int, args ...uint64) Action {
	vm, err := bpf.NewVM(p.code())
	if err != nil {
		return 0 // Compile has assembled it, so there is none
	}
	value, err := vm.Run(data(a, nr, args))
	if err != nil {
		return 0
	}
	return ActionOf(uint32(value))
}

// data is struct seccomp_data as the machine reads it: words in network order, though for the kernel they are in its own. The two words
// of an argument stand as on the architecture.
func data(a Arch, nr int, args []uint64) []byte {
	b := make([]byte, dataSize)
	binary.BigEndian.PutUint32(b[offsetNumber:], uint32(nr))
	binary.BigEndian.PutUint32(b[offsetArch:], a.Token())
	for i, v := range args[:min(len(args), 6)] {
		first, second := uint32(v), uint32(v>>32)
		if a.info().big {
			first, second = second, first
		}
		binary.BigEndian.PutUint32(b[offsetArgs+8*i:], first)
		binary.BigEndian.PutUint32(b[offsetArgs+8*i+4:], second)
	}
	return b
}

// Reason is why a call is answered as it is.
type Reason struct {
	Arch   Arch
	Number int
	Call   string // the name; "" where the tables have none
	Answer Action
	// Rule is the rule of the policy that answers, counted from 0; -1 where none does.
	Rule int
	// Why says it in words: "rule 17", "default", "newer than all known calls", "other architecture".
	Why string
}

// String gives all on one line: "x86_64 mount: errno EPERM (default)".
func (r Reason) String() string {
	name := r.Call
	if name == "" {
		name = fmt.Sprintf("system call %d", r.Number)
	}
	return fmt.Sprintf("%v %s: %v (%s)", r.Arch, name, r.Answer, r.Why)
}

// Explain works out from the policy, rule by rule, why a call is answered as it is.
func (p *Program) Explain(a Arch, nr int, args ...uint64) Reason {
	var v [6]uint64
	copy(v[:], args)
	a = p.seenAs(a, nr)
	name, _ := a.Name(nr)
	r := Reason{Arch: a, Number: nr, Call: name}
	b := p.abi(a)
	if b == nil {
		r.Rule, r.Answer, r.Why = -1, p.policy.otherArch(), "other architecture"
		return r
	}
	branch := b.at(uint32(nr)).answer(v)
	r.Answer, r.Rule = branch.action, branch.rule
	switch {
	case branch.rule >= 0:
		r.Why = p.policy.describe(branch.rule)
	case isNewer(b.arch, uint32(nr), b.above):
		r.Why = "newer than all known calls"
	default:
		r.Why = "default"
	}
	return r
}

// seenAs is the architecture that the kernel and the filter take the call for: x86-64 and x32 differ by the number alone.
func (p *Program) seenAs(a Arch, nr int) Arch {
	if a != X86_64 && a != X32 {
		return a
	}
	n := uint32(nr)
	if n == 1<<32-1 { // never x32, but where the program knows that alone
		if p.abi(X86_64) == nil {
			return X32
		}
		return X86_64
	}
	if n >= x32Bit {
		return X32
	}
	return X86_64
}

func (p *Program) abi(a Arch) *abi {
	for _, b := range p.abis {
		if b.arch == a {
			return b
		}
	}
	return nil
}

func (p Policy) describe(rule int) string {
	r := p.Rules[rule]
	names := strings.Join(r.Names[:min(len(r.Names), 3)], " ")
	if len(r.Names) > 3 {
		names += " ..."
	}
	text := fmt.Sprintf("rule %d: %s", rule, names)
	if r.When != nil {
		text += ", " + r.When.String()
	}
	return text
}
