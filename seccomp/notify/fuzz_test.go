package notify

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// FuzzSockAddr: an address is read in one way or refused, and what is connected is what was read.
func FuzzSockAddr(f *testing.F) {
	in4 := []byte{unix.AF_INET, 0, 0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}
	in6 := append([]byte{unix.AF_INET6, 0, 0, 80, 0, 0, 0, 0}, append(netip.MustParseAddr("::ffff:10.0.0.1").AsSlice(), 7, 0, 0, 0)...)
	for _, b := range [][]byte{nil, {0}, in4, in4[:15], in6, in6[:24], in6[:23], append([]byte{unix.AF_UNIX, 0}, "/run/x\x00y"...),
		append([]byte{unix.AF_UNIX, 0}, "\x00abstract\x00"...), {unix.AF_UNIX, 0}, append([]byte{unix.AF_UNIX, 0}, strings.Repeat("x", 109)...), {16, 0, 1, 2}} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseSockAddr(b)
		if err != nil {
			if plan.Errno(err) != syscall.EINVAL {
				t.Errorf("%v", err)
			}
			return
		}
		if a.raw != string(b) || a.Family != binary.NativeEndian.Uint16(b) {
			t.Errorf("%q was read as %+v", b, a)
		}
		inet := a.Family == unix.AF_INET || a.Family == unix.AF_INET6
		if inet != a.AddrPort.IsValid() || a.AddrPort.Addr().Is4In6() || inet && binary.BigEndian.Uint16(b[2:]) != a.AddrPort.Port() {
			t.Errorf("%q was read as %+v", b, a)
		}
		if a.Path != "" && (a.Family != unix.AF_UNIX || !strings.Contains(string(b), a.Path) || a.Path[0] != 0 && strings.Contains(a.Path, "\x00")) {
			t.Errorf("%q was read as %+v", b, a)
		}
		_ = a.String()
	})
}

func TestSockAddr(t *testing.T) {
	for want, b := range map[string][]byte{
		"127.0.0.1:8080":     {unix.AF_INET, 0, 0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0},
		"10.0.0.1:80":        append([]byte{unix.AF_INET6, 0, 0, 80, 0, 0, 0, 0}, append(netip.MustParseAddr("::ffff:10.0.0.1").AsSlice(), 7, 0, 0, 0)...),
		"[fe80::1%7]:80":     append([]byte{unix.AF_INET6, 0, 0, 80, 0, 0, 0, 0}, append(netip.MustParseAddr("fe80::1").AsSlice(), 7, 0, 0, 0)...),
		"[fe80::1]:80":       append([]byte{unix.AF_INET6, 0, 0, 80, 0, 0, 0, 0}, netip.MustParseAddr("fe80::1").AsSlice()...),
		`unix "/run/x"`:      append([]byte{unix.AF_UNIX, 0}, "/run/x\x00y"...),
		`unix "\x00a"`:       append([]byte{unix.AF_UNIX, 0}, "\x00a"...),
		`unix ""`:            {unix.AF_UNIX, 0},
		"family 0, 16 bytes": make([]byte, 16),
	} {
		a, err := ParseSockAddr(b)
		require.NoError(t, err)
		require.Equal(t, want, a.String())
	}
}

// FuzzText: a string is read from memory as it stands there, whatever lies behind it and however little is read at a time.
func FuzzText(f *testing.F) {
	f.Add([]byte("path\x00behind"), uint64(0x7fff), 4095, 3)
	f.Add([]byte("no end"), uint64(4096-6), 4095, 1)
	f.Add([]byte{0}, ^uint64(0), 0, 1)
	f.Add(bytes.Repeat([]byte("x"), 5000), uint64(1), 4095, 5000)
	f.Fuzz(func(t *testing.T, memory []byte, at uint64, most, step int) {
		if most < 0 || most > 10000 || step < 1 {
			return
		}
		read := func(b []byte, address uint64) (int, error) {
			from := address - at
			if from >= uint64(len(memory)) {
				return 0, syscall.EFAULT
			}
			return copy(b[:min(len(b), step)], memory[from:]), nil
		}
		s, err := readText(read, at, most)
		end := bytes.IndexByte(memory, 0)
		switch {
		case err == nil && (end < 0 || s != string(memory[:end]) || len(s) > most):
			t.Errorf("%q, at most %d: %q", memory, most, s)
		case err != nil && end >= 0 && end <= most && at+uint64(len(memory)) >= at:
			t.Errorf("%q, at most %d: %v", memory, most, err)
		}
	})
}

// FuzzMachine: a program answers as on golang.org/x/net/bpf's machine.
func FuzzMachine(f *testing.F) {
	code := func(list ...bpf.Instruction) (b []byte) {
		raw, err := bpf.Assemble(list)
		require.NoError(f, err)
		for _, r := range raw {
			b = binary.NativeEndian.AppendUint32(append(binary.NativeEndian.AppendUint16(b, r.Op), r.Jt, r.Jf), r.K)
		}
		return b
	}
	f.Add(code(bpf.LoadAbsolute{Off: 0, Size: 4}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: 3, SkipTrue: 1}, bpf.RetConstant{Val: 1}, bpf.RetA{}), 3, uint32(9), uint64(1))
	f.Add(code(bpf.LoadAbsolute{Off: 16, Size: 4}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xff}, bpf.TAX{}, bpf.LoadConstant{Dst: bpf.RegA, Val: 7},
		bpf.ALUOpX{Op: bpf.ALUOpAdd}, bpf.StoreScratch{Src: bpf.RegA, N: 3}, bpf.LoadScratch{Dst: bpf.RegX, N: 3}, bpf.TXA{}, bpf.NegateA{}, bpf.RetA{}), 3, uint32(9), uint64(1))
	f.Fuzz(func(t *testing.T, b []byte, nr int, token uint32, arg uint64) {
		var raw []bpf.RawInstruction
		var own []unix.SockFilter
		for ; len(b) >= 8 && len(raw) < 50; b = b[8:] {
			in := bpf.RawInstruction{Op: binary.NativeEndian.Uint16(b), Jt: b[2], Jf: b[3], K: binary.NativeEndian.Uint32(b[4:])}
			if !comparable(in) {
				return
			}
			raw = append(raw, in)
			own = append(own, unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K})
		}
		list, ok := bpf.Disassemble(raw)
		if !ok {
			return
		}
		vm, err := bpf.NewVM(list)
		if err != nil {
			return
		}
		d := data{nr: int32(nr), arch: token, args: [6]uint64{arg, arg << 7}}
		words := unsafe.Slice((*byte)(unsafe.Pointer(&d)), unsafe.Sizeof(d))
		swapped := make([]byte, len(words))
		for i := 0; i < len(words); i += 4 {
			binary.BigEndian.PutUint32(swapped[i:], binary.NativeEndian.Uint32(words[i:]))
		}
		want, err := vm.Run(swapped)
		if err != nil {
			return
		}
		if got := verdict(own, &d); got != uint32(want) {
			t.Errorf("%v: %#x, want %#x", list, got, uint32(want))
		}
	})
}

// comparable leaves out what the kernel does not take, or what the two mean differently on purpose.
func comparable(in bpf.RawInstruction) bool {
	switch in.Op & 7 {
	case unix.BPF_LD, unix.BPF_LDX:
		mode := in.Op & 0xe0
		return (mode == unix.BPF_IMM || mode == unix.BPF_MEM || in.Op == unix.BPF_LD|unix.BPF_W|unix.BPF_ABS && in.K%4 == 0 && in.K <= 60)
	case unix.BPF_ALU:
		op := in.Op & 0xf0
		return op <= unix.BPF_NEG && op != unix.BPF_LSH && op != unix.BPF_RSH && op != unix.BPF_DIV
	}
	return true
}

// TestMachineStrict: what no kernel would take kills.
func TestMachineStrict(t *testing.T) {
	for _, p := range [][]unix.SockFilter{nil, {{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 64}}, {{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 2}},
		{{Code: unix.BPF_LD | unix.BPF_IND}}, {{Code: unix.BPF_LD | unix.BPF_MEM, K: 16}}, {{Code: unix.BPF_ST, K: 16}},
		{{Code: unix.BPF_ALU | unix.BPF_DIV | unix.BPF_K}}, {{Code: unix.BPF_JMP | unix.BPF_JA, K: 9}}} {
		require.True(t, killing(verdict(p, &data{})), "%v", p)
	}
}
