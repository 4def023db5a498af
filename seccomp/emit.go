//go:build linux

package seccomp

import "golang.org/x/net/bpf"

// emit writes the graph down from its end to its beginning, since all jumps of BPF lead forward: when an instruction is written it is known
// how far away its targets are. A conditional jump reaches 255 instructions far. What is further away gets a step between: for an answer
// a second copy of it, which costs a call nothing, else an unconditional jump, which has 32 bits.
func emit(g *graph, root node) []bpf.Instruction {
	e := emitter{g: g, at: make([]int, len(g.nodes)), code: make([]bpf.Instruction, 0, len(g.nodes)+len(g.nodes)/4)}
	for i := range e.at {
		e.at[i] = -1
	}
	e.write(root)
	code := make([]bpf.Instruction, len(e.code))
	for i, ins := range e.code {
		code[len(code)-1-i] = ins
	}
	return code
}

type emitter struct {
	g    *graph
	code []bpf.Instruction // backwards
	at   []int             // where a node is in it, or a step on the way to it; -1 is nowhere yet
}

const reach = 255 // of a conditional jump

// write puts the node down, after all that follow it.
func (e *emitter) write(n node) {
	if e.at[n] >= 0 {
		return
	}
	i := e.g.nodes[n]
	switch i.op {
	case opReturn:
		e.put(n, bpf.RetConstant{Val: i.k})
	case opLoad:
		e.write(i.t)
		e.next(i.t)
		e.put(n, bpf.LoadAbsolute{Off: i.k, Size: 4})
	case opAnd:
		e.write(i.t)
		e.next(i.t)
		e.put(n, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: i.k})
	default:
		e.write(i.t)
		e.write(i.f)
		e.jump(n, i)
	}
}

func (e *emitter) put(n node, ins bpf.Instruction) {
	e.code = append(e.code, ins)
	e.at[n] = len(e.code) - 1
}

// distance is how many instructions a jump to the node that is written next would pass over.
func (e *emitter) distance(n node) int { return len(e.code) - 1 - e.at[n] }

// next makes sure that the node is what follows.
func (e *emitter) next(n node) {
	if e.distance(n) > 0 {
		e.step(n)
	}
}

// step writes a step on the way to the node.
func (e *emitter) step(n node) {
	if i := e.g.nodes[n]; i.op == opReturn {
		e.put(n, bpf.RetConstant{Val: i.k})
		return
	}
	e.put(n, bpf.Jump{Skip: uint32(e.distance(n))})
}

// jump writes a conditional jump. A step for one target moves the other away by one.
func (e *emitter) jump(n node, i instruction) {
	for e.distance(i.t) > reach || e.distance(i.f) > reach {
		if e.distance(i.t) > reach {
			e.step(i.t)
		} else {
			e.step(i.f)
		}
	}
	e.put(n, bpf.JumpIf{Cond: conditions[i.op], Val: i.k, SkipTrue: uint8(e.distance(i.t)), SkipFalse: uint8(e.distance(i.f))})
}

var conditions = [...]bpf.JumpTest{opEqual: bpf.JumpEqual, opGreater: bpf.JumpGreaterThan, opGreaterEqual: bpf.JumpGreaterOrEqual, opAnyBit: bpf.JumpBitsSet}
