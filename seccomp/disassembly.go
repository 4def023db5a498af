//go:build linux

package seccomp

import (
	"fmt"
	"strings"

	"golang.org/x/net/bpf"
)

// String disassembles the program, one instruction a line, with the names of architectures, calls, arguments and answers:
//
//	0  load arch
//	1  if == x86_64 goto 4
//	2  if == i386 goto 90
//	3  return kill process
//	4  load number
//	5  if >= sched_yield (24) goto 60 else 6
func (p *Program) String() string {
	d := disassembly{p: p, holds: make([]held, len(p.code())+1)}
	var b strings.Builder
	for i, ins := range p.code() {
		fmt.Fprintf(&b, "%3d  %s\n", i, d.line(i, ins))
	}
	return b.String()
}

// held is what is known at an instruction: what the accumulator holds, and which architecture the call is of.
type held struct {
	known  bool
	offset uint32 // of the word; none
	arch   Arch
}

type disassembly struct {
	p     *Program
	holds []held // by instruction; jumps lead forward, so it is known when the instruction is printed
}

// flow notes what is known when the instruction at is reached. Ways that differ leave what they have in common.
func (d *disassembly) flow(at int, h held) {
	old := &d.holds[at]
	if !old.known {
		*old = h
		old.known = true
		return
	}
	if old.offset != h.offset {
		old.offset = none
	}
	if old.arch != h.arch {
		old.arch = 0
	}
}

func (d *disassembly) line(i int, ins bpf.Instruction) string {
	h := d.holds[i]
	switch ins := ins.(type) {
	case bpf.LoadAbsolute:
		h.offset = ins.Off
		d.flow(i+1, h)
		return "load " + d.word(ins.Off, h.arch)
	case bpf.ALUOpConstant:
		h.offset = none
		d.flow(i+1, h)
		return fmt.Sprintf("and %#x", ins.Val)
	case bpf.RetConstant:
		return "return " + ActionOf(ins.Val).String()
	case bpf.Jump:
		d.flow(i+1+int(ins.Skip), h)
		return fmt.Sprintf("goto %d", i+1+int(ins.Skip))
	case bpf.JumpIf:
		return d.jump(i, ins, h)
	}
	return fmt.Sprint(ins)
}

func (d *disassembly) jump(i int, ins bpf.JumpIf, h held) string {
	t, f := i+1+int(ins.SkipTrue), i+1+int(ins.SkipFalse)
	yes, value := h, fmt.Sprintf("%#x", ins.Val)
	switch h.offset {
	case offsetArch:
		yes.arch = d.p.byToken(ins.Val)
		value = yes.arch.String()
	case offsetNumber:
		value = number10(ins.Val, h.arch)
	}
	d.flow(t, yes)
	d.flow(f, h)
	text := fmt.Sprintf("if %s %s goto %d", comparison(ins.Cond), value, t)
	if f != i+1 {
		text += fmt.Sprintf(" else %d", f)
	}
	return text
}

func comparison(c bpf.JumpTest) string {
	switch c {
	case bpf.JumpEqual:
		return "=="
	case bpf.JumpGreaterThan:
		return ">"
	case bpf.JumpGreaterOrEqual:
		return ">="
	}
	return "&"
}

func (p *Program) byToken(token uint32) Arch {
	for _, b := range p.abis {
		if b.arch.Token() == token {
			return b.arch
		}
	}
	return 0
}

func number10(n uint32, a Arch) string {
	if a == X86_64 && n >= x32Bit {
		a = X32
	}
	if name, ok := a.Name(int(n)); ok {
		return fmt.Sprintf("%s (%d)", name, n)
	}
	return fmt.Sprint(n)
}

// word names a word of the call.
func (d *disassembly) word(offset uint32, a Arch) string {
	switch offset {
	case offsetNumber:
		return "number"
	case offsetArch:
		return "arch"
	}
	arg, half := (offset-offsetArgs)/8, "low"
	if (offset%8 == 4) != a.info().big {
		half = "high"
	}
	return fmt.Sprintf("arg%d.%s", arg, half)
}
