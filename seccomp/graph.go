//go:build linux

package seccomp

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
	known map[instruction]node
	big   bool // arguments have their upper half first in what is being built
}

func newGraph() *graph { return &graph{known: make(map[instruction]node, 256)} }

func (g *graph) add(i instruction) node {
	if n, ok := g.known[i]; ok {
		return n
	}
	g.nodes = append(g.nodes, i)
	g.known[i] = node(len(g.nodes) - 1)
	return node(len(g.nodes) - 1)
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

// joined merges neighbours that lead to the same.
func joined(list []segment) []segment {
	short := make([]segment, 0, len(list))
	for _, s := range list {
		if n := len(short); n == 0 || short[n-1].node != s.node {
			short = append(short, s)
		}
	}
	return short
}

// single finds, in a list of three, one number in the middle with the same on both sides: one comparison decides it.
func single(list []segment) bool {
	return len(list) == 3 && list[0].node == list[2].node && list[2].start == list[1].start+1
}
