//go:build linux

package seccomp

import (
	"encoding/binary"
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Program is a compiled policy. It does not change, and can be used by any number of starts and goroutines at a time.
type Program struct {
	policy Policy
	abis   []*abi
	raw    []bpf.RawInstruction
	code   func() []bpf.Instruction // raw, in the other form, made when it is first asked for
	bytes  []byte                   // raw, as the kernel reads it; shared by all starts
}

// Policy gives what the program was compiled from.
func (p *Program) Policy() Policy { return p.policy }

// Arches are the architectures that the program tells apart.
func (p *Program) Arches() []Arch {
	list := make([]Arch, len(p.abis))
	for i, b := range p.abis {
		list[i] = b.arch
	}
	return list
}

// Len is the number of instructions; the kernel takes 4096.
func (p *Program) Len() int { return len(p.raw) }

// Raw gives a copy of the program as the kernel takes it.
func (p *Program) Raw() []bpf.RawInstruction { return slices.Clone(p.raw) }

// Instructions gives a copy of the program as golang.org/x/net/bpf writes it.
func (p *Program) Instructions() []bpf.Instruction { return slices.Clone(p.code()) }

// SockFilter gives a copy of the program in the form of golang.org/x/sys/unix.
func (p *Program) SockFilter() []unix.SockFilter {
	list := make([]unix.SockFilter, len(p.raw))
	for i, r := range p.raw {
		list[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return list
}

// pack lays the program out as an array of struct sock_filter.
func pack(raw []bpf.RawInstruction) []byte {
	b := make([]byte, 0, 8*len(raw))
	for _, r := range raw {
		b = binary.NativeEndian.AppendUint16(b, r.Op)
		b = append(b, r.Jt, r.Jf)
		b = binary.NativeEndian.AppendUint32(b, r.K)
	}
	return b
}

// Notifies reports whether some call is answered by Notify, so that the program needs a supervisor.
func (p *Program) Notifies() bool {
	return slices.ContainsFunc(p.raw, func(r bpf.RawInstruction) bool {
		return r.Op == unix.BPF_RET|unix.BPF_K && ActionOf(r.K).kind() == Notify.kind()
	})
}
