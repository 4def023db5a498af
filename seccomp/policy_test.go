package seccomp

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/bpf"
)

// TestBadPolicies: each mistake has an error that names it.
func TestBadPolicies(t *testing.T) {
	ok := []string{"read"}
	for name, c := range map[string]struct {
		policy Policy
		want   string
	}{
		"unknown name":        {only(Rule{Names: []string{"raed"}, Action: Allow}), `rule 0: "raed" is no system call`},
		"unknown group":       {only(Rule{Names: []string{"@raed"}, Action: Allow}), `rule 0: "@raed" is no group of system calls`},
		"no action":           {only(Rule{Names: ok}), "rule 0: it has no action"},
		"no name":             {only(Rule{Action: Allow}), "rule 0: it names no system call"},
		"bad action":          {only(Rule{Names: ok, Action: ActionOf(0x12340000)}), `rule 0: "0x12340000" is no action`},
		"bad default":         {Policy{Default: Errno(5000)}, `"errno 5000" is no action`},
		"index":               {only(Rule{Names: ok, Action: Errno(1), When: Arg(6).In(1)}), "rule 0: arg6 == 0x1: a system call has the arguments 0 to 5"},
		"negative index":      {only(Rule{Names: ok, Action: Errno(1), When: Arg(-1).In(1)}), "rule 0: arg-1 == 0x1: a system call has the arguments 0 to 5"},
		"value over 32 bits":  {only(Rule{Names: ok, Action: Errno(1), When: Arg(0).In(1 << 32)}), "rule 0: read, arg0 == 0x100000000: the argument is an int, and the value does not fit into 32 bits"},
		"width over 32 bits":  {only(Rule{Names: ok, Action: Errno(1), When: Any{{Arg(1).Equal(1 << 32).As(Low32)}}}), "rule 0: low32(arg1) == 0x100000000: the value does not fit into 32 bits"},
		"operator":            {only(Rule{Names: ok, Action: Errno(1), When: Any{{Condition{Op: 99}}}}), "rule 0: arg0 op 99 0x0: there is no such operator"},
		"width":               {only(Rule{Names: ok, Action: Errno(1), When: Any{{Condition{Width: 99}}}}), "rule 0: arg0 == 0x0: there is no such width"},
		"bounds":              {only(Rule{Names: ok, Action: Errno(1), When: Any{{Arg(0).Within(2, 1)}}}), "rule 0: arg0 in 0x2..0x1: the bounds are the wrong way round"},
		"never":               {only(Rule{Names: ok, Action: Errno(1), When: Any{{Arg(0).Masked(1, 2)}}}), "rule 0: arg0 & 0x1 == 0x2: the value has bits outside the mask: it is never met"},
		"useless mask":        {only(Rule{Names: ok, Action: Errno(1), When: Any{{Condition{Mask: 1}}}}), "rule 0: arg0 == 0x0: only MaskedEqual and MaskedNot have a mask"},
		"useless bound":       {only(Rule{Names: ok, Action: Errno(1), When: Any{{Condition{High: 1}}}}), "rule 0: arg0 == 0x0: only Within and Outside have an upper bound"},
		"no alternative":      {only(Rule{Names: ok, Action: Errno(1), When: Arg(0).In()}), "rule 0: When has no alternative: the rule would never hold"},
		"numbers everywhere":  {only(Rule{Numbers: []int{1}, Action: Allow}), "rule 0: numbers mean something in one architecture only"},
		"negative number":     {only(Rule{Numbers: []int{-1}, Arches: []Arch{X86_64}, Action: Allow}), "rule 0: a system call number is an int that is not negative"},
		"unknown arch":        {Policy{Arches: []Arch{99}}, `"arch 99" is no architecture`},
		"unknown arch, rule":  {only(Rule{Names: ok, Arches: []Arch{99}, Action: Allow}), `rule 0: "arch 99" is no architecture`},
		"contradiction":       {Policy{Arches: []Arch{X86_64}, Rules: []Rule{{Names: ok, Action: Allow}, {Names: ok, Action: Errno(1)}}}, "rules 0 and 1 contradict each other: read on x86_64 is answered by allow, and then again by errno EPERM"},
		"contradiction, args": {Policy{Arches: []Arch{X86_64}, Rules: []Rule{{Names: ok, Action: Allow, When: Any{{Arg(0).Less(9)}}}, {Names: ok, Action: Errno(1), When: Arg(0).In(3)}}}, "rules 0 and 1 contradict each other: read on x86_64 is answered by allow, and then again by errno EPERM"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.policy.Compile()
			require.EqualError(t, err, c.want)
			require.ErrorIs(t, err, syscall.EINVAL)
		})
	}
}

func TestGoodPolicies(t *testing.T) {
	for name, p := range map[string]Policy{
		"first rule wins":       {Rules: []Rule{{Names: []string{"ioctl"}, Action: Errno(1), When: Arg(1).In(1)}, {Names: []string{"ioctl"}, Action: Allow}}},
		"a call before a group": {Rules: []Rule{{Names: []string{"mount"}, Action: Errno(1)}, {Names: []string{"@mount"}, Action: Allow}}},
		"the same twice":        {Rules: []Rule{{Names: []string{"mount", "@mount", "mount"}, Action: Allow}, {Names: []string{"mount"}, Action: Allow}}},
		"newer names":           {Rules: []Rule{{Names: []string{"a_call_of_tomorrow"}, Action: Allow, SkipUnknown: true}}},
		"nothing":               {},
	} {
		_, err := p.Compile()
		require.NoError(t, err, name)
	}
}

// many makes a policy whose program is long: n conditions that have nothing in common.
func many(n int) Policy {
	p := Policy{Arches: []Arch{X86_64, I386}}
	for i := range n {
		p.Rules = append(p.Rules, Rule{Names: []string{"openat"}, Action: Errno(syscall.Errno(1 + i%4000)),
			When: Any{{Arg(3).Masked(uint64(7+i)<<3, uint64(7+i)<<3), Arg(1).Equal(uint64(i) << 20), Arg(2).NotEqual(uint64(i))}}})
	}
	p.Rules = append(p.Rules, Rule{Names: []string{"@runtime"}, Action: Allow})
	return p
}

// TestLongPrograms: jumps over any distance are right, and what the kernel does not take is an error of its own.
func TestLongPrograms(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	longest := 0
	for _, n := range []int{1, 20, 30, 40, 60, 100, 150} {
		p := many(n)
		program, err := p.Compile()
		require.NoError(t, err)
		longest = max(longest, program.Len())
		compareNaive(t, r, p, program, 800)
		nr, _ := X86_64.Number("openat")
		for i := range n {
			args := []uint64{0, uint64(i) << 20, uint64(i) + 1, uint64(7+i) << 3}
			require.Equal(t, Errno(syscall.Errno(1+i%4000)), program.Verdict(X86_64, nr, args...), i)
		}
	}
	require.Greater(t, longest, 1000)
	_, err := many(2000).Compile()
	e := new(SizeError)
	require.ErrorAs(t, err, &e)
	require.ErrorIs(t, err, syscall.E2BIG)
	require.Greater(t, e.Instructions, e.Limit)
	require.EqualError(t, err, fmt.Sprintf("the program has %d instructions, and the kernel takes 4096", e.Instructions))
}

// TestKernelTakesIt: the programs consist of what the kernel's check of filters accepts.
func TestKernelTakesIt(t *testing.T) {
	program, err := many(50).Compile()
	require.NoError(t, err)
	for i, ins := range program.Instructions() {
		switch ins := ins.(type) {
		case bpf.LoadAbsolute:
			require.True(t, ins.Size == 4 && ins.Off%4 == 0 && ins.Off < dataSize)
		case bpf.JumpIf:
			require.Less(t, i+1+int(max(ins.SkipTrue, ins.SkipFalse)), program.Len())
		case bpf.Jump:
			require.Less(t, i+1+int(ins.Skip), program.Len())
		case bpf.ALUOpConstant, bpf.RetConstant:
		default:
			t.Fatalf("%T", ins)
		}
	}
	require.Len(t, program.Raw(), program.Len())
	require.Len(t, program.SockFilter(), program.Len())
}

// TestMultiplexers: who may not call socket may not call socketcall for it either.
func TestMultiplexers(t *testing.T) {
	p := Policy{Default: Allow, Arches: []Arch{I386, S390X, PPC64LE}, Rules: []Rule{
		{Names: []string{"socket"}, Action: Errno(syscall.EACCES), When: Arg(0).In(40)},
		{Names: []string{"accept"}, Action: KillProcess},
		{Names: []string{"@sysv-ipc"}, Action: Errno(syscall.ENOSYS)},
		{Names: []string{"socketcall"}, Action: Allow},
	}}
	program, err := p.Compile()
	require.NoError(t, err)
	for _, a := range p.Arches {
		socketcall, _ := a.Number("socketcall")
		ipc, _ := a.Number("ipc")
		require.Equal(t, Errno(syscall.EACCES), program.Verdict(a, socketcall, 1), a)
		require.Equal(t, Errno(syscall.EACCES), program.Verdict(a, socketcall, 1|5<<32), a)
		require.Equal(t, KillProcess, program.Verdict(a, socketcall, 5), a)
		require.Equal(t, Allow, program.Verdict(a, socketcall, 3), a)
		require.Equal(t, Errno(syscall.ENOSYS), program.Verdict(a, ipc, 2|1<<16), a)
	}
}

func TestCompare(t *testing.T) {
	base := only(Rule{Names: []string{"ioctl"}, Action: Errno(1), When: Arg(1).In(0x5412)})
	base.Arches = []Arch{X86_64, I386}
	more := base
	more.Rules = append([]Rule{{Names: []string{"mkdir"}, Action: Errno(2), Arches: []Arch{I386}}}, base.Rules...)
	more.Rules = append(more.Rules, Rule{Names: []string{"ioctl"}, Action: Errno(3), When: Any{{Arg(1).Equal(0x541c), Arg(2).HasAny(4)}}})
	old, err := base.Compile()
	require.NoError(t, err)
	changed, err := more.Compile()
	require.NoError(t, err)
	require.Empty(t, Compare(old, old))
	var text []string
	for _, d := range Compare(old, changed) {
		text = append(text, d.String())
		require.Equal(t, d.Old, old.Verdict(d.Arch, d.Number, d.Args[:]...))
		require.Equal(t, d.New, changed.Verdict(d.Arch, d.Number, d.Args[:]...))
	}
	require.Equal(t, []string{"x86_64 ioctl(0x0, 0x541c, 0x4, 0x0, 0x0, 0x0): allow, now errno ESRCH", "i386 mkdir(0x0, 0x0, 0x0, 0x0, 0x0, 0x0): allow, now errno ENOENT",
		"i386 ioctl(0x0, 0x541c, 0x4, 0x0, 0x0, 0x0): allow, now errno ESRCH"}, text)
}

// TestArgumentSizes: upper halves that the kernel does not read change no answer, on architectures where they can be set, and where it reads
// them they do.
func TestArgumentSizes(t *testing.T) {
	for _, c := range []struct {
		arch Arch
		name string
		bits [6]int
	}{
		{X86_64, "futex", [6]int{64, 32, 32, 64, 64, 32}}, {X86_64, "clone", [6]int{32, 64, 64, 64, 64, 64}}, {S390X, "clone", [6]int{64, 32, 64, 64, 64, 64}},
		{X86_64, "mmap", [6]int{64, 64, 64, 64, 32, 64}}, {X86_64, "mbind", [6]int{64, 64, 32, 64, 64, 32}}, {X86_64, "mount", [6]int{64, 64, 64, 64, 64, 64}},
		{S390X, "ipc", [6]int{32, 32, 64, 64, 64, 64}}, {PPC64LE, "spu_create", [6]int{64, 32, 16, 32, 64, 64}}, {MIPS64, "cacheflush", [6]int{64, 64, 32, 64, 64, 64}},
		{MIPS64, "cachectl", [6]int{64, 32, 32, 64, 64, 64}}, {S390X, "s390_runtime_instr", [6]int{32, 32, 64, 64, 64, 64}}, {X86_64, "fchmodat2", [6]int{32, 64, 16, 32, 64, 64}},
		{MIPS64, "_newselect", [6]int{32, 64, 64, 64, 64, 64}},
	} {
		for arg, bits := range c.bits {
			p := only(Rule{Names: []string{c.name}, Action: Errno(9), When: Arg(arg).In(5)})
			p.Arches = []Arch{c.arch}
			program, err := p.Compile()
			require.NoError(t, err)
			nr, ok := c.arch.Number(c.name)
			require.True(t, ok, c.name)
			for bit := 8; bit < 64; bit++ {
				args := make([]uint64, 6)
				args[arg] = 5 | 1<<bit
				want := Allow
				if bit >= bits {
					want = Errno(9)
				}
				require.Equal(t, want, program.Verdict(c.arch, nr, args...), "%v %s, argument %d, bit %d", c.arch, c.name, arg, bit)
			}
		}
	}
}
