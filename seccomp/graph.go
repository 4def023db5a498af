//go:build linux

package seccomp

import "slices"

// A program is first a graph without cycles. A node is a function of the accumulator and of the call: what a jump to it leads
// to. Nodes that are the same are the same node, so that whatever two calls or two architectures have in common at their end is there once.

// node is a place in a graph.
type node int32

type nodeOp uint8

const (
	opReturn nodeOp = iota // k is the answer
	opLoad                 // a word of the call at offset k; goes on at t
	opAnd                  // with k; goes on at t
	opEqual                // k; t or f
	opGreater
	opGreaterEqual
	opAnyBit // of k
)

type instruction struct {
	op   nodeOp
	k    uint32
	t, f node
}

type graph struct {
	nodes []instruction
	known []node // a hash table of the nodes, a power of two long; 0 is free, and n+1 is node n
	big   bool   // arguments have their upper half first in what is being built
}

func newGraph() *graph { return &graph{nodes: make([]instruction, 0, 512), known: make([]node, 1024)} }

func (g *graph) add(i instruction) node {
	if 2*len(g.nodes) >= len(g.known) {
		g.grow()
	}
	at := g.find(i)
	if g.known[at] == 0 {
		g.nodes = append(g.nodes, i)
		g.known[at] = node(len(g.nodes))
	}
	return g.known[at] - 1
}

// find is the place of an instruction in the table, or the free one where it belongs. It is a table of our own because a map takes three times as long, which is
// a tenth of what it takes to compile.
func (g *graph) find(i instruction) uint32 {
	const prime = 0x9e3779b1
	h := (((i.k^uint32(i.op)<<28)*prime^uint32(i.t))*prime ^ uint32(i.f)) * prime
	last := uint32(len(g.known) - 1)
	for at := h >> 15 & last; ; at = (at + 1) & last {
		if n := g.known[at]; n == 0 || g.nodes[n-1] == i {
			return at
		}
	}
}

func (g *graph) grow() {
	g.known = make([]node, 2*len(g.known))
	for n, i := range g.nodes {
		g.known[g.find(i)] = node(n + 1)
	}
}

func (g *graph) answer(a Action) node { return g.add(instruction{op: opReturn, k: a.Return()}) }

func (g *graph) load(offset uint32, next node) node {
	if g.nodes[next].op == opReturn || g.nodes[next].op == opLoad {
		return next // nobody looks at what would be loaded
	}
	return g.add(instruction{op: opLoad, k: offset, t: next})
}

func (g *graph) and(mask uint32, next node) node {
	return g.add(instruction{op: opAnd, k: mask, t: next})
}

func (g *graph) test(op nodeOp, k uint32, t, f node) node {
	if t == f {
		return t
	}
	return g.add(instruction{op: op, k: k, t: t, f: f})
}

// segment is what follows for numbers from start on, up to the next segment.
type segment struct {
	start uint32
	node  node
}

// tree finds by binary search the segment in which the accumulator lies. The first segment begins at 0.
func (g *graph) tree(list []segment) node { return g.search(joined(list)) }

// search is tree for a list in which neighbours differ.
func (g *graph) search(list []segment) node {
	if len(list) == 1 {
		return list[0].node
	}
	if single(list) {
		return g.test(opEqual, list[1].start, list[1].node, list[0].node)
	}
	middle := len(list) / 2
	return g.test(opGreaterEqual, list[middle].start, g.search(list[middle:]), g.search(list[:middle]))
}

// joined merges neighbours that lead to the same, in the list.
func joined(list []segment) []segment {
	return slices.CompactFunc(list, func(a, b segment) bool { return a.node == b.node })
}

// single finds, in a list of three, one number in the middle with the same on both sides: one comparison decides it.
func single(list []segment) bool {
	return len(list) == 3 && list[0].node == list[2].node && list[2].start == list[1].start+1
}
