//go:build linux

package seccomp

import (
	"math"
	"slices"
)

// match is a condition for one call in one architecture, brought into one of two forms.
type match struct {
	arg    int
	bits   int  // 16, 32 or 64: how much of the argument is looked at
	masked bool // argument & lo == hi; else lo <= argument <= hi
	not    bool // the contrary
	lo, hi uint64
}

// verdict of a match that does not depend on the argument.
const (
	depends = iota
	always
	never
)

// resolve says what the condition means for the call in the architecture. A call without a name is looked at as the type
// of the architecture's register.
func (c Condition) resolve(k *call, a Arch) match {
	m := match{arg: c.Arg, bits: c.width(k, a)}
	if c.Width == Libseccomp && m.bits == 32 {
		c.Value, c.Mask, c.High = c.Value&math.MaxUint32, c.Mask&math.MaxUint32, c.High&math.MaxUint32
	}
	switch c.Op {
	case MaskedEqual, MaskedNot:
		m.masked, m.not, m.lo, m.hi = true, c.Op == MaskedNot, c.Mask, c.Value
	case Equal, NotEqual:
		m.not, m.lo, m.hi = c.Op == NotEqual, c.Value, c.Value
	case Less, GreaterEqual: // not below
		m.not, m.lo, m.hi = c.Op == Less, c.Value, math.MaxUint64
	case LessEqual, Greater:
		m.not, m.lo, m.hi = c.Op == Greater, 0, c.Value
	case Within, Outside:
		m.not, m.lo, m.hi = c.Op == Outside, c.Value, c.High
	}
	return m.shorten()
}

func (c Condition) width(k *call, a Arch) int {
	switch c.Width {
	case Low32:
		return 32
	case Full64:
		return 64
	case Libseccomp:
		if a == X32 || a.info().bits == 32 {
			return 32
		}
		return 64
	}
	if k == nil {
		return a.info().bits
	}
	return k.bits(a, c.Arg)
}

func (m *match) most() uint64 { return math.MaxUint64 >> (64 - m.bits) }

// shorten cuts what the argument cannot have.
func (m match) shorten() match {
	if m.masked {
		m.lo &= m.most()
		return m
	}
	m.hi = min(m.hi, m.most())
	return m
}

// constant tells whether the match depends on the argument at all.
func (m match) constant() int {
	result := depends
	switch {
	case m.masked && m.hi&^m.lo != 0, !m.masked && m.lo > m.hi:
		result = never
	case m.masked && m.lo == 0, !m.masked && m.lo == 0 && m.hi == m.most():
		result = always
	}
	if m.not && result != depends {
		return always + never - result
	}
	return result
}

// holds is the match done by hand.
func (m match) holds(args [6]uint64) bool { return m.includes(args[m.arg]) }

func (m *match) includes(v uint64) bool {
	v &= m.most()
	if m.masked {
		return (v&m.lo == m.hi) != m.not
	}
	return (v >= m.lo && v <= m.hi) != m.not
}

// implies reports whether other holds wherever m does; false also where it is hard to say.
func (m *match) implies(other *match) bool {
	switch {
	case m.arg != other.arg || m.bits != other.bits:
		return false
	case m.masked || other.masked:
		return *m == *other
	case !m.not && !other.not:
		return m.lo >= other.lo && m.hi <= other.hi
	case m.not && other.not:
		return m.lo <= other.lo && m.hi >= other.hi
	case !m.not && other.not:
		return m.hi < other.lo || m.lo > other.hi
	}
	return false
}

// disjoint reports whether m and other can never hold together; false also where it is hard to say.
func (m *match) disjoint(other *match) bool {
	switch {
	case m.arg != other.arg || m.bits != other.bits:
		return false
	case m.masked && other.masked:
		both := m.lo & other.lo
		return !m.not && !other.not && m.hi&both != other.hi&both
	case m.masked:
		return other.disjoint(m)
	case other.masked && !m.not && m.lo == m.hi:
		return (m.lo&other.lo == other.hi) == other.not
	}
	if other.masked {
		return false
	}
	contrary := *other
	contrary.not = !other.not
	return m.implies(&contrary)
}

// branch is one alternative for a call: the action, where all matches hold.
type branch struct {
	when   []match
	action Action
	rule   int // -1: the default
}

func (b branch) holds(args [6]uint64) bool {
	return !slices.ContainsFunc(b.when, func(m match) bool { return !m.holds(args) })
}

// implies reports whether other would answer whatever b answers.
func (b *branch) implies(other *branch) bool {
	for i := range other.when {
		if !b.one(&other.when[i]) {
			return false
		}
	}
	return true
}

// one reports whether a match of the branch implies m.
func (b *branch) one(m *match) bool {
	for i := range b.when {
		if b.when[i].implies(m) {
			return true
		}
	}
	return false
}

// earlier is the place of the first branch in the list that answers whatever b does, or -1.
func (b *branch) earlier(list []branch) int {
	for i := range list {
		if b.implies(&list[i]) {
			return i
		}
	}
	return -1
}

func (b *branch) disjoint(other *branch) bool {
	for i := range b.when {
		for j := range other.when {
			if b.when[i].disjoint(&other.when[j]) {
				return true
			}
		}
	}
	return false
}

// resolve makes branches of a rule's conditions; nil where none can hold.
func (r Rule) resolve(k *call, a Arch, index int) (list []branch) {
	when := r.When
	if when == nil {
		when = Any{nil}
	}
	list = make([]branch, 0, len(when))
	for _, l := range when {
		if b, possible := l.resolve(k, a); possible {
			list = append(list, branch{b, r.Action, index})
		}
	}
	return list
}

func (l All) resolve(k *call, a Arch) (when []match, possible bool) {
	if len(l) > 0 {
		when = make([]match, 0, len(l))
	}
	for _, c := range l {
		m := c.resolve(k, a)
		switch m.constant() {
		case never:
			return nil, false
		case depends:
			if len(when) == 0 || !slices.Contains(when, m) {
				when = append(when, m)
			}
		}
	}
	return when, true
}
