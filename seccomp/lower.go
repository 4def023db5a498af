//go:build linux

package seccomp

import (
	"cmp"
	"maps"
	"slices"
)

// decision is what a policy says about one call of one architecture: the branches are tried in turn, and the last has no
// condition.
type decision struct {
	nr       uint32
	call     *call // nil for a call given by number only
	branches []branch
}

// abi is a policy for one architecture.
type abi struct {
	arch      Arch
	decisions []decision // in the order of the numbers
	otherwise Action     // for numbers without a decision
	above     uint32     // numbers above it get newer
	newer     Action
}

// namedCall is a call that a rule names, by its own name or by that of a group.
type namedCall struct {
	*call
	explicit bool
}

// named looks up the calls of all rules.
func (p Policy) named() [][]namedCall {
	list := make([][]namedCall, len(p.Rules))
	for i, r := range p.Rules {
		list[i] = make([]namedCall, 0, len(r.Names))
		for _, name := range r.Names {
			for _, k := range expand(name) {
				list[i] = append(list[i], namedCall{k, !isGroup(name)})
			}
		}
	}
	return list
}

// lower works out the policy for one architecture.
func (p Policy) lower(a Arch, names [][]namedCall) (*abi, error) {
	l := lowering{policy: p, arch: a, names: names, rules: make(map[uint32][]ruleFor, 512), multiplexed: a.multiplexes()}
	for i, r := range p.Rules {
		if r.Arches == nil || slices.Contains(r.Arches, a) {
			l.add(i, r)
		}
	}
	if !p.oci && l.multiplexed {
		l.multiplex()
	}
	return l.finish()
}

// lowering collects the branches of the calls of one architecture.
type lowering struct {
	policy      Policy
	arch        Arch
	names       [][]namedCall
	rules       map[uint32][]ruleFor // by number
	multiplexed bool
}

// ruleFor is a rule that names a call.
type ruleFor struct {
	call     *call
	explicit bool // by its own name, not that of a group
	branches []branch
	rule     int
	through  bool // by way of a multiplexer
	plain    bool // the rule has no condition, nor one that always holds
}

func (l *lowering) add(index int, r Rule) {
	var always []branch // shared by all calls of a rule without conditions
	if r.When == nil {
		always = r.resolve(nil, l.arch, index)
	}
	for _, k := range l.names[index] {
		if l.policy.oci && l.multiplexed {
			l.apart(index, k.name, r)
		}
		if nr := k.number(l.arch); nr >= 0 {
			branches := always
			if branches == nil {
				branches = r.resolve(k.call, l.arch, index)
			}
			l.put(uint32(nr), ruleFor{call: k.call, explicit: k.explicit, branches: branches, rule: index, plain: r.When == nil})
		}
	}
	for _, nr := range r.Numbers {
		k := l.arch.byNumber(nr)
		l.put(uint32(nr), ruleFor{call: k, explicit: true, branches: r.resolve(k, l.arch, index), rule: index, plain: r.When == nil})
	}
}

// put drops what a rule says twice about a call.
func (l *lowering) put(nr uint32, r ruleFor) {
	list := l.rules[nr]
	if i := slices.IndexFunc(list, func(o ruleFor) bool { return o.rule == r.rule && !o.through }); i >= 0 {
		list[i].explicit = list[i].explicit || r.explicit
		return
	}
	l.rules[nr] = append(list, r)
}

func (l *lowering) finish() (*abi, error) {
	p := l.policy
	b := &abi{arch: l.arch, otherwise: p.fallback(), above: p.above(l.arch), newer: p.newer()}
	b.decisions = make([]decision, 0, len(l.rules))
	for _, nr := range slices.Sorted(maps.Keys(l.rules)) {
		d, err := l.decide(nr, l.rules[nr])
		if err != nil {
			return nil, err
		}
		b.decisions = append(b.decisions, d)
	}
	return b, nil
}

// decide puts the branches of a call one after the other, up to the first without a condition.
func (l *lowering) decide(nr uint32, rules []ruleFor) (decision, error) {
	if l.policy.oci {
		return l.decideOCI(nr, rules)
	}
	d := decision{nr: nr, call: rules[0].call}
	if rules[0].plain && len(rules) == 1 {
		d.branches = rules[0].branches
		return d, nil
	}
	closed := false
	for _, r := range rules {
		for _, b := range r.branches {
			if i := slices.IndexFunc(d.branches, func(earlier branch) bool { return b.implies(earlier) }); i >= 0 {
				if first := d.branches[i]; r.explicit && first.action != b.action {
					return d, &ContradictionError{Call: callName(d.call, nr), Arch: l.arch, First: first.rule, Second: b.rule,
						FirstAction: first.action, SecondAction: b.action}
				}
				continue
			}
			d.branches = append(d.branches, b)
			closed = len(b.when) == 0
		}
	}
	if !closed {
		d.branches = append(d.branches, branch{action: l.otherwise(nr), rule: -1})
	}
	return d, nil
}

// decideOCI is libseccomp's way: the first rule without a condition wins, wherever it stands. Others with different answers may not both hold:
// which of them libseccomp would take depends on how its tree happens to grow.
func (l *lowering) decideOCI(nr uint32, rules []ruleFor) (decision, error) {
	d := decision{nr: nr, call: rules[0].call}
	for _, r := range rules {
		if r.plain {
			d.branches = r.branches
			return d, nil
		}
	}
	for _, r := range rules {
		for _, b := range r.branches {
			for _, first := range d.branches {
				if first.action != b.action && !first.disjoint(b) {
					return d, &ContradictionError{Call: callName(d.call, nr), Arch: l.arch, First: first.rule, Second: b.rule,
						FirstAction: first.action, SecondAction: b.action}
				}
			}
			if !slices.ContainsFunc(d.branches, func(earlier branch) bool { return b.implies(earlier) }) {
				d.branches = append(d.branches, b)
			}
		}
	}
	d.branches = append(d.branches, branch{action: l.otherwise(nr), rule: -1})
	return d, nil
}

// otherwise is the answer to a number when no rule's conditions hold.
func (l *lowering) otherwise(nr uint32) Action {
	if l.newer(nr) {
		return l.policy.newer()
	}
	return l.policy.fallback()
}

func (l *lowering) newer(nr uint32) bool { return isNewer(l.arch, nr, l.policy.above(l.arch)) }

// isNewer reports whether a number lies above all that are known.
func isNewer(a Arch, nr, above uint32) bool { return nr > above && !a.apart(nr) }

// at gives the decision for a number.
func (b *abi) at(nr uint32) decision {
	i, ok := slices.BinarySearchFunc(b.decisions, nr, func(d decision, nr uint32) int { return cmp.Compare(d.nr, nr) })
	if ok {
		return b.decisions[i]
	}
	action := b.otherwise
	if isNewer(b.arch, nr, b.above) {
		action = b.newer
	}
	return decision{nr: nr, call: b.arch.byNumber(int(int32(nr))), branches: []branch{{action: action, rule: -1}}}
}
