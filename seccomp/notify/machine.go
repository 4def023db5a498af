//go:build linux

package notify

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/seccomp"
)

// reporting is the program with notifications in place of what kills.
func reporting(p []unix.SockFilter) []unix.SockFilter {
	p = append([]unix.SockFilter(nil), p...)
	for i, in := range p {
		if in.Code == unix.BPF_RET|unix.BPF_K && killing(in.K) {
			p[i].K = unix.SECCOMP_RET_USER_NOTIF
		}
	}
	return p
}

func killing(verdict uint32) bool {
	switch verdict & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_LOG, unix.SECCOMP_RET_TRACE, unix.SECCOMP_RET_USER_NOTIF, unix.SECCOMP_RET_ERRNO, unix.SECCOMP_RET_TRAP:
		return false
	}
	return true // what the kernel does not know kills, too
}

func notifies(p []unix.SockFilter) bool {
	for _, in := range p {
		if in.Code == unix.BPF_RET|unix.BPF_K && in.K&unix.SECCOMP_RET_ACTION_FULL == unix.SECCOMP_RET_USER_NOTIF {
			return true
		}
	}
	return false
}

// computed reports whether the program returns what it has computed, so that its answers cannot be read from it.
func computed(p []unix.SockFilter) bool {
	for _, in := range p {
		if in.Code&7 == unix.BPF_RET && in.Code != unix.BPF_RET|unix.BPF_K {
			return true
		}
	}
	return false
}

// machine is the kernel's for filters (bpf(4) of the BSDs, and linux/filter.h).
type machine struct {
	input  []byte // struct seccomp_data
	a, x   uint32
	memory [16]uint32
}

// verdict runs a program. One that the kernel would not take kills.
func verdict(p []unix.SockFilter, d *data) uint32 {
	return (&machine{input: unsafe.Slice((*byte)(unsafe.Pointer(d)), unsafe.Sizeof(*d))}).run(p)
}

// allowsClose reports whether close(2) is allowed whatever its arguments: they and the address are not there for the program to read, and to read
// what is not there kills.
func allowsClose(p []unix.SockFilter) bool {
	d := data{nr: unix.SYS_CLOSE, arch: seccomp.Native().Token()}
	m := machine{input: unsafe.Slice((*byte)(unsafe.Pointer(&d)), unsafe.Offsetof(d.ip))}
	return m.run(p)&unix.SECCOMP_RET_ACTION_FULL == unix.SECCOMP_RET_ALLOW
}

func (m *machine) run(p []unix.SockFilter) uint32 {
	for pc := 0; pc >= 0 && pc < len(p); pc++ {
		in := p[pc]
		switch in.Code & 7 {
		case unix.BPF_RET:
			if in.Code&0x18 == unix.BPF_A {
				return m.a
			}
			return in.K
		case unix.BPF_JMP:
			pc += m.jump(in)
		default:
			if !m.step(in) {
				return unix.SECCOMP_RET_KILL_PROCESS
			}
		}
	}
	return unix.SECCOMP_RET_KILL_PROCESS
}

// operand is the constant or the register X.
func (m *machine) operand(in unix.SockFilter) uint32 {
	if in.Code&unix.BPF_X != 0 {
		return m.x
	}
	return in.K
}

func (m *machine) jump(in unix.SockFilter) int {
	v, holds := m.operand(in), false
	switch in.Code & 0xf0 {
	case unix.BPF_JA:
		return int(in.K)
	case unix.BPF_JEQ:
		holds = m.a == v
	case unix.BPF_JGT:
		holds = m.a > v
	case unix.BPF_JGE:
		holds = m.a >= v
	case unix.BPF_JSET:
		holds = m.a&v != 0
	}
	if holds {
		return int(in.Jt)
	}
	return int(in.Jf)
}

// step performs what is neither a jump nor a return.
func (m *machine) step(in unix.SockFilter) bool {
	switch in.Code & 7 {
	case unix.BPF_LD:
		return m.load(in, &m.a)
	case unix.BPF_LDX:
		return m.load(in, &m.x)
	case unix.BPF_ST, unix.BPF_STX:
		if in.K >= uint32(len(m.memory)) {
			return false
		}
		m.memory[in.K] = m.a
		if in.Code&7 == unix.BPF_STX {
			m.memory[in.K] = m.x
		}
		return true
	case unix.BPF_MISC:
		if in.Code&0xf8 == unix.BPF_TXA {
			m.a = m.x
		} else {
			m.x = m.a
		}
		return true
	}
	return m.compute(in)
}

func (m *machine) load(in unix.SockFilter, to *uint32) bool {
	switch in.Code & 0xe0 {
	case unix.BPF_ABS:
		if in.K%4 != 0 || uint64(in.K)+4 > uint64(len(m.input)) {
			return false
		}
		*to = binary.NativeEndian.Uint32(m.input[in.K:])
	case unix.BPF_IMM:
		*to = in.K
	case unix.BPF_MEM:
		if in.K >= uint32(len(m.memory)) {
			return false
		}
		*to = m.memory[in.K]
	case unix.BPF_LEN:
		*to = uint32(unsafe.Sizeof(data{}))
	default:
		return false
	}
	return true
}

func (m *machine) compute(in unix.SockFilter) bool {
	v := m.operand(in)
	switch in.Code & 0xf0 {
	case unix.BPF_ADD:
		m.a += v
	case unix.BPF_SUB:
		m.a -= v
	case unix.BPF_MUL:
		m.a *= v
	case unix.BPF_DIV:
		if v == 0 {
			m.a = 0 // the kernel returns 0 from the program: it kills
			return false
		}
		m.a /= v
	case unix.BPF_OR:
		m.a |= v
	case unix.BPF_AND:
		m.a &= v
	case unix.BPF_XOR:
		m.a ^= v
	case unix.BPF_LSH:
		m.a <<= v & 31
	case unix.BPF_RSH:
		m.a >>= v & 31
	case unix.BPF_NEG:
		m.a = -m.a
	default:
		return false
	}
	return true
}
