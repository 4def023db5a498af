package seccomp

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

var updateTables = flag.Bool("tables", false, "write the golden verdict tables anew")

// verdicts is the answer to every number of every architecture, as stretches of numbers with the same answer. The arguments are zero; where others
// are answered otherwise the answer ends with a star.
func verdicts(p *Program, arches []Arch) string {
	var b strings.Builder
	for _, a := range arches {
		fmt.Fprintf(&b, "%v\n", a)
		first, last, answer := 0, 0, ""
		flush := func() {
			if answer != "" {
				fmt.Fprintf(&b, "\t%s %s\n", stretchText(a, first, last), answer)
			}
		}
		list := numbers(a)[:1024]
		for _, nr := range append(list, list[1023]+100000) {
			text := p.Verdict(a, nr).String()
			if len(p.at(a, uint32(nr)).branches) > 1 {
				text += " *"
			}
			if text != answer || nr != last+1 {
				flush()
				first, answer = nr, text
			}
			last = nr
		}
		flush()
	}
	return b.String()
}

func stretchText(a Arch, first, last int) string {
	name := func(nr int) string {
		if n, ok := a.Name(nr); ok {
			return n
		}
		return "-"
	}
	base := numbers(a)[0]
	if first == last {
		return fmt.Sprintf("%d %s:", first-base, name(first))
	}
	return fmt.Sprintf("%d-%d %s..%s:", first-base, last-base, name(first), name(last))
}

// TestVerdictTables: a call that becomes allowed, or falls through to a default, shows in the diff of these files (CVE-2021-41133).
func TestVerdictTables(t *testing.T) {
	untrusted := Untrusted()
	for name, build := range map[string]func(a Arch) Filter{
		"docker": func(a Arch) Filter {
			return DockerProfile().Filter(Target{Arch: a, Kernel: [2]int{6, 1}, Caps: []string{"SYS_CHROOT"}})
		},
		"untrusted": func(a Arch) Filter {
			p := untrusted
			p.Arches = []Arch{a}
			return New(p)
		},
	} {
		var b strings.Builder
		for a := range Arches() {
			if a == I386 || a == X32 || a == ARM {
				continue // with their 64-bit architecture
			}
			f := build(a)
			require.NoError(t, f.Err())
			b.WriteString(verdicts(f.Program, a.Family()))
		}
		golden := "testdata/verdicts." + name
		if *updateTables {
			require.NoError(t, os.WriteFile(golden, []byte(b.String()), 0o644))
		}
		want, err := os.ReadFile(golden)
		require.NoError(t, err)
		require.Equal(t, string(want), b.String(), "run with -tables and look at the difference")
	}
}

// TestNewerCalls: what nobody knew when the policy was written answers ENOSYS, in lists of what is allowed and of what is forbidden.
func TestNewerCalls(t *testing.T) {
	for _, p := range []Policy{Untrusted(), {Default: Allow, Arches: []Arch{X86_64, X32, ARM}}, {Arches: []Arch{X86_64, X32, ARM}}} {
		program, err := p.Compile()
		require.NoError(t, err)
		for _, a := range program.Arches() {
			for nr := a.Newest() + 1; nr < a.Newest()+20; nr++ {
				require.Equal(t, Errno(syscall.ENOSYS), program.Verdict(a, nr), "%v %d", a, nr)
			}
			require.NotEqual(t, Errno(syscall.ENOSYS), program.Verdict(a, a.Newest()))
		}
	}
	f := DockerDefault()
	require.Equal(t, Errno(syscall.ENOSYS), f.Program.Verdict(Native(), Native().Newest()+1))
	clone3, _ := Native().Number("clone3")
	require.Equal(t, Errno(syscall.ENOSYS), f.Program.Verdict(Native(), clone3))
	require.Equal(t, Allow, DockerDefault("cap_sys_admin").Program.Verdict(Native(), clone3))
}

// TestIntArguments is the rule of CVE-2019-10063: of an int the lower half counts, and what does not fit is refused when the policy is
// compiled.
func TestIntArguments(t *testing.T) {
	p := only(Rule{Names: []string{"ioctl"}, Action: Errno(1), When: Arg(1).In(0x5412)})
	p.Arches = []Arch{X86_64, I386, X32, ARM64, ARM, S390X}
	program, err := p.Compile()
	require.NoError(t, err)
	for _, a := range p.Arches {
		nr, _ := a.Number("ioctl")
		for _, v := range []uint64{0x5412, 0x5412 | 1<<32, 0x5412 | 1<<63, 0x5412 | 0xffffffff<<32} {
			require.Equal(t, Errno(1), program.Verdict(a, nr, 0, v), "%v %#x", a, v)
		}
		require.Equal(t, Allow, program.Verdict(a, nr, 0, 0x5413))
	}
	p.Rules[0].When = Any{{Arg(1).Equal(0x5412).As(Full64)}}
	program, err = p.Compile()
	require.NoError(t, err)
	nr, _ := X86_64.Number("ioctl")
	require.Equal(t, Allow, program.Verdict(X86_64, nr, 0, 0x5412|1<<32))
	for _, c := range []struct {
		name string
		c    Condition
	}{{"ioctl", Arg(1).Equal(1 << 32)}, {"socket", Arg(0).Masked(1<<40, 0)}, {"chmod", Arg(1).Equal(1 << 16)}, {"socket", Arg(0).Within(0, 1<<33)}} {
		_, err := only(Rule{Names: []string{c.name}, Action: Errno(1), When: Any{{c.c}}}).Compile()
		e := new(ConditionError)
		require.ErrorAs(t, err, &e, c.c.String())
		require.Equal(t, c.name, e.Call)
	}
}
