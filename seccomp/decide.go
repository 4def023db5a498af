//go:build linux

package seccomp

import "math"

// decision makes the nodes for what a policy says about one call.
func (g *graph) decision(d decision) node {
	if len(d.branches) == 1 {
		return g.answer(d.branches[0].action)
	}
	if arg, bits, ok := onlyRanges(d.branches); ok {
		return g.ranges(d.branches, arg, bits)
	}
	c := chain{g: g, branches: d.branches, known: map[place]node{}}
	return c.node(place{word: none})
}

// onlyRanges reports whether all branches ask for one range of one argument: then it is a search among numbers.
func onlyRanges(list []branch) (arg, bits int, ok bool) {
	for i, b := range list[:len(list)-1] {
		if len(b.when) != 1 || b.when[0].masked || i > 0 && (b.when[0].arg != arg || b.when[0].bits != bits) {
			return 0, 0, false
		}
		arg, bits = b.when[0].arg, b.when[0].bits
	}
	return arg, bits, true
}

// stretch is the answer for values of an argument from start on.
type stretch struct {
	start uint64
	node  node
}

// ranges decides by one argument alone.
func (g *graph) ranges(list []branch, arg, bits int) node {
	stretches := g.stretches(list)
	if bits == 64 {
		return g.wide(stretches, arg)
	}
	segments := make([]segment, len(stretches))
	for i, s := range stretches {
		segments[i] = segment{uint32(s.start), s.node}
	}
	next := g.tree(segments)
	if bits == 16 {
		next = g.and(math.MaxUint16, next)
	}
	return g.load(g.low(arg), next)
}

// wide searches by the upper word, and where that does not decide by the lower one.
func (g *graph) wide(list []stretch, arg int) node {
	var high []segment
	for i := 0; i < len(list); {
		word := uint32(list[i].start >> 32)
		var inside []segment // of this upper word
		if uint32(list[i].start) > 0 {
			inside = append(inside, segment{0, list[i-1].node})
		}
		for ; i < len(list) && uint32(list[i].start>>32) == word; i++ {
			inside = append(inside, segment{uint32(list[i].start), list[i].node})
		}
		high = append(high, segment{word, g.load(g.low(arg), g.tree(inside))})
		if word < math.MaxUint32 && (i == len(list) || uint32(list[i].start>>32) > word+1) {
			high = append(high, segment{word + 1, list[i-1].node})
		}
	}
	return g.load(g.upper(arg), g.tree(high))
}

// low is the offset of the lower half of an argument in struct seccomp_data.
func (g *graph) low(arg int) uint32 {
	if g.big {
		return offsetArgs + 8*uint32(arg) + 4
	}
	return offsetArgs + 8*uint32(arg)
}

// upper is the offset of the upper half.
func (g *graph) upper(arg int) uint32 { return g.low(arg) ^ 4 }

// chain tries branches in turn, match by match.
type chain struct {
	g        *graph
	branches []branch
	known    map[place]node
}

// place is a point in a chain: which match of which branch is next, and which word of the call the accumulator holds.
type place struct {
	branch, match int
	word          uint32 // its offset
}

const none = math.MaxUint32 // the accumulator holds no word

func (c *chain) node(p place) node {
	b := c.branches[p.branch]
	if p.match == len(b.when) {
		return c.g.answer(b.action)
	}
	if n, ok := c.known[p]; ok {
		return n
	}
	m := b.when[p.match]
	t := func(word uint32) node { return c.node(place{p.branch, p.match + 1, word}) }
	f := func(word uint32) node { return c.node(place{p.branch + 1, 0, word}) }
	if m.not {
		t, f = f, t
	}
	n := c.match(m, p.word, t, f)
	c.known[p] = n
	return n
}

// after gives the node that follows when the accumulator holds a word.
type after func(word uint32) node

func (c *chain) match(m match, word uint32, t, f after) node {
	switch {
	case m.bits == 16:
		return c.g.load(c.g.low(m.arg), c.g.and(math.MaxUint16, c.short(m, t, f)))
	case m.masked && m.bits == 64:
		return c.masked(c.g.upper(m.arg), uint32(m.lo>>32), uint32(m.hi>>32), word,
			func(word uint32) node { return c.masked(c.g.low(m.arg), uint32(m.lo), uint32(m.hi), word, t, f) }, f)
	case m.masked:
		return c.masked(c.g.low(m.arg), uint32(m.lo), uint32(m.hi), word, t, f)
	case m.bits == 32:
		return c.within(c.g.low(m.arg), uint32(m.lo), uint32(m.hi), word, t, f)
	}
	return c.wide(m, word, t, f)
}

// short is a match of the 16 bits that the accumulator holds.
func (c *chain) short(m match, t, f after) node {
	if m.masked {
		return c.g.and(uint32(m.lo), c.g.test(opEqual, uint32(m.hi), t(none), f(none)))
	}
	return c.bounds(uint32(m.lo), uint32(m.hi), none, t, f)
}

// with makes sure that the accumulator holds the word.
func (c *chain) with(want, word uint32, n node) node {
	if want == word {
		return n
	}
	return c.g.load(want, n)
}

// masked is word & mask == value.
func (c *chain) masked(want, mask, value, word uint32, t, f after) node {
	switch {
	case mask == 0:
		return t(word)
	case mask == math.MaxUint32:
		return c.with(want, word, c.g.test(opEqual, value, t(want), f(want)))
	case value == 0:
		return c.with(want, word, c.g.test(opAnyBit, mask, f(want), t(want)))
	case mask&(mask-1) == 0:
		return c.with(want, word, c.g.test(opAnyBit, mask, t(want), f(want)))
	}
	return c.with(want, word, c.g.and(mask, c.g.test(opEqual, value, t(none), f(none))))
}

// within is lo <= word <= hi.
func (c *chain) within(want, lo, hi, word uint32, t, f after) node {
	return c.with(want, word, c.bounds(lo, hi, want, t, f))
}

// bounds is lo <= accumulator <= hi.
func (c *chain) bounds(lo, hi, word uint32, t, f after) node {
	if lo == hi {
		return c.g.test(opEqual, lo, t(word), f(word))
	}
	n := t(word)
	if hi < math.MaxUint32 {
		n = c.g.test(opGreater, hi, f(word), n)
	}
	if lo > 0 {
		n = c.g.test(opGreaterEqual, lo, n, f(word))
	}
	return n
}

// wide is a range of 64 bits: the upper words decide, and where they are equal to that of a bound the lower ones.
func (c *chain) wide(m match, word uint32, t, f after) node {
	loHigh, hiHigh := uint32(m.lo>>32), uint32(m.hi>>32)
	up, down := c.g.upper(m.arg), c.g.low(m.arg)
	if loHigh == hiHigh {
		inside := c.within(down, uint32(m.lo), uint32(m.hi), up, t, f)
		return c.with(up, word, c.g.test(opEqual, loHigh, inside, f(up)))
	}
	n := t(up)
	if m.hi < math.MaxUint64 {
		last := c.within(down, 0, uint32(m.hi), up, t, f)
		n = c.g.test(opGreaterEqual, hiHigh, c.g.test(opEqual, hiHigh, last, f(up)), n)
	}
	if m.lo > 0 {
		first := c.within(down, uint32(m.lo), math.MaxUint32, up, t, f)
		n = c.g.test(opGreater, loHigh, n, c.g.test(opEqual, loHigh, first, f(up)))
	}
	return c.with(up, word, n)
}
