//go:build linux

package seccomp

import (
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// emit writes the graph down from its end to its beginning, since all jumps of BPF lead forward: when an instruction is written it is known
// how far away its targets are. A conditional jump reaches 255 instructions far. What is further away gets a step between: for an answer
// a second copy of it, which costs a call nothing, else an unconditional jump, which has 32 bits.
func emit(g *graph, root node) []bpf.RawInstruction {
	e := emitter{g: g, at: make([]int32, len(g.nodes)), code: make([]bpf.RawInstruction, 0, len(g.nodes)+len(g.nodes)/4)}
	for i := range e.at {
		e.at[i] = -1
	}
	e.write(root)
	slices.Reverse(e.code)
	return e.code
}

type emitter struct {
	g    *graph
	code []bpf.RawInstruction // backwards
	at   []int32              // where a node is in it, or a step on the way to it; -1 is nowhere yet
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
		e.put(n, bpf.RawInstruction{Op: codeReturn, K: i.k})
	case opLoad:
		e.write(i.t)
		e.next(i.t)
		e.put(n, bpf.RawInstruction{Op: codeLoad, K: i.k})
	case opAnd:
		e.write(i.t)
		e.next(i.t)
		e.put(n, bpf.RawInstruction{Op: codeAnd, K: i.k})
	default:
		e.write(i.t)
		e.write(i.f)
		e.jump(n, i)
	}
}

func (e *emitter) put(n node, ins bpf.RawInstruction) {
	e.code = append(e.code, ins)
	e.at[n] = int32(len(e.code) - 1)
}

// distance is how many instructions a jump to the node that is written next would pass over.
func (e *emitter) distance(n node) int { return len(e.code) - 1 - int(e.at[n]) }

// next makes sure that the node is what follows.
func (e *emitter) next(n node) {
	if e.distance(n) > 0 {
		e.step(n)
	}
}

// step writes a step on the way to the node.
func (e *emitter) step(n node) {
	if i := e.g.nodes[n]; i.op == opReturn {
		e.put(n, bpf.RawInstruction{Op: codeReturn, K: i.k})
		return
	}
	e.put(n, bpf.RawInstruction{Op: codeJump, K: uint32(e.distance(n))})
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
	e.put(n, bpf.RawInstruction{Op: conditions[i.op].code, Jt: uint8(e.distance(i.t)), Jf: uint8(e.distance(i.f)), K: i.k})
}

// The instructions that programs are made of (linux/bpf_common.h).
const (
	codeReturn = unix.BPF_RET | unix.BPF_K
	codeLoad   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	codeAnd    = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	codeJump   = unix.BPF_JMP | unix.BPF_JA
	codeTest   = unix.BPF_JMP | unix.BPF_K
)

var conditions = [...]struct {
	code uint16
	test bpf.JumpTest
}{
	opEqual:        {codeTest | unix.BPF_JEQ, bpf.JumpEqual},
	opGreater:      {codeTest | unix.BPF_JGT, bpf.JumpGreaterThan},
	opGreaterEqual: {codeTest | unix.BPF_JGE, bpf.JumpGreaterOrEqual},
	opAnyBit:       {codeTest | unix.BPF_JSET, bpf.JumpBitsSet},
}

// instructions is what was emitted, as golang.org/x/net/bpf writes it.
func instructions(raw []bpf.RawInstruction) []bpf.Instruction {
	code := make([]bpf.Instruction, len(raw))
	for i, r := range raw {
		switch r.Op {
		case codeReturn:
			code[i] = bpf.RetConstant{Val: r.K}
		case codeLoad:
			code[i] = bpf.LoadAbsolute{Off: r.K, Size: 4}
		case codeAnd:
			code[i] = bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: r.K}
		case codeJump:
			code[i] = bpf.Jump{Skip: r.K}
		}
		for _, c := range conditions {
			if c.code == r.Op {
				code[i] = bpf.JumpIf{Cond: c.test, Val: r.K, SkipTrue: r.Jt, SkipFalse: r.Jf}
			}
		}
	}
	return code
}
