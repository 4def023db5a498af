package seccomp

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/bpf"
)

// tokens are libseccomp's: those of the kernel, but for x32.
var tokens = map[Arch]uint32{X32: 1<<30 | 62}

func token(a Arch) uint32 {
	if t, ok := tokens[a]; ok {
		return t
	}
	return a.Token()
}

// libseccomp builds the small C program, or skips the test where there is no compiler or no library.
func libseccomp(t testing.TB) string {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("gcc is not installed")
	}
	if _, err := os.Stat("/usr/include/seccomp.h"); err != nil {
		t.Skip("libseccomp-dev is not installed")
	}
	bin := filepath.Join(t.TempDir(), "compile")
	out, err := exec.Command("gcc", "-O2", "-o", bin, "testdata/libseccomp/compile.c", "-lseccomp").CombinedOutput()
	require.NoErrorf(t, err, "%s", out)
	return bin
}

var opCodes = map[string]int{"SCMP_CMP_NE": 1, "SCMP_CMP_LT": 2, "SCMP_CMP_LE": 3, "SCMP_CMP_EQ": 4, "SCMP_CMP_GE": 5, "SCMP_CMP_GT": 6, "SCMP_CMP_MASKED_EQ": 7}

// script writes a profile down for the C program, as runc tells it to libseccomp: rules that do not count or say what the default says are left
// out, and two conditions on one argument become two rules.
func script(t testing.TB, p *Profile, target Target) string {
	t.Helper()
	target, err := target.complete()
	require.NoError(t, err)
	fallback, err := profileAction(p.DefaultAction, p.DefaultErrnoRet)
	require.NoError(t, err)
	arches, err := p.arches(target.Arch)
	require.NoError(t, err)
	var b strings.Builder
	fmt.Fprintf(&b, "default %#x\n", fallback.Return())
	if target.Arch != Native() {
		b.WriteString("remove\n")
	}
	for _, a := range arches {
		fmt.Fprintf(&b, "arch %#x\n", token(a))
	}
	for _, r := range p.Syscalls {
		counts, ferr := r.counts(target)
		require.Nil(t, ferr)
		action, err := profileAction(r.Action, r.ErrnoRet)
		require.NoError(t, err)
		if !counts || action == fallback {
			continue
		}
		args, seen := []string{""}, map[uint]bool{}
		for _, a := range r.Args {
			text := fmt.Sprintf(" %d %d %#x %#x", a.Index, opCodes[a.Op], a.Value, a.ValueTwo)
			if seen[a.Index] {
				args = nil
			}
			seen[a.Index] = true
			if args != nil {
				args[0] += text
			}
		}
		if args == nil {
			for _, a := range r.Args {
				args = append(args, fmt.Sprintf(" %d %d %#x %#x", a.Index, opCodes[a.Op], a.Value, a.ValueTwo))
			}
		}
		for _, name := range r.Names {
			for _, a := range args {
				fmt.Fprintf(&b, "rule %#x %s%s\n", action.Return(), name, a)
			}
		}
	}
	return b.String()
}

var errRefused = errors.New("libseccomp refuses the policy")

// compileC gives libseccomp's program for an architecture, and the names that it does not know.
func compileC(bin, script, how string, native Arch) ([]bpf.Instruction, []string, error) {
	cmd := exec.Command(bin, how)
	cmd.Stdin = strings.NewReader(script)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	if e := new(exec.ExitError); errors.As(err, &e) && e.ExitCode() == 3 {
		return nil, nil, fmt.Errorf("%w: %s", errRefused, stderr.String())
	}
	if err != nil {
		return nil, nil, err
	}
	var order binary.ByteOrder = binary.LittleEndian
	if native.info().big {
		order = binary.BigEndian
	}
	var raw []bpf.RawInstruction
	for b := out.Bytes(); len(b) >= 8; b = b[8:] {
		raw = append(raw, bpf.RawInstruction{Op: order.Uint16(b), Jt: b[2], Jf: b[3], K: order.Uint32(b[4:])})
	}
	if native.info().big {
		turn(raw, script)
	}
	code, ok := bpf.Disassemble(raw)
	if !ok {
		return nil, nil, errors.New("libseccomp's program cannot be read")
	}
	return code, strings.Fields(stderr.String()), nil
}

// known gives the names that libseccomp knows in an architecture, by number.
func known(t testing.TB, bin string, a Arch) map[int]string {
	t.Helper()
	first := 0
	switch a {
	case X32:
		first = x32Bit
	case MIPS64:
		first = 5000
	}
	out, err := exec.Command(bin, "names", fmt.Sprint(token(a)), fmt.Sprint(first)).Output()
	require.NoError(t, err)
	names := map[int]string{}
	for line := range strings.Lines(string(out)) {
		var nr int
		var name string
		_, err := fmt.Sscan(line, &nr, &name)
		require.NoError(t, err)
		names[first+nr] = name
	}
	return names
}

// TestTables: each number that libseccomp knows has the same name here.
func TestTables(t *testing.T) {
	bin := libseccomp(t)
	for a := range Arches() {
		names := known(t, bin, a)
		if a != LOONG64 { // since libseccomp 2.6
			require.Greater(t, len(names), 300, a)
		}
		for nr, name := range names {
			own, ok := a.Name(nr)
			require.Truef(t, ok, "%v %d %s", a, nr, name)
			require.Equalf(t, name, own, "%v %d", a, nr)
		}
	}
}

// without leaves out names, so that both sides know the same.
func (p *Profile) without(names []string) *Profile {
	q := *p
	q.Syscalls = nil
	for _, r := range p.Syscalls {
		c := *r
		c.Names = slices.DeleteFunc(slices.Clone(r.Names), func(n string) bool { return slices.Contains(names, n) })
		q.Syscalls = append(q.Syscalls, &c)
	}
	return &q
}

// probes are arguments worth trying for a call: around all values that the profile's conditions name.
func probes(p *Profile, name string, random *rand.Rand) [][6]uint64 {
	list := [][6]uint64{{}, {1, 1, 1, 1, 1, 1}, {^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}}
	for _, r := range p.Syscalls {
		if !slices.Contains(r.Names, name) {
			continue
		}
		for _, a := range r.Args {
			for _, v := range []uint64{a.Value, a.Value + 1, a.Value - 1, a.Value | 1<<32, a.Value | 1<<63, a.ValueTwo, a.ValueTwo | 1<<40, ^a.Value, a.Value &^ (a.Value - 1), a.Value & 0xffffffff, random.Uint64() & a.Value} {
				for range 2 {
					var args [6]uint64
					for i := range args {
						args[i] = random.Uint64() >> random.IntN(64)
					}
					if random.IntN(2) == 0 && len(list) > 3 {
						args = list[3+random.IntN(len(list)-3)]
					}
					args[a.Index] = v
					list = append(list, args)
				}
			}
		}
	}
	return list
}

// same compares two programs call by call.
func same(t testing.TB, ours, theirs []bpf.Instruction, arches []Arch, p *Profile, seed uint64, known map[Arch]map[int]string, what string) (n int) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	us, err := bpf.NewVM(ours)
	require.NoError(t, err)
	them, err := bpf.NewVM(theirs)
	require.NoError(t, err)
	for _, a := range arches {
		for _, nr := range numbers(a) {
			name, _ := a.Name(nr)
			lists := [][6]uint64{{}, {7, 7, 7, 7, 7, 7}}
			if name != "" && known[a][nr] == "" && len(known[a]) > 0 {
				continue // libseccomp's table of this architecture is older
			}
			if name != "" {
				lists = probes(p, name, random)
			}
			if name == "socketcall" || name == "ipc" {
				for i := range uint64(30) {
					lists = append(lists, [6]uint64{i}, [6]uint64{i | 1<<32, 3, 4})
				}
			}
			for _, args := range lists {
				d := data(a, nr, args[:])
				x, err1 := us.Run(d)
				y, err2 := them.Run(d)
				if err := cmp.Or(err1, err2); err != nil {
					t.Fatal(err)
				}
				if x != y {
					t.Fatalf("%v %s (%d) %#x: we say %v, libseccomp %v: %s", a, name, nr, args, ActionOf(uint32(x)), ActionOf(uint32(y)), what)
				}
				n++
			}
		}
	}
	return n
}

// numbers are 0 to 1023 in the architecture's own range, and some that lie far away.
func numbers(a Arch) (list []int) {
	base := 0
	switch a {
	case X32:
		base = x32Bit
	case MIPS64:
		base = 5000
	}
	for n := range 1024 {
		list = append(list, base+n)
	}
	return append(list, 0xf0001, 0xf0005, 0xf0006, 0xf0007, 4000, 5000, 6000, 0x3fffffff, 0x40000000, 0x40000000+2000, 0x7fffffff, -1, -2)
}

// turn mends what libseccomp 2.5 does wrong on a little-endian machine in programs for a big-endian one: further copies of an answer, which it makes where a
// jump is too long, stand there the wrong way round, 0x01000500 for 0x00050001. Which they are is plain: no answer of Docker's is another's turned round.
func turn(raw []bpf.RawInstruction, script string) {
	for i, r := range raw {
		if r.Op == codeReturn && r.K != 0 && !strings.Contains(script, fmt.Sprintf(" %#x", r.K)) {
			raw[i].K = bits.ReverseBytes32(r.K)
		}
	}
}

// natives are the architectures that libseccomp 2.5 knows; loong64 is since 2.6.
var natives = []Arch{X86_64, ARM64, RISCV64, S390X, PPC64LE, MIPS64}

// TestDockerAsLibseccomp: every number, architecture and condition of Docker's default profile, with the capabilities that make a
// difference, is answered as libseccomp's compilation of the profile answers it.
func TestDockerAsLibseccomp(t *testing.T) {
	bin := libseccomp(t)
	names := map[Arch]map[int]string{}
	for a := range Arches() {
		names[a] = known(t, bin, a)
	}
	for name, caps := range map[string][]string{"bare": nil, "SYS_ADMIN": {"SYS_ADMIN"}, "all": strings.Fields(capabilities), "docker": {"SYS_CHROOT"}} {
		for _, native := range natives {
			for _, kernel := range [][2]int{{6, 1}, {4, 4}} {
				if native != X86_64 && (kernel[0] == 4 || os.Getenv("VMRUN") == "1" && name != "docker" && name != "bare") {
					continue // less of what this machine does not run: it takes a while in an emulated one
				}
				target := Target{Caps: caps, Arch: native, Kernel: kernel, NoENOSYS: true}
				text := script(t, DockerProfile(), target)
				for _, how := range []string{"list", "tree"} {
					if how == "list" && native != X86_64 {
						continue
					}
					theirs, unknown, err := compileC(bin, text, how, native)
					require.NoError(t, err)
					p := DockerProfile().without(unknown)
					f := p.Filter(target)
					require.NoError(t, f.Err())
					n := same(t, f.Program.code(), theirs, []Arch{X86_64, I386, X32, ARM64, ARM, RISCV64, S390X, PPC64LE, LOONG64, MIPS64}, p, 1, names, name)
					t.Logf("%s on %v, %s: %d calls, %d instructions, libseccomp %d; it does not know %v", name, native, how, n, f.Program.Len(), len(theirs), unknown)
				}
			}
		}
	}
}
