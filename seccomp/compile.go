//go:build linux

package seccomp

import (
	"math"
	"slices"
	"sync"

	"golang.org/x/net/bpf"
)

// offsets in struct seccomp_data of linux/seccomp.h.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16
	dataSize     = 64
)

// maxInstructions is BPF_MAXINSNS.
const maxInstructions = 4096

// Compile makes a program of the policy. It depends on the policy alone, not on the machine: with Arches given, on any machine. Errors are
// [*RuleError], [*ContradictionError] and [*SizeError], all of which are EINVAL or E2BIG for errors.Is.
func (p Policy) Compile() (*Program, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	arches, err := p.arches()
	if err != nil {
		return nil, err
	}
	q := &Program{policy: p, abis: make([]*abi, len(arches))}
	l := p.lowering()
	for i, a := range arches {
		if q.abis[i], err = l.lower(a); err != nil {
			return nil, err
		}
	}
	g := newGraph()
	q.raw = emit(g, g.dispatch(p, q.abis))
	if len(q.raw) > maxInstructions {
		return nil, &SizeError{Instructions: len(q.raw), Limit: maxInstructions}
	}
	q.code, q.bytes = sync.OnceValue(func() []bpf.Instruction { return instructions(q.raw) }), pack(q.raw)
	return q, nil
}

// dispatch tells the architectures apart by their tokens, in the order of the policy.
func (g *graph) dispatch(p Policy, abis []*abi) node {
	next := g.answer(p.otherArch())
	for i := len(abis) - 1; i >= 0; i-- {
		token := abis[i].arch.Token()
		if slices.ContainsFunc(abis[:i], func(b *abi) bool { return b.arch.Token() == token }) {
			continue // x86-64 and x32 have one token, and one tree
		}
		next = g.test(opEqual, token, g.load(offsetNumber, g.tree(g.numbers(p, abis, token))), next)
	}
	return g.load(offsetArch, next)
}

// numbers are the segments of all numbers that come with the token. Numbers of x32 have their own range, and where the policy does not know
// x32, or knows x32 alone, the other range is another architecture. -1 is what a tracer sets to suppress a call (ptrace(2)): it is never x32.
func (g *graph) numbers(p Policy, abis []*abi, token uint32) (list []segment) {
	var low, high *abi
	for _, b := range abis {
		switch {
		case b.arch.Token() != token:
		case b.arch == X32:
			high = b
		default:
			low = b
		}
	}
	if token != X86_64.Token() {
		return g.segments(low, 0, math.MaxUint32)
	}
	const suppressed = math.MaxUint32
	list = append(list, g.part(p, low, 0, x32Bit-1)...)
	list = append(list, g.part(p, high, x32Bit, suppressed-1)...)
	if low == nil {
		low = high
	}
	return append(list, segment{suppressed, g.decision(low.at(suppressed))})
}

func (g *graph) part(p Policy, b *abi, from, to uint32) []segment {
	if b == nil {
		return []segment{{from, g.answer(p.otherArch())}}
	}
	return g.segments(b, from, to)
}

// segments are those of one architecture, between two numbers.
func (g *graph) segments(b *abi, from, to uint32) (list []segment) {
	g.big = b.arch.info().big
	plain, newer := g.answer(b.otherwise), g.answer(b.newer)
	between := func(nr uint32) node { // the answer to a number that there is no decision for
		if isNewer(b.arch, nr, b.above) {
			return newer
		}
		return plain
	}
	list = make([]segment, 0, 2*len(b.decisions)+5)
	add := func(start uint32, n node) {
		if k := len(list); k == 0 || list[k-1].node != n {
			list = append(list, segment{start, n})
		}
	}
	at := from
	gap := func(until uint32) { // the numbers without a decision, up to the next one that has one
		for _, edge := range b.shifts() {
			if at < edge && edge < until {
				add(at, between(at))
				at = edge
			}
		}
		if at < until {
			add(at, between(at))
		}
	}
	for _, d := range b.decisions {
		if d.nr < from || d.nr > to {
			continue
		}
		gap(d.nr)
		add(d.nr, g.decision(d))
		if at = d.nr + 1; d.nr == to {
			return list
		}
	}
	gap(to)
	add(to, between(to))
	return list
}

// shifts are the numbers at which the answer to numbers without a decision may change, in their order.
func (b *abi) shifts() [3]uint32 {
	first, last := b.arch.apartFrom()
	list := [3]uint32{b.above + 1, first, last + 1}
	slices.Sort(list[:])
	return list
}
