package seccomp

import (
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/bpf"
)

// naive answers a call by reading the policy from top to bottom, as its documentation says: the oracle for the compiler.
func naive(p Policy, a Arch, nr uint32, args [6]uint64) Action {
	if a == X86_64 || a == X32 {
		a = X86_64
		if nr >= x32Bit && (nr != 1<<32-1 || !slices.Contains(p.Arches, X86_64)) {
			a = X32
		}
	}
	if !slices.Contains(p.Arches, a) {
		return p.otherArch()
	}
	name, _ := a.Name(int(int32(nr)))
	rest := p.fallback()
	if nr > uint32(a.Newest()) && !(a == ARM && nr >= 0xf0001 && nr <= 0xf0006) && !(a == X32 && nr >= x32Bit+512 && nr < x32Bit+548) {
		rest = p.newer()
	}
	if sub := hidden(a, name, args[0]); sub != "" {
		if answer, ok := blind(p, a, sub); ok && !(named(p, a, name, nr) && answer.Allows()) {
			return answer
		}
	}
	for _, r := range p.Rules {
		if r.names(a, name, nr) && holds(r.When, name, a, args) {
			return r.Action
		}
	}
	return rest
}

func (r Rule) names(a Arch, name string, nr uint32) bool {
	if r.Arches != nil && !slices.Contains(r.Arches, a) {
		return false
	}
	for _, n := range r.Names {
		if n == name && name != "" {
			return true
		}
		if list, err := Group(n); err == nil && slices.Contains(list, name) {
			return true
		}
	}
	return slices.Contains(r.Numbers, int(nr))
}

func named(p Policy, a Arch, name string, nr uint32) bool {
	return slices.ContainsFunc(p.Rules, func(r Rule) bool { return r.names(a, name, nr) })
}

func hidden(a Arch, name string, first uint64) string {
	for _, m := range multiplexers {
		bits := uint64(1<<32 - 1)
		if m.name == "ipc" {
			bits = 1<<16 - 1
		}
		if n := first & bits; m.name == name && n < uint64(len(m.calls)) {
			return m.calls[n]
		}
	}
	return ""
}

func blind(p Policy, a Arch, name string) (Action, bool) {
	worst, found := Action(0), false
	for _, r := range p.Rules {
		if !r.names(a, name, 1<<31) {
			continue
		}
		found = true
		possible := r.When == nil
		for _, l := range r.When {
			can, must := true, true
			for _, c := range l {
				k, _ := findCall(name)
				switch c.resolve(k, a).constant() {
				case never:
					can = false
				case depends:
					must = false
				}
			}
			if can && (worst == 0 || r.Action.stricter(worst)) {
				worst = r.Action
			}
			possible = possible || can && must
		}
		if r.When == nil && (worst == 0 || r.Action.stricter(worst)) {
			worst = r.Action
		}
		if possible {
			return worst, true
		}
	}
	if f := p.fallback(); found && (worst == 0 || f.stricter(worst)) {
		worst = f
	}
	return worst, found
}

func holds(when Any, name string, a Arch, args [6]uint64) bool {
	if when == nil {
		return true
	}
	for _, l := range when {
		if !slices.ContainsFunc(l, func(c Condition) bool { return !c.holds(name, a, args) }) {
			return true
		}
	}
	return false
}

func (c Condition) holds(name string, a Arch, args [6]uint64) bool {
	v, value, mask, high := args[c.Arg], c.Value, c.Mask, c.High
	switch c.Width {
	case Low32:
		v &= 0xffffffff
	case Libseccomp:
		if a == I386 || a == ARM || a == X32 {
			v, value, mask, high = v&0xffffffff, value&0xffffffff, mask&0xffffffff, high&0xffffffff
		}
	case ByType:
		if a == I386 || a == ARM {
			v &= 0xffffffff
		}
		if k, ok := findCall(name); ok {
			v &= 1<<k.bits(a, c.Arg) - 1
		}
	}
	switch c.Op {
	case Equal:
		return v == value
	case NotEqual:
		return v != value
	case Less:
		return v < value
	case LessEqual:
		return v <= value
	case Greater:
		return v > value
	case GreaterEqual:
		return v >= value
	case MaskedEqual:
		return v&mask == value
	case MaskedNot:
		return v&mask != value
	case Within:
		return v >= value && v <= high
	}
	return v < value || v > high
}

var randomNames = []string{"read", "ioctl", "socket", "clone", "mkdir", "chmod", "setuid", "personality", "mmap", "execve", "accept", "semop", "shmget", "msgrcv",
	"socketcall", "ipc", "@keyring", "@sysv-ipc", "@network-io", "@mount", "open", "openat", "preadv", "set_tls", "rt_sigaction", "umount2", "prctl"}

func randomValue(r *rand.Rand) uint64 {
	switch r.IntN(5) {
	case 0:
		return r.Uint64() >> r.IntN(64)
	case 1:
		return 1 << r.IntN(64)
	case 2:
		return uint64(r.IntN(4)) | uint64(r.IntN(3))<<32
	case 3:
		return ^uint64(0) >> (32 * r.IntN(2))
	}
	return uint64(r.IntN(20))
}

func randomCondition(r *rand.Rand) Condition {
	c := Condition{Arg: r.IntN(3), Op: Op(r.IntN(ops)), Value: randomValue(r), Width: Width(r.IntN(widths))}
	if r.IntN(3) == 0 {
		c.Arg = 0
	}
	if c.Op == MaskedEqual || c.Op == MaskedNot {
		c.Mask = randomValue(r)
		c.Value &= c.Mask
	}
	if c.Op == Within || c.Op == Outside {
		c.High = c.Value + min(randomValue(r), ^c.Value)
	}
	return c
}

var randomActions = []Action{Allow, Errno(syscall.EPERM), Errno(syscall.ENOSYS), KillProcess, KillThread, Log, Trap(3), Trace(1), Notify}

func randomPolicy(r *rand.Rand) Policy {
	action := func() Action { return randomActions[r.IntN(len(randomActions))] }
	p := Policy{OtherArch: KillProcess}
	if r.IntN(3) > 0 {
		p.Default, p.Newer, p.OtherArch = action(), action(), action()
	}
	for a := range Arches() {
		if r.IntN(3) == 0 {
			p.Arches = append(p.Arches, a)
		}
	}
	if len(p.Arches) == 0 {
		p.Arches = []Arch{X86_64, X32, I386}
	}
	for range r.IntN(9) {
		rule := Rule{Action: action()}
		for range 1 + r.IntN(3) {
			rule.Names = append(rule.Names, randomNames[r.IntN(len(randomNames))])
		}
		for range r.IntN(4) {
			var l All
			for range 1 + r.IntN(3) {
				l = append(l, randomCondition(r))
			}
			rule.When = append(rule.When, l)
		}
		if r.IntN(5) == 0 {
			rule.Arches = []Arch{p.Arches[r.IntN(len(p.Arches))]}
			rule.Numbers = []int{r.IntN(500), 600 + r.IntN(2)}
		}
		p.Rules = append(p.Rules, rule)
	}
	return p
}

func randomCall(r *rand.Rand, p Policy) (Arch, uint32, [6]uint64) {
	a := Arch(1 + r.IntN(arches))
	if r.IntN(4) > 0 {
		a = p.Arches[r.IntN(len(p.Arches))]
	}
	nr := uint32(r.IntN(600))
	if len(p.Rules) > 0 && r.IntN(4) > 0 {
		rule := p.Rules[r.IntN(len(p.Rules))]
		list := expand(rule.Names[r.IntN(len(rule.Names))])
		if n := list[r.IntN(len(list))].number(a); n >= 0 {
			nr = uint32(n)
		}
		if len(rule.Numbers) > 0 && r.IntN(3) == 0 {
			nr = uint32(rule.Numbers[r.IntN(2)])
		}
	}
	switch r.IntN(12) {
	case 0:
		nr |= x32Bit
	case 1:
		nr = uint32(r.Uint64() >> r.IntN(64))
	case 2:
		nr = []uint32{1<<32 - 1, 1 << 31, x32Bit - 1, x32Bit, 0xf0001, 0xf0006, 0xf0007, x32Bit | 511, x32Bit | 512, x32Bit | 547, x32Bit | 548}[r.IntN(11)]
	}
	return a, nr, randomArgs(r, p)
}

// randomArgs lie near what the policy asks for.
func randomArgs(r *rand.Rand, p Policy) (args [6]uint64) {
	for i := range args {
		args[i] = randomValue(r)
	}
	for _, rule := range p.Rules {
		for _, l := range rule.When {
			for _, c := range l {
				if r.IntN(3) == 0 {
					v := []uint64{c.Value, c.Value + 1, c.Value - 1, c.High, c.High + 1, c.Mask, ^c.Mask | c.Value, c.Value | 1<<32, c.Value | 1<<63, c.Value ^ 1<<r.IntN(64)}
					args[c.Arg] = v[r.IntN(len(v))]
				}
			}
		}
	}
	return args
}

// TestDifferential compiles random policies and compares, call by call, with the naive reading of the policy and with Explain. CAISSON_PAIRS
// says how many pairs of policy and call; an ordinary run does some.
func TestDifferential(t *testing.T) {
	pairs := 100_000
	if n, err := strconv.Atoi(os.Getenv("CAISSON_PAIRS")); err == nil {
		pairs = n
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	done, refused, policies := 0, 0, 0
	for done < pairs {
		p := randomPolicy(r)
		program, err := p.Compile()
		if err != nil {
			contradiction, condition := new(ContradictionError), new(ConditionError)
			require.Truef(t, errors.As(err, &contradiction) || errors.As(err, &condition), "%v", err)
			refused++
			continue
		}
		policies++
		done += compareNaive(t, r, p, program, 100)
	}
	t.Logf("%d pairs, %d policies, %d more were contradictory", done, policies, refused)
}

func compareNaive(t testing.TB, r *rand.Rand, p Policy, program *Program, n int) int {
	vm, err := bpf.NewVM(program.code())
	require.NoError(t, err)
	for range n {
		a, nr, args := randomCall(r, p)
		want := naive(p, a, nr, args)
		value, err := vm.Run(data(a, int(int32(nr)), args[:]))
		require.NoError(t, err)
		if got := ActionOf(uint32(value)); got != want {
			t.Fatalf("%v %d %#x: the program says %v, the policy %v\n%+v\n%v", a, nr, args, got, want, p, program)
		}
		if reason := program.Explain(a, int(int32(nr)), args[:]...); reason.Answer != want {
			t.Fatalf("%v %d %#x: Explain says %v, the policy %v\n%+v", a, nr, args, reason, want, p)
		}
	}
	return n
}
