//go:build linux

package seccomp

import (
	"cmp"
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

// lowering looks up the calls of all rules.
func (p Policy) lowering() lowering {
	l := lowering{policy: p, names: make([][]namedCall, len(p.Rules))}
	total := 0
	for i, r := range p.Rules {
		list := make([]namedCall, 0, len(r.Names))
		for _, name := range r.Names {
			list = appendNamed(list, name, !isGroup(name))
		}
		l.names[i] = list
		total += len(list)
	}
	l.list = make([]ruleFor, 0, total+total/4) // multiplexers add some
	l.sorted = make([]uint64, 0, cap(l.list))
	return l
}

// lower works out the policy for one architecture.
func (l *lowering) lower(a Arch) (*abi, error) {
	p := l.policy
	l.arch, l.above, l.multiplexed, l.behind, l.list = a, p.above(a), a.multiplexes(), nil, l.list[:0]
	if p.oci && l.multiplexed {
		l.behind = behind(a)
	}
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

// lowering collects the branches of the calls of one architecture after the other.
type lowering struct {
	policy      Policy
	arch        Arch
	names       [][]namedCall
	list        []ruleFor // of all calls, in the order of the rules
	sorted      []uint64  // their keys
	same        []ruleFor // of one call
	above       uint32    // numbers above it are newer
	multiplexed bool
	behind      map[*call]concealed // calls that can be made by way of a multiplexer
}

// ruleFor is a rule that names a call.
type ruleFor struct {
	call     *call
	branches []branch
	rule     int
	nr       uint32
	explicit bool // by its own name, not that of a group
	through  bool // by way of a multiplexer
	plain    bool // the rule has no condition, nor one that always holds
}

func (l *lowering) add(index int, r Rule) {
	var always []branch // shared by all calls of a rule without conditions
	if r.When == nil {
		always = r.resolve(nil, l.arch, index)
	}
	for _, k := range l.names[index] {
		if via, ok := l.behind[k.call]; ok {
			l.apart(index, via, r)
		}
		if nr := k.number(l.arch); nr >= 0 {
			branches := always
			if branches == nil {
				branches = r.resolve(k.call, l.arch, index)
			}
			l.list = append(l.list, ruleFor{nr: uint32(nr), call: k.call, explicit: k.explicit, branches: branches, rule: index, plain: r.When == nil})
		}
	}
	for _, nr := range r.Numbers {
		k := l.arch.byNumber(nr)
		l.list = append(l.list, ruleFor{nr: uint32(nr), call: k, explicit: true, branches: r.resolve(k, l.arch, index), rule: index, plain: r.When == nil})
	}
}

// collect gives the rules of one call, without what a rule says twice about it.
func (l *lowering) collect(keys []uint64) []ruleFor {
	l.same = l.same[:0]
	for _, key := range keys {
		r := l.list[uint32(key)]
		i := slices.IndexFunc(l.same, func(o ruleFor) bool { return o.rule == r.rule && !o.through && !r.through })
		if i >= 0 {
			l.same[i].explicit = l.same[i].explicit || r.explicit
			continue
		}
		l.same = append(l.same, r)
	}
	return l.same
}

// keys are the numbers of the list in their order, each with its place in the list in the lower half.
func (l *lowering) keys() []uint64 {
	l.sorted = l.sorted[:0]
	for i := range l.list {
		l.sorted = append(l.sorted, uint64(l.list[i].nr)<<32|uint64(i))
	}
	slices.Sort(l.sorted)
	return l.sorted
}

func (l *lowering) finish() (*abi, error) {
	p := l.policy
	b := &abi{arch: l.arch, otherwise: p.fallback(), above: l.above, newer: p.newer()}
	b.decisions = make([]decision, 0, len(l.list))
	for keys, n := l.keys(), 0; len(keys) > 0; keys = keys[n:] {
		nr := keys[0] >> 32
		for n = 1; n < len(keys) && keys[n]>>32 == nr; n++ {
		}
		d, err := l.decide(uint32(nr), l.collect(keys[:n]))
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
			if i := b.earlier(d.branches); i >= 0 {
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
			for i := range d.branches {
				if first := &d.branches[i]; first.action != b.action && !first.disjoint(&b) {
					return d, &ContradictionError{Call: callName(d.call, nr), Arch: l.arch, First: first.rule, Second: b.rule,
						FirstAction: first.action, SecondAction: b.action}
				}
			}
			if b.earlier(d.branches) < 0 {
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

func (l *lowering) newer(nr uint32) bool { return isNewer(l.arch, nr, l.above) }

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
